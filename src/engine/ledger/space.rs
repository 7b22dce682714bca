//! Room in allocated blocks: a key is admitted only while its verdict is sure to fit.
//!
//! Each page reserved is one that a completion without a body fits into, whatever batch it comes
//! in. While a next log is prepared, all reservations fit there; otherwise they fit in the active
//! log, and bodies are stored only beyond them.

use std::sync::Arc;

use crate::engine::entry::MAX_BARE_ENTRY_BYTES;
use crate::engine::log::{BatchBuilder, Frame, PAGE, PAGE_BYTES};
use crate::error::{Error, Result};
use crate::sync::Mutex;

const _: () = assert!(BatchBuilder::HEAD + Frame::HEAD + MAX_BARE_ENTRY_BYTES <= PAGE_BYTES);

#[derive(Debug, Default)]
pub(crate) struct Space(Mutex<Room>);

#[derive(Debug, Default)]
struct Room {
    available: u64,
    reserved: u64,
    /// What is left of the active log, less what a batch on its way has taken.
    active: u64,
}

/// Pages kept for an entry that will come.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Arc<Space>,
    bytes: u64,
}

impl Space {
    /// Reserves a page for an entry, and what its content takes beyond the first.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if there is none: the disk is full, or sealing is behind.
    pub(crate) fn reserve(self: &Arc<Self>, content: u64) -> Result<Reservation> {
        let bytes = PAGE + content.next_multiple_of(PAGE);
        let mut room = self.0.lock();
        if room.reserved + bytes > room.available {
            return Err(Error::Full);
        }
        room.reserved += bytes;
        Ok(Reservation { space: Arc::clone(self), bytes })
    }

    /// Tells how much room there is now.
    pub(crate) fn set_available(&self, bytes: u64) {
        self.0.lock().available = bytes;
    }

    /// Tells how much is left of the active log.
    pub(crate) fn set_active(&self, bytes: u64) {
        self.0.lock().active = bytes;
    }

    /// Makes what is left of the active log available, where there is no next one.
    pub(crate) fn fall_back(&self) {
        let mut room = self.0.lock();
        room.available = room.active;
    }

    /// Takes room for a batch out of what is left: `fit` is told how much of it is nobody else's, and
    /// says how much it takes. What it takes is nobody's from then on, though it is not written yet.
    pub(crate) fn take(&self, left: u64, own: u64, fit: impl FnOnce(u64) -> u64) {
        let mut room = self.0.lock();
        let others = room.reserved.saturating_sub(own);
        let taken = fit(left.saturating_sub(others)).next_multiple_of(PAGE);
        room.active = left.saturating_sub(taken);
        room.available = room.available.min(room.active);
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.0.lock().reserved -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p11_what_a_batch_takes_is_nobody_elses_before_it_is_written() {
        let space = Arc::new(Space::default());
        space.set_active(10 * PAGE);
        space.fall_back();
        let own = space.reserve(0).unwrap();
        let others = [0, PAGE + 1].map(|content| space.reserve(content).unwrap());
        space.take(10 * PAGE, own.bytes(), |room| {
            assert_eq!(room, 6 * PAGE, "all but the four of the others");
            5 * PAGE + 1
        });
        drop(own);
        assert!(matches!(space.reserve(0), Err(Error::Full)));
        // Nor is it when the reaper looks for room.
        space.fall_back();
        assert!(matches!(space.reserve(0), Err(Error::Full)));
        drop(others);
        let last: Vec<_> = std::iter::from_fn(|| space.reserve(0).ok()).collect();
        assert_eq!(last.len(), 4);
    }
}
