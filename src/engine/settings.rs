//! The settings of one store, as the builder has checked them.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;

/// What the builder decides.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ttl: Duration,
    pub(crate) log_bytes: u64,
    pub(crate) max_open_claims: usize,
    pub(crate) max_open_claims_per_scope: usize,
    pub(crate) trusted_downtime: Duration,
    pub(crate) zero_recycled: bool,
}

impl Settings {
    /// How long the active log takes entries before it is frozen, full or not.
    pub(crate) fn rotation_age(&self) -> Duration {
        (self.ttl / 24).max(Duration::from_secs(60))
    }

    /// What all checkpoints together may take, well below a log.
    pub(crate) fn max_checkpoint_bytes(&self) -> usize {
        usize::try_from(self.log_bytes / 8).unwrap_or(usize::MAX)
    }
}
