//! The share of the latest claims that were on known keys.

use std::sync::atomic::{AtomicU32, Ordering};

/// The share of claims, among the latest, whose keys were known: in parts of [`WHOLE`](Self::WHOLE).
#[derive(Default)]
pub(crate) struct Share(AtomicU32);

impl Share {
    const WHOLE: u32 = 1 << 16;
    /// The weight of the latest claim.
    const PART: u32 = 32;

    /// Counts a claim. Of two threads that count at once one may go uncounted, which does no harm.
    pub(crate) fn count(&self, is_known: bool) {
        let share = self.0.load(Ordering::Relaxed);
        let rest = share - share / Self::PART;
        let part = if is_known { Self::WHOLE / Self::PART } else { 0 };
        self.0.store(rest + part, Ordering::Relaxed);
    }

    pub(crate) fn is_large(&self) -> bool {
        self.0.load(Ordering::Relaxed) > Self::WHOLE / 2
    }
}
