//! The addresses of a segment whose latest entry could not be read: they are known by their hash
//! alone.
//!
//! The entry stays where it is. Should the disk give it back, it is served.

use crate::clock::Moment;
use crate::engine::log::Location;

use super::binding::Binding;

/// An address whose latest entry in a segment could not be read when it was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged {
    pub(crate) hash: u128,
    /// The moment at which the entry has expired, whatever it was.
    pub(crate) expires: Moment,
    /// The number of its log among the segment's, or [`GONE`](Self::GONE).
    pub(crate) log: u16,
    pub(crate) location: Location,
}

impl Damaged {
    /// The log of an entry that no file has any more.
    pub(crate) const GONE: u16 = u16::MAX;

    /// An address whose entry of this time is gone for good, and has expired at a later one, whatever
    /// it was.
    pub(crate) fn gone(hash: u128, at: Moment, expires: Moment) -> Self {
        let location = Location { offset: 0, length: 0, check: 0, at };
        Self { hash, expires, log: Self::GONE, location }
    }

    /// Returns the same address, with no bytes to look at again.
    pub(crate) fn without_bytes(self) -> Self {
        Self::gone(self.hash, self.location.at, self.expires)
    }

    /// Returns true if the bytes of the entry are gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.log == Self::GONE
    }
}

/// The bytes of one of them: hash, expiry, log, offset, length, check, time of its batch.
const LEN: usize = 16 + 8 + 2 + 8 + 4 + 8 + 8;
/// The bytes of a digest.
const DIGEST: usize = 16;

/// Returns a list as bytes, with a digest bound to the segment.
pub(super) fn encode(list: &[Damaged], binding: &Binding) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(list.len() * LEN + DIGEST);
    for Damaged { hash, expires, log, location } in list {
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes.extend_from_slice(&expires.0.to_le_bytes());
        bytes.extend_from_slice(&log.to_le_bytes());
        bytes.extend_from_slice(&location.offset.to_le_bytes());
        bytes.extend_from_slice(&location.length.to_le_bytes());
        bytes.extend_from_slice(&location.check.to_le_bytes());
        bytes.extend_from_slice(&location.at.0.to_le_bytes());
    }
    let digest = binding.digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// Decodes a list of `count`, or returns `None` if it is damaged itself.
pub(super) fn decode(bytes: &[u8], count: u64, binding: &Binding) -> Option<Vec<Damaged>> {
    let (bytes, digest) = bytes.split_last_chunk::<DIGEST>()?;
    let (list, []) = bytes.as_chunks::<LEN>() else { return None };
    if binding.digest(bytes) != *digest || list.len() as u64 != count {
        return None;
    }
    list.iter().map(|bytes| decode_one(bytes)).collect()
}

fn decode_one(bytes: &[u8]) -> Option<Damaged> {
    let (hash, bytes) = bytes.split_first_chunk()?;
    let (expires, bytes) = bytes.split_first_chunk()?;
    let (log, bytes) = bytes.split_first_chunk()?;
    let (offset, bytes) = bytes.split_first_chunk()?;
    let (length, bytes) = bytes.split_first_chunk()?;
    let (check, bytes) = bytes.split_first_chunk()?;
    let location = Location {
        offset: u64::from_le_bytes(*offset),
        length: u32::from_le_bytes(*length),
        check: u64::from_le_bytes(*check),
        at: Moment(u64::from_le_bytes(bytes.try_into().ok()?)),
    };
    Some(Damaged {
        hash: u128::from_le_bytes(*hash),
        expires: Moment(u64::from_le_bytes(*expires)),
        log: u16::from_le_bytes(*log),
        location,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BASE, KEY};
    use super::*;

    #[test]
    fn p5_a_list_that_is_damaged_itself_is_none() {
        let binding = Binding::new(&BASE, KEY);
        let location = Location { offset: 1, length: 2, check: 3, at: Moment(4) };
        let list = [1, 2].map(|hash| Damaged { hash, expires: Moment(9), log: 5, location });
        let mut bytes = encode(&list, &binding);
        assert_eq!(decode(&bytes, 2, &binding), Some(list.to_vec()));
        assert_eq!(decode(&bytes, 1, &binding), None);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes, 2, &binding), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
