//! Logs that are not sealed yet because they alone have some open claims.
//!
//! On a nearly full disk an opening has no room to carry the claims into its new log. They stay where
//! they are, and are read from there by the next opening too, until a rotation carries them.

use crate::clock::Moment;
use crate::engine::log::Frozen;

use super::chain::Found;

/// The logs that hold claims which no newer log has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// The generation of the oldest one.
    from: u64,
    /// The moment at which the last of the claims has expired.
    until: Moment,
}

impl Held {
    /// The logs that these claims are in; `None` if there are no claims.
    pub(super) fn by(claims: &[Found]) -> Option<Self> {
        let from = claims.iter().map(|found| found.oldest).min()?;
        let until = claims.iter().map(|found| found.claim.expiry()).max()?;
        Some(Self { from, until })
    }

    /// Returns true if all of the claims have expired.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.until <= now
    }

    /// Returns those of the logs, oldest first, that are older than all that are held.
    pub(super) fn before<'a>(&self, frozen: &'a [Frozen]) -> &'a [Frozen] {
        let older = frozen.iter().take_while(|frozen| frozen.log.generation < self.from);
        &frozen[..older.count()]
    }
}
