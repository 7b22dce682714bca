//! Logs that are not sealed yet because they alone have some open claims, or checkpoints of these.
//!
//! On a nearly full disk an opening has no room to carry the claims into its new log. They stay where
//! they are, and are read from there by the next opening too, until a rotation carries them, or until
//! each has its verdict or has expired.

use crate::clock::Moment;
use crate::engine::log::Frozen;

use super::chain::Found;
use super::claims::Claims;

/// The logs that are held for the claims in them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// The generation of the oldest one. Newer logs are held too, because logs are sealed in order.
    from: u64,
    /// The sequence of the last batch of the opening: claims from later batches are in newer logs.
    until: u64,
}

impl Held {
    /// The logs that these claims are in, which an opening has found and not carried; `None` if there
    /// are no claims. `sequence` is that of its last batch.
    pub(super) fn by(claims: &[Found], sequence: u64) -> Option<Self> {
        let from = claims.iter().map(|found| found.oldest).min()?;
        Some(Self { from, until: sequence })
    }

    /// Returns true if any of the claims is still open. Later attempts are the same claim.
    pub(super) fn is_needed(&self, claims: &Claims, now: Moment) -> bool {
        let mut open = claims.iter().map(|(_, claim)| claim);
        open.any(|claim| claim.first_sequence <= self.until && claim.expiry() > now)
    }

    /// Returns those of the logs, oldest first, that are older than all that are held.
    pub(super) fn before<'a>(&self, frozen: &'a [Frozen]) -> &'a [Frozen] {
        let older = frozen.iter().take_while(|frozen| frozen.log.generation < self.from);
        &frozen[..older.count()]
    }
}
