//! Room in allocated blocks: a key is admitted only while its verdict is sure to fit.
//!
//! Each page reserved is one that a completion without a body fits into, whatever batch it comes
//! in. While a next log is prepared, all reservations fit there; otherwise they fit in the active
//! log, and bodies are stored only beyond them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::entry::MAX_BARE_ENTRY_BYTES;
use crate::error::{Error, Result};
use crate::log::{BatchBuilder, Frame, PAGE, PAGE_BYTES};

const _: () = assert!(BatchBuilder::HEAD + Frame::HEAD + MAX_BARE_ENTRY_BYTES <= PAGE_BYTES);

#[derive(Debug, Default)]
pub(crate) struct Space {
    available: AtomicU64,
    reserved: AtomicU64,
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
        let available = self.available.load(Ordering::Acquire);
        self.reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |reserved| {
                (reserved + bytes <= available).then_some(reserved + bytes)
            })
            .map(|_| Reservation { space: Arc::clone(self), bytes })
            .map_err(|_| Error::Full)
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// Tells how much room there is now.
    pub(crate) fn set_available(&self, bytes: u64) {
        self.available.store(bytes, Ordering::Release);
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
