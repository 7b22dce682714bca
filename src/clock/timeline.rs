//! The engine time of a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, Moment, Reading, millis};

/// A moment of engine time with the reading of the clocks at that moment. Each batch of a log
/// carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) at: Moment,
    pub(crate) reading: Reading,
}

/// The engine time of an open store, counted from an anchor.
#[derive(Debug)]
pub(crate) struct Timeline {
    clock: Arc<dyn Clock>,
    start: Anchor,
    /// The latest moment that was handed out.
    latest: AtomicU64,
    jump: Option<Duration>,
}

impl Timeline {
    /// Starts the engine time of a new store.
    pub(crate) fn start(clock: Arc<dyn Clock>) -> Self {
        let reading = clock.read();
        let start = Anchor { at: Moment(millis(reading.wall)), reading };
        Self { clock, start, latest: AtomicU64::new(start.at.0), jump: None }
    }

    /// Continues engine time from the latest anchor on disk. After a reboot the wall clock gives
    /// the downtime; one longer than `trusted` is reported as a jump.
    pub(crate) fn resume(clock: Arc<dyn Clock>, last: Anchor, trusted: Duration) -> Self {
        let reading = clock.read();
        let same_boot =
            reading.boot_id == last.reading.boot_id && reading.boot >= last.reading.boot;
        let away = if same_boot {
            reading.boot - last.reading.boot
        } else {
            reading.wall.saturating_sub(last.reading.wall)
        };
        let jump = (!same_boot && away > trusted).then_some(away);
        let start = Anchor { at: last.at.plus(away), reading };
        Self { clock, start, latest: AtomicU64::new(start.at.0), jump }
    }

    /// Returns the current moment, never earlier than one that was returned before.
    pub(crate) fn now(&self) -> Moment {
        self.anchor().at
    }

    /// Returns the current moment with the reading of the clocks.
    pub(crate) fn anchor(&self) -> Anchor {
        let reading = self.clock.read();
        let at = self.start.at.plus(reading.boot.saturating_sub(self.start.reading.boot));
        // In most calls the millisecond has not changed, and a load keeps the cache line shared.
        let latest = match self.latest.load(Ordering::Relaxed) {
            latest if latest < at.0 => self.latest.fetch_max(at.0, Ordering::Relaxed),
            latest => latest,
        };
        Anchor { at: Moment(at.0.max(latest)), reading }
    }

    /// Returns the moment at which this process opened the store.
    pub(crate) fn started(&self) -> Moment {
        self.start.at
    }

    /// Returns the downtime over the last reboot, if it was longer than is trusted.
    pub(crate) fn jump(&self) -> Option<Duration> {
        self.jump
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn later(clock: &SimulatedClock, last: Anchor) -> Timeline {
        Timeline::resume(Arc::new(clock.clone()), last, 24 * HOUR)
    }

    #[test]
    fn p9_wall_clock_steps_do_not_move_engine_time() {
        let clock = SimulatedClock::new();
        let timeline = Timeline::start(Arc::new(clock.clone()));
        let start = timeline.anchor();
        clock.set_wall(Duration::ZERO);
        clock.advance(HOUR);
        assert_eq!(timeline.now().since(start.at), HOUR);
        clock.set_wall(Duration::from_secs(9_999_999_999));
        assert_eq!(later(&clock, start).now().since(start.at), HOUR, "over a restart");
    }

    #[test]
    fn p9_a_reboot_counts_the_wall_clock_and_never_backwards() {
        let clock = SimulatedClock::new();
        let start = Timeline::start(Arc::new(clock.clone())).anchor();
        clock.reboot(3 * HOUR);
        assert_eq!(later(&clock, start).now().since(start.at), 3 * HOUR);
        clock.set_wall(Duration::ZERO);
        assert_eq!(later(&clock, start).now(), start.at);
    }

    #[test]
    fn a_jump_past_the_trusted_downtime_is_reported() {
        let clock = SimulatedClock::new();
        let start = Timeline::start(Arc::new(clock.clone())).anchor();
        clock.reboot(24 * HOUR);
        assert_eq!(later(&clock, start).jump(), None);
        clock.reboot(HOUR);
        assert_eq!(later(&clock, start).jump(), Some(25 * HOUR));
    }
}
