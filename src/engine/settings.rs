//! The settings of one store, as the builder has checked them.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;

/// The most bytes of a claim in a log.
pub(crate) const CLAIM_BYTES: usize = 1024;

/// The settings that the engine reads; limits on operations in flight are the table's.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) clock: Arc<dyn Clock>,
    /// The longest time for which a record is replayed.
    pub(crate) ttl: Duration,
    /// The largest size of a log, unless more must be carried into it: a multiple of a page.
    pub(crate) log_bytes: u64,
    /// The size of a log in a store without load, a multiple of a page.
    pub(crate) first_log_bytes: u64,
    /// The most durable claims without a verdict, in the store and in one scope.
    pub(crate) max_open_claims: usize,
    pub(crate) max_open_claims_per_scope: usize,
    /// A longer downtime of the machine is not counted, and reported as a jump of the clock.
    pub(crate) trusted_downtime: Duration,
    /// True if a log's old content is overwritten before its blocks are used again.
    pub(crate) zero_recycled: bool,
}

impl Settings {
    /// Returns the age at which the active log is frozen, full or not.
    pub(crate) fn rotation_age(&self) -> Duration {
        (self.ttl / 24).max(Duration::from_secs(60))
    }

    /// Returns the most claims that a new log can begin with: those that are open, and those of
    /// operations that were in flight when the limit was reached.
    pub(crate) fn max_carried_claims(&self) -> usize {
        usize::try_from(self.log_bytes / 8).unwrap_or(usize::MAX) / CLAIM_BYTES
    }

    /// Returns the time after which an idle store writes the time again, so that a reboot does not
    /// take the idle time for downtime.
    pub(crate) fn anchor_age(&self) -> Duration {
        (self.trusted_downtime / 4).max(Duration::from_secs(60 * 60))
    }

    /// Returns the most bytes of all checkpoints together, well below a log.
    pub(crate) fn max_checkpoint_bytes(&self) -> usize {
        usize::try_from(self.log_bytes / 8).unwrap_or(usize::MAX)
    }
}
