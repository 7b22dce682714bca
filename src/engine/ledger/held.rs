//! Logs that are not sealed yet because they alone have some open claims.
//!
//! On a nearly full disk an opening has no room to carry the claims into its new log. They stay where
//! they are, and are read from there by the next opening too, until a rotation carries them.

use crate::clock::Moment;
use crate::engine::log::{BatchBuilder, Frozen, Tail};
use crate::error::Result;

use super::Ledger;
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
}

impl Ledger {
    /// Makes these claims the open ones of a store that is being opened.
    pub(super) fn insert_claims(&self, claims: Vec<Found>) {
        let mut open = self.claims.lock();
        claims.into_iter().for_each(|found| open.insert(found.address, found.claim));
        open.allow_for_found();
    }

    /// Carries the open claims into the log of an opening if they fit, or else holds the logs that have
    /// these `claims`. Unless the log has a time already, it gets this boot's, so that a second opening
    /// continues this one's time.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io).
    ///
    /// # Durability
    ///
    /// The time, and the claims if they fit, are durable in the log when this returns.
    pub(super) fn carry_or_hold(
        &self,
        tail: &mut Tail,
        claims: &[Found],
        fits: bool,
        has_time: bool,
    ) -> Result<()> {
        let (mut batch, anchor) = (BatchBuilder::new(), self.timeline.anchor());
        if fits {
            return self.carry(tail, &mut batch, anchor);
        }
        *self.held.lock() = Held::by(claims);
        if has_time { Ok(()) } else { tail.append(&mut batch, anchor).map(drop) }
    }

    /// Returns true if some open claims are not in the active log, and a rotation should carry them.
    pub(crate) fn holds_claims(&self) -> bool {
        let now = self.timeline.now();
        self.held.lock().is_some_and(|held| held.until > now)
    }

    /// Returns the frozen logs that may be sealed: those before the first that is held.
    pub(super) fn sealable<'a>(&self, frozen: &'a [Frozen]) -> &'a [Frozen] {
        let now = self.timeline.now();
        let Some(held) = self.held.lock().filter(|held| held.until > now) else { return frozen };
        let before = frozen.iter().take_while(|frozen| frozen.log.generation < held.from).count();
        &frozen[..before]
    }
}
