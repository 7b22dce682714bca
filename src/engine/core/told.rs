//! The state of a store as it was told last.
//!
//! A change that follows another too soon is told later, if it lasts. So the latest event of a kind
//! comes to be true, and a state that comes and goes does not fill the log.

use std::time::Duration;

use crate::clock::Moment;
use crate::stats::Refusing;

/// The least time between two events of a kind, by the store's clock.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// The state that was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    refusing: Option<Refusing>,
    refusing_at: Option<Moment>,
    bodies_left_out: u64,
    bodies_at: Option<Moment>,
}

impl Told {
    /// Notes the reason for which new keys are refused, which is told now.
    pub(super) fn set_refusing(&mut self, refusing: Option<Refusing>, now: Moment) {
        (self.refusing, self.refusing_at) = (refusing, Some(now));
    }

    /// Returns whether it is time to tell that new keys are refused for this reason, or no more.
    pub(super) fn notes_refusing(&mut self, refusing: Option<Refusing>, now: Moment) -> bool {
        let is_told = refusing != self.refusing && is_due(self.refusing_at, now);
        if is_told {
            self.set_refusing(refusing, now);
        }
        is_told
    }

    /// Returns the bodies that were left out and not told of yet, if it is time to tell.
    pub(super) fn notes_bodies(&mut self, left_out: u64, now: Moment) -> u64 {
        // Another thread may have told of more since they were counted.
        let bodies = left_out.saturating_sub(self.bodies_left_out);
        if bodies == 0 || !is_due(self.bodies_at, now) {
            return 0;
        }
        (self.bodies_left_out, self.bodies_at) = (left_out, Some(now));
        bodies
    }
}

fn is_due(told_at: Option<Moment>, now: Moment) -> bool {
    told_at.is_none_or(|at| now.since(at) >= TELL_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_comes_and_goes_is_told_seldom_and_truly_in_the_end() {
        let mut told = Told::default();
        let at = |seconds: u64| Moment(seconds * 1000);
        assert!(told.notes_refusing(Some(Refusing::Full), at(0)));
        for second in 1..10 {
            let refusing = (second % 2 == 0).then_some(Refusing::Full);
            assert!(!told.notes_refusing(refusing, at(second)), "{second}");
        }
        assert!(told.notes_refusing(None, at(10)));
        assert!(!told.notes_refusing(None, at(30)), "it was told");
    }

    #[test]
    fn bodies_that_were_left_out_between_two_events_are_told_by_the_next() {
        let mut told = Told::default();
        let at = |seconds: u64| Moment(seconds * 1000);
        assert_eq!(told.notes_bodies(0, at(0)), 0);
        assert_eq!(told.notes_bodies(1, at(0)), 1);
        assert_eq!(told.notes_bodies(5, at(9)), 0);
        assert_eq!(told.notes_bodies(6, at(10)), 5);
    }
}
