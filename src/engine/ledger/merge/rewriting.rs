//! The segments that a merge or a purge rewrites, and the rules for it.

use std::sync::Arc;

use crate::clock::Moment;
use crate::engine::ledger::sieve::Sieve;
use crate::engine::ledger::values::LargeBytes;
use crate::engine::segment::Segment;

/// The segments that are rewritten as one, and the rules for it.
pub(in crate::engine::ledger) struct Rewriting<'a> {
    /// Newest first.
    pub(in crate::engine::ledger) run: &'a [Arc<Segment>],
    /// The moment by which an entry must not have expired.
    pub(in crate::engine::ledger) now: Moment,
    /// Returns true if the records in the log with this number are copied.
    pub(in crate::engine::ledger) is_copied: &'a dyn Fn(&Segment, usize) -> bool,
    /// Set for a purge, after which no log with other records may be left.
    pub(in crate::engine::ledger) sieve: Option<&'a Sieve<'a>>,
}

impl Rewriting<'_> {
    /// Returns at least what is copied out of the logs of a segment.
    pub(super) fn large_bytes(&self, segment: &Segment) -> LargeBytes {
        let live = match segment.meta.format {
            // All of them are in rows.
            1 => LargeBytes { entries: segment.meta.records, bytes: segment.bytes() },
            _ => {
                let live = segment.expiries.live(self.now);
                LargeBytes { entries: live.records, bytes: live.bytes }
            }
        };
        // The disk may give back what was damaged.
        let damaged = segment.damaged().iter().filter(|_| self.sieve.is_some());
        damaged.fold(live, |sum, damaged| {
            sum.plus(LargeBytes { entries: 1, bytes: u64::from(damaged.location.length) })
        })
    }
}
