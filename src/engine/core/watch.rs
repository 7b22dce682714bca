//! The changes of a store's state, told to those who watch: each once, and not too often.

use super::Engine;
use crate::error::{Error, WithCauses};
use crate::observe;
use crate::stats::Refusing;
use crate::sync::atomic::Ordering;

impl Engine {
    /// Looks for a change of the state, and tells of it. The background thread does so once a second,
    /// and a caller whose key is refused.
    pub(crate) fn watch(&self) {
        let is_watched = cfg!(any(feature = "metrics", feature = "tracing"));
        if !is_watched || self.has_failed() || self.is_closing() {
            return;
        }
        let (refusing, now) = (self.refusing(), self.ledger.timeline.now());
        observe::refusing(refusing);
        let left_out = self.counters.bodies_left_out.load(Ordering::Relaxed);
        let mut told = self.told.lock();
        let is_other = told.notes_refusing(refusing, now);
        let bodies = told.notes_bodies(left_out, now);
        drop(told);
        if is_other {
            observe::refusal(refusing);
        }
        if bodies > 0 {
            observe::bodies(bodies);
        }
    }

    /// Returns the reason for which new keys are refused or held up, as far as it is known without a
    /// look at the disk.
    pub(super) fn refusing(&self) -> Option<Refusing> {
        if self.is_away.load(Ordering::Acquire) {
            return Some(Refusing::Away);
        }
        let is_full = || self.ledger.claims.lock().is_full().then_some(Refusing::OpenClaims);
        self.ledger.space.figures().1.or_else(is_full)
    }

    /// Notes that the store is not at its path, so that nothing new is begun there.
    pub(crate) fn note_away(&self, error: &Error) {
        if self.is_away.swap(true, Ordering::AcqRel) {
            return;
        }
        let now = self.ledger.timeline.now();
        self.told.lock().set_refusing(Some(Refusing::Away), now);
        observe::away(error);
    }

    /// Notes what came of the latest background work. The same trouble is told once.
    pub(crate) fn note_trouble(&self, trouble: Option<Error>) {
        let mut last = self.counters.last_trouble.lock();
        let before = std::mem::replace(&mut *last, trouble.clone());
        drop(last);
        let text = |error: &Error| WithCauses(error).to_string();
        match (before, trouble) {
            (Some(before), Some(trouble)) if text(&before) == text(&trouble) => {}
            (_, Some(trouble)) => observe::trouble(&trouble),
            (Some(_), None) => observe::trouble_is_over(),
            (None, None) => {}
        }
    }
}
