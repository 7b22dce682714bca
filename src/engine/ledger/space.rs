//! Space in allocated blocks: a key is admitted only while its verdict is sure to fit.
//!
//! Invariants:
//! - A reserved page is enough for any completion without a body, even in a batch of its own.
//! - All reservations fit in the next log, behind the open claims that it begins with, from the
//!   moment on in which they do. Until then, and while no next log is prepared, they fit in the
//!   rest of the active log. Bodies are stored only in space that is not reserved.
//! - A claim becomes one that is carried before its own reservation is given back.

use std::sync::Arc;

use crate::engine::entry::MAX_BARE_ENTRY_BYTES;
use crate::engine::log::{BatchBuilder, Frame, PAGE, PAGE_BYTES};
use crate::error::{Error, Result};
use crate::sync::Mutex;

const _: () = assert!(BatchBuilder::HEAD + Frame::HEAD + MAX_BARE_ENTRY_BYTES <= PAGE_BYTES);

/// The space of a store's logs, shared by the writer, the reaper and all reservations.
#[derive(Debug, Default)]
pub(crate) struct Space(Mutex<Room>);

#[derive(Debug, Default)]
struct Room {
    /// Bytes that reservations may take altogether.
    available: u64,
    /// Bytes that they have taken.
    reserved: u64,
    /// The most bytes of the open claims in a new log.
    carried: u64,
    /// True if the next log has room for the reservations and the open claims.
    in_next: bool,
    /// Bytes left in the active log, less those of a batch that is being written.
    active: u64,
    /// The generation of the active log.
    generation: u64,
}

/// Pages that are reserved for an entry, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Arc<Space>,
    bytes: u64,
}

impl Space {
    /// Reserves a page for an entry, and further pages for `content` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if there is too little space: the disk is full, or sealing is behind.
    pub(crate) fn reserve(self: &Arc<Self>, content: u64) -> Result<Reservation> {
        let bytes = PAGE + content.next_multiple_of(PAGE);
        let mut room = self.0.lock();
        let carried = if room.in_next { room.carried } else { 0 };
        if room.reserved + carried + bytes > room.available {
            return Err(Error::Full);
        }
        room.reserved += bytes;
        Ok(Reservation { space: Arc::clone(self), bytes })
    }

    /// Sets the bytes that reservations may take altogether.
    pub(crate) fn set_available(&self, bytes: u64) {
        self.0.lock().available = bytes;
    }

    /// Sets the bytes that are `left` in the active log, which has this generation.
    pub(crate) fn set_active(&self, generation: u64, left: impl FnOnce() -> u64) {
        let mut room = self.0.lock();
        room.generation = generation;
        room.active = left();
    }

    /// Makes a log of this generation larger, by `grow`, and adds the bytes that this gives if it
    /// is the active one.
    pub(crate) fn grow(&self, generation: u64, bytes: u64, grow: impl FnOnce()) {
        // Under the mutex, so that nobody counts the bytes twice.
        let mut room = self.0.lock();
        grow();
        if room.generation == generation {
            room.active += bytes;
        }
    }

    /// Makes the usable bytes of the next log available, once it has room for all that is reserved
    /// and carried; and the rest of the active log until then.
    pub(crate) fn offer_next(&self, usable: u64) {
        let mut room = self.0.lock();
        room.in_next |= room.reserved + room.carried <= usable;
        room.available = if room.in_next { usable } else { room.active };
    }

    /// Makes the rest of the active log available, because no next log is prepared.
    pub(crate) fn fall_back(&self) {
        let mut room = self.0.lock();
        room.in_next = false;
        room.available = room.active;
    }

    /// Returns true if the next log has room for all that is reserved and carried.
    pub(crate) fn is_in_next(&self) -> bool {
        self.0.lock().in_next
    }

    /// Sets the most bytes of the open claims in a new log.
    pub(crate) fn set_carried(&self, bytes: u64) {
        self.0.lock().carried = bytes;
    }

    /// Returns the most bytes of the open claims in a new log.
    pub(crate) fn carried(&self) -> u64 {
        self.0.lock().carried
    }

    /// Returns the bytes that a new log needs for all that is reserved and carried.
    pub(crate) fn needed(&self) -> u64 {
        let room = self.0.lock();
        room.reserved + room.carried
    }

    /// Returns the bytes that others than the owner of `own` bytes have reserved in the active log.
    pub(crate) fn kept_for_others(&self, own: u64) -> u64 {
        let room = self.0.lock();
        if room.in_next { 0 } else { room.reserved.saturating_sub(own) }
    }

    /// Takes space for a batch out of the bytes that are `left` in the active log. `fit` gets the
    /// bytes not reserved by others and returns how many the batch uses; `own` are the batch's
    /// reservations.
    ///
    /// The bytes count as used from then on, though they are not written yet.
    pub(crate) fn take(&self, left: impl FnOnce() -> u64, own: u64, fit: impl FnOnce(u64) -> u64) {
        let mut room = self.0.lock();
        let left = left();
        let others = room.reserved.saturating_sub(own);
        let taken = fit(left.saturating_sub(others)).next_multiple_of(PAGE);
        room.active = left.saturating_sub(taken);
        room.available = room.available.min(room.active);
    }
}

impl Reservation {
    /// Returns the bytes that are reserved.
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
    fn p11_a_batch_uses_its_space_before_it_is_written() {
        let space = Arc::new(Space::default());
        space.set_active(1, || 10 * PAGE);
        space.fall_back();
        let own = space.reserve(0).unwrap();
        let others = [0, PAGE + 1].map(|content| space.reserve(content).unwrap());
        space.take(
            || 10 * PAGE,
            own.bytes(),
            |room| {
                assert_eq!(room, 6 * PAGE, "all but the four pages of the others");
                5 * PAGE + 1
            },
        );
        drop(own);
        assert!(matches!(space.reserve(0), Err(Error::Full)));
        // An update by the reaper returns nothing either.
        space.fall_back();
        assert!(matches!(space.reserve(0), Err(Error::Full)));
        drop(others);
        let last: Vec<_> = std::iter::from_fn(|| space.reserve(0).ok()).collect();
        assert_eq!(last.len(), 4);
    }
}
