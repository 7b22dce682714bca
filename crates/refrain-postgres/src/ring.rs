//! The ring of body tables, by the database's clock as this node last heard it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::session::{Session, time};

/// The tables in the ring.
pub(crate) const SLOTS: i64 = 12;
/// The slots that a TTL spans: the ring has one each for the start and the end of the TTL, one for
/// a clock that a node has guessed, and one that is empty.
pub(crate) const SLOTS_PER_TTL: i64 = SLOTS - 4;

/// Says which table a record goes into: that of the slot of time in which it expires, or the next.
#[derive(Debug)]
pub(crate) struct Ring {
    session: Arc<Session>,
    slot_ms: i64,
    /// The TTL of most records.
    ttl_ms: i64,
}

impl Ring {
    pub(crate) fn new(session: Arc<Session>, slot_ms: i64, ttl_ms: i64) -> Self {
        Self { session, slot_ms, ttl_ms }
    }

    pub(crate) fn slot_ms(&self) -> i64 {
        self.slot_ms
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.session.now()
    }

    /// The slot of time in which a record that is completed now expires.
    pub(crate) fn guess(&self, ttl_ms: i64) -> i64 {
        self.session.now_ms().saturating_add(ttl_ms) / self.slot_ms
    }

    /// The same for most records.
    pub(crate) fn default_guess(&self) -> i64 {
        self.guess(self.ttl_ms)
    }

    /// The table of a slot of time.
    pub(crate) fn slot(&self, of_time: i64) -> usize {
        usize::try_from(of_time.rem_euclid(SLOTS)).unwrap_or_default()
    }

    /// The times between which the records expire that a guess is right about.
    pub(crate) fn window(&self, guess: i64) -> (SystemTime, SystemTime) {
        let start = |slot: i64| time(slot.saturating_mul(self.slot_ms));
        (start(guess.saturating_sub(1)), start(guess.saturating_add(1)))
    }

    /// The slot of time from which on the row of a claim made now may be swept, if it has expired.
    pub(crate) fn sweep(&self, ttl_ms: i64) -> i64 {
        self.guess(ttl_ms).saturating_add(1)
    }
}
