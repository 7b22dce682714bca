//! The engine time of a store.
//!
//! Invariants:
//! - Engine time never goes back.
//! - Between two processes it counts no more than the clocks prove, except for a downtime of the
//!   machine, which the wall clock alone knows: that counts up to a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, Moment, Reading, millis};

/// A smaller difference between the wall clock and engine time is not reported: time servers make
/// such corrections.
const TOLERANCE: Duration = Duration::from_secs(60);

/// A moment of engine time with the reading of the clocks at that moment. Each batch of a log
/// carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) at: Moment,
    pub(crate) reading: Reading,
}

impl Anchor {
    /// Returns the difference, in either direction, between the time since an earlier anchor by the
    /// wall clock and by engine time, if it is more than [`TOLERANCE`].
    fn disagreement(&self, earlier: &Self) -> Option<Duration> {
        let counted = self.at.since(earlier.at);
        let off = self.reading.wall.abs_diff(earlier.reading.wall.saturating_add(counted));
        (off > TOLERANCE).then_some(off)
    }
}

/// The engine time of an open store, counted from an anchor.
#[derive(Debug)]
pub(crate) struct Timeline {
    clock: Arc<dyn Clock>,
    start: Anchor,
    /// The latest moment that was handed out.
    latest: AtomicU64,
    /// The latest moment that was handed out for a batch.
    written: AtomicU64,
    /// The anchor from which engine time was continued, if the wall clock disagreed then.
    before_jump: Option<Anchor>,
}

impl Timeline {
    /// Starts the engine time of a new store.
    pub(crate) fn start(clock: Arc<dyn Clock>) -> Self {
        let reading = clock.read();
        Self::from(clock, Anchor { at: Moment(millis(reading.wall)), reading })
    }

    /// Continues engine time from the latest anchor on disk. After a reboot the wall clock gives
    /// the downtime; one longer than `trusted` is not counted.
    pub(crate) fn resume(clock: Arc<dyn Clock>, last: Anchor, trusted: Duration) -> Self {
        let reading = clock.read();
        let away = passed(&last.reading, &reading, trusted);
        let start = Anchor { at: last.at.plus(away), reading };
        let was_up = reading.shares_boot(&last.reading) && reading.boot >= last.reading.boot;
        // A wall clock that was set back while the machine stayed up hides no time.
        let was_put_right = was_up && reading.wall < last.reading.wall.saturating_add(away);
        let before_jump = start.disagreement(&last).filter(|_| !was_put_right).map(|_| last);
        let written = AtomicU64::new(last.at.0);
        Self { before_jump, written, ..Self::from(clock, start) }
    }

    fn from(clock: Arc<dyn Clock>, start: Anchor) -> Self {
        let at = || AtomicU64::new(start.at.0);
        Self { clock, start, latest: at(), written: at(), before_jump: None }
    }

    /// Returns the current moment, never earlier than one that was returned before.
    pub(crate) fn now(&self) -> Moment {
        self.read().at
    }

    /// Returns the time since 1970 by the wall clock.
    pub(crate) fn wall(&self) -> Duration {
        self.clock.read().wall
    }

    /// Returns the current moment with the reading of the clocks, to be written with a batch.
    pub(crate) fn anchor(&self) -> Anchor {
        let anchor = self.read();
        self.written.store(anchor.at.0, Ordering::Relaxed);
        anchor
    }

    fn read(&self) -> Anchor {
        let reading = self.clock.read();
        let at = self.start.at.plus(reading.boot.saturating_sub(self.start.reading.boot));
        // In most calls the millisecond has not changed, and a load keeps the cache line shared.
        let latest = match self.latest.load(Ordering::Relaxed) {
            latest if latest < at.0 => self.latest.fetch_max(at.0, Ordering::Relaxed),
            latest => latest,
        };
        Anchor { at: Moment(at.0.max(latest)), reading }
    }

    /// Returns the time since an anchor was last handed out for a batch.
    pub(crate) fn unwritten(&self) -> Duration {
        self.now().since(Moment(self.written.load(Ordering::Relaxed)))
    }

    /// Returns the difference between the wall clock and engine time, in either direction, if the
    /// wall clock disagreed when the store was opened, and still does.
    pub(crate) fn jump(&self) -> Option<Duration> {
        self.read().disagreement(&self.before_jump?)
    }

