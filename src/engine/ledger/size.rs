//! The sizes of a log: what it has for claims and reservations, and what it needs for them.

use crate::engine::log::PAGE;

/// The size at which a batch of carried claims is closed.
pub(super) const CARRY_BYTES: u64 = 1024 * 1024;

/// Returns sizes to try, from the largest on: each half of the one before, down to `least`.
pub(super) fn sizes(largest: u64, least: u64) -> impl Iterator<Item = u64> {
    let half =
        move |size: &u64| (*size > least).then(|| (size / 2).next_multiple_of(PAGE).max(least));
    std::iter::successors(Some(largest.max(least)), half)
}

/// Returns the bytes of a new log that claims and reservations may use: all but the header, the
/// batch with its start entry, the ends of the batches that carry the claims, and the short one behind
/// them.
pub(super) fn usable(size: u64) -> u64 {
    size.saturating_sub((4 + size / (CARRY_BYTES / 2)) * PAGE)
}

/// Returns the size of a log with this many usable bytes.
pub(super) fn size_for(bytes: u64) -> u64 {
    let mut size = bytes.next_multiple_of(PAGE) + 4 * PAGE;
    while usable(size) < bytes {
        size += (bytes - usable(size)).next_multiple_of(PAGE);
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_the_usable_bytes_that_it_is_made_for() {
        for bytes in [0, 1, PAGE, 100 * PAGE + 1, 1 << 20, (1 << 27) + 5, 1 << 32] {
            let size = size_for(bytes);
            assert!(usable(size) >= bytes, "{bytes}");
            assert!(bytes == 0 || usable(size - PAGE) < bytes, "{bytes}");
            assert!(size.is_multiple_of(PAGE), "{bytes}");
        }
    }

    #[test]
    fn sizes_halve_down_to_the_least() {
        let tried = |largest, least| sizes(largest * PAGE, least * PAGE).map(|size| size / PAGE);
        assert!(tried(32, 5).eq([32, 16, 8, 5]));
        assert!(tried(7, 2).eq([7, 4, 2]));
        assert!(tried(1, 3).eq([3]));
    }
}
