//! Events that are told once in a while, however often their cause is met.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The least time between two events of a kind.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// The events of one kind.
pub(super) struct Told(Mutex<State>);

struct State {
    at: Option<Instant>,
    suppressed: u64,
}

impl Told {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State { at: None, suppressed: 0 }))
    }

    /// Returns the number of events that were suppressed since the last one, if it is time for
    /// another; counts this one as suppressed otherwise.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let is_due = |at| now.saturating_duration_since(at) >= TELL_AGAIN;
        if state.at.is_none_or(is_due) {
            state.at = Some(now);
            return Some(std::mem::take(&mut state.suppressed));
        }
        state.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_how_many_were_suppressed_before_it() {
        let (told, start) = (Told::new(), Instant::now());
        let told = |millis| told.admit(start + Duration::from_millis(millis));
        let said: Vec<_> = [0, 1, 999, 1000, 1001, 5000, 9000].map(told).to_vec();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1), Some(0)]);
    }
}