    /// Returns true if a reboot from now on finds the same time by this earlier anchor as by a new one:
    /// it is of this boot for sure, and the wall clock was not set since.
    pub(crate) fn may_keep(&self, earlier: &Anchor) -> bool {
        let (now, last) = (&self.start.reading, &earlier.reading);
        let is_known = now.knows_boot() && last.knows_boot();
        let was_up = now.shares_boot(last) && now.boot >= last.boot;
        is_known && was_up && self.start.disagreement(earlier).is_none()
    }

    /// Returns true if it is known in which boot of the machine this process runs.
    pub(crate) fn knows_boot(&self) -> bool {
        self.start.reading.knows_boot()
    }
}

/// Returns the time that counts between the last reading of one process and the first of the next.
///
/// - If the boot ids are equal and the boot clock went on, the boot clock counts.
/// - If an id is unknown and the boot clock went on, there may have been a reboot or not. The boot
///   clock or the wall clock counts, whichever says less.
/// - Otherwise the machine was off, and the wall clock counts. If the downtime by it is longer than
///   `trusted`, or if it went back, only the time counts that the boot clock proves.
fn passed(last: &Reading, now: &Reading, trusted: Duration) -> Duration {
    let wall = now.wall.saturating_sub(last.wall);
    let went_on = now.boot.checked_sub(last.boot);
    let is_known = last.knows_boot() && now.knows_boot();
    match went_on {
        Some(boot) if now.shares_boot(last) => return boot,
        Some(boot) if !is_known => return boot.min(wall),
        _ => {}
    }
    // A boot clock that started anew has run since the last reading. One that is ahead has run for
    // the difference at least, if it did not start anew as well.
    let proved = went_on.unwrap_or(now.boot);
    match wall.checked_sub(proved) {
        Some(downtime) if downtime <= trusted => wall,
        // The boot clock may belong to a time namespace that cannot be seen.
        None if !is_known => wall,
        _ => proved,
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

    /// An opening that kept an anchor of a wrong wall clock made a reboot count the correction as
    /// downtime.
    #[test]
    fn p9_an_anchor_is_kept_only_in_its_boot_and_if_the_wall_clock_was_not_set() {
        let clock = SimulatedClock::new();
        let start = Timeline::start(Arc::new(clock.clone())).anchor();
        clock.advance(HOUR);
        assert!(later(&clock, start).may_keep(&start));
        let wall = clock.read().wall;
        clock.set_wall(wall + HOUR);
        assert!(!later(&clock, start).may_keep(&start), "the wall clock was set");
        clock.set_wall(wall);
        assert!(later(&clock, start).may_keep(&start), "it was put right");
        clock.reboot(HOUR);
        assert!(!later(&clock, start).may_keep(&start), "another boot");
    }

    #[test]
    fn p9_a_reboot_counts_the_wall_clock_and_never_backwards() {
        let clock = SimulatedClock::new();
        let start = Timeline::start(Arc::new(clock.clone())).anchor();
        clock.reboot(3 * HOUR);
        assert_eq!(later(&clock, start).now().since(start.at), 3 * HOUR);
        clock.set_wall(Duration::ZERO);
        let up = clock.read().boot;
        assert_eq!(later(&clock, start).now(), start.at.plus(up));
    }

    /// The id of a boot, or none, and the hours that the boot clock and the wall clock show.
    fn reading(boot: Option<u8>, up: u32, wall: u32) -> Reading {
        let boot_id = boot.map_or(Reading::UNKNOWN_BOOT, |id| [id; 16]);
        Reading { boot_id, boot: up * HOUR, wall: wall * HOUR }
    }

    fn counted(last: Reading, now: Reading) -> Duration {
        passed(&last, &now, 24 * HOUR)
    }

    const LATER: u32 = 30 * 365 * 24;

    #[test]
    fn p9_the_clocks_of_known_boots_count_no_more_than_they_prove() {
        let last = reading(Some(1), 100, 1000);
        for (what, now, hours) in [
            ("no reboot", reading(Some(1), 101, 1001), 1),
            ("no reboot, wall clock ahead", reading(Some(1), 101, LATER), 1),
            ("no reboot, wall clock behind", reading(Some(1), 101, 900), 1),
            ("reboot", reading(Some(2), 1, 1005), 5),
            ("reboot, then longer up than before", reading(Some(2), 102, 1026), 26),
            ("reboot, downtime as long as trusted", reading(Some(2), 1, 1025), 25),
            ("reboot, downtime too long", reading(Some(2), 1, 1026), 1),
            ("reboot, long up, downtime as long as trusted", reading(Some(2), 90, 1114), 114),
            ("reboot, wall clock ahead", reading(Some(2), 1, LATER), 1),
            ("reboot, then longer up, wall clock ahead", reading(Some(2), 102, LATER), 2),
            ("reboot, wall clock behind", reading(Some(2), 1, 900), 1),
            ("reboot, then longer up, wall clock behind", reading(Some(2), 102, 900), 2),
            ("reboot under the same id", reading(Some(1), 1, 1005), 5),
            ("reboot under the same id, wall clock ahead", reading(Some(1), 1, LATER), 1),
            ("reboot under the same id, wall clock behind", reading(Some(1), 1, 900), 1),
            // Not to be told from a step of the wall clock.
            ("reboot under the same id, then longer up", reading(Some(1), 102, 1032), 2),
        ] {
            assert_eq!(counted(last, now), hours * HOUR, "{what}");
        }
    }

    #[test]
    fn p9_in_an_unknown_boot_the_clock_that_says_less_counts() {
        for (before, after) in [(None, None), (Some(1), None), (None, Some(1))] {
            let last = reading(before, 100, 1000);
            for (what, up, wall, hours) in [
                ("wall clock right", 101, 1001, 1),
                ("wall clock ahead", 101, 1030, 1),
                ("wall clock far ahead", 101, LATER, 1),
                ("wall clock behind", 101, 900, 0),
                ("boot clock shifted ahead", 130, 1001, 1),
                ("boot clock anew", 1, 1005, 5),
                ("boot clock anew, wall clock ahead", 1, LATER, 1),
                ("boot clock anew, wall clock behind", 1, 900, 0),
                ("boot clock shifted back", 90, 1001, 1),
            ] {
                let now = reading(after, up, wall);
                assert_eq!(counted(last, now), hours * HOUR, "{before:?}, {after:?}: {what}");
            }
        }
    }

    /// A clock that was 30 years ahead for one boot made every key run again, and left engine time
    /// 30 years ahead.
    #[test]
    fn p9_a_jump_past_the_trusted_downtime_is_not_counted_and_reported_until_it_is_put_right() {
        let clock = SimulatedClock::new();
        let start = Timeline::start(Arc::new(clock.clone())).anchor();
        clock.reboot(24 * HOUR);
        assert_eq!(later(&clock, start).jump(), None);
        let right = clock.read().wall;
        clock.reboot(LATER * HOUR);
        let timeline = later(&clock, start);
        assert!(timeline.jump().unwrap() > LATER * HOUR);
        assert!(timeline.now().since(start.at) < HOUR);
        let last = timeline.anchor();
        // Put right while the machine is up, or over the next reboot.
        clock.set_wall(right - 24 * HOUR);
        assert_eq!(timeline.jump(), None);
        assert_eq!(later(&clock, last).jump(), None);
        clock.reboot(HOUR);
        let after = later(&clock, last);
        assert!(after.now().since(last.at) < HOUR);
        assert!(after.jump().unwrap() > LATER * HOUR - HOUR, "by how much the clock went back");
    }

    #[test]
    fn p9_clocks_that_disagree_from_one_process_to_the_next_are_reported() {
        let clock = SimulatedClock::new();
        let start = Timeline::start(Arc::new(clock.clone())).anchor();
        let wall = clock.read().wall;
        for (off, reported) in [(TOLERANCE, false), (TOLERANCE + HOUR, true)] {
            clock.set_wall(wall + off);
            assert_eq!(later(&clock, start).jump(), Some(off).filter(|_| reported));
            clock.set_wall(wall - off);
            assert_eq!(later(&clock, start).jump(), None, "set back while the machine is up");
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_while_the_store_is_open_is_no_jump() {
        let clock = SimulatedClock::new();
        let start = Timeline::start(Arc::new(clock.clone())).anchor();
        let timeline = later(&clock, start);
        clock.set_wall(Duration::ZERO);
        assert_eq!(timeline.jump(), None);
    }
}
