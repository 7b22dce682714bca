//! Time: the [`Clock`] seam, and the engine time of a store.
//!
//! A store counts milliseconds of engine time, which starts at the wall time of the store's
//! creation.
//!
//! - Nothing else in the crate reads a clock.
//! - While the machine stays up, engine time advances with the boot clock, across restarts of the
//!   process too. A step of the wall clock neither shortens nor stretches a TTL.
//! - Across a reboot engine time advances by the wall clock, and never goes back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A source of time for a store.
///
/// [`SystemClock`] reads the machine's clocks. [`SimulatedClock`] stands still until a test
/// advances it. A clock of your own must keep two rules: `boot` never goes back within one boot,
/// and `boot_id` changes with every reboot.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Reads the three clocks at one moment.
    fn read(&self) -> Reading;
}

/// A reading of the machine's clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The id of the machine's boot: another one after each reboot.
    pub boot_id: [u8; 16],
    /// The time since that boot, suspension included. It never steps.
    pub boot: Duration,
    /// The time since the Unix epoch. It may step in either direction.
    pub wall: Duration,
}

/// The machine's clocks: `CLOCK_BOOTTIME`, the boot id of the kernel, and the wall clock.
#[derive(Clone, Debug)]
pub struct SystemClock {
    boot_id: [u8; 16],
}

impl SystemClock {
    /// Creates the clock, and reads the machine's boot id.
    pub fn new() -> Self {
        // Without a kernel's boot id, every process counts as a boot of its own, and engine time
        // advances by the wall clock from one to the next.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok())
            .map_or_else(crate::key::random_bytes, u128::to_be_bytes);
        Self { boot_id }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn read(&self) -> Reading {
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Reading { boot_id: self.boot_id, boot: boot_time(), wall }
    }
}

fn boot_time() -> Duration {
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(id);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// A clock that stands still until a test advances it, so that a test of 24 hours takes no time.
///
/// Clones share one time.
///
/// ```
/// use std::time::Duration;
/// use refrain::clock::{Clock, SimulatedClock};
///
/// let clock = SimulatedClock::new();
/// let before = clock.read();
/// clock.advance(Duration::from_secs(24 * 60 * 60));
/// assert_eq!(clock.read().boot - before.boot, Duration::from_secs(86_400));
/// ```
#[derive(Clone, Debug)]
pub struct SimulatedClock(Arc<Mutex<Reading>>);

impl SimulatedClock {
    /// Creates a clock at the start of 2026, one hour after a boot.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Reading {
            boot_id: [1; 16],
            boot: Duration::from_secs(60 * 60),
            wall: Duration::from_secs(1_767_225_600),
        })))
    }

    /// Advances the boot clock and the wall clock by the same time.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        now.boot += by;
        now.wall += by;
    }

    /// Steps the wall clock to a time since the Unix epoch, as a time server or an operator does.
    /// The boot clock stands still.
    pub fn set_wall(&self, since_epoch: Duration) {
        self.0.lock().wall = since_epoch;
    }

    /// Reboots the machine: the wall clock advances by `downtime`, and the boot clock starts anew
    /// under another boot id.
    pub fn reboot(&self, downtime: Duration) {
        let mut now = self.0.lock();
        now.boot_id = u128::from_be_bytes(now.boot_id).wrapping_add(1).to_be_bytes();
        now.boot = Duration::from_secs(1);
        now.wall += downtime;
    }
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimulatedClock {
    fn read(&self) -> Reading {
        *self.0.lock()
    }
}

/// A moment of engine time, in milliseconds since the Unix epoch as the store counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// Returns the moment later by this time, rounded down to milliseconds.
    pub(crate) fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Returns the time since an earlier moment, or zero if that is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn from_system_time(time: SystemTime) -> Self {
        Self(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// Returns the moment as a time of the standard library.
    pub(crate) fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.0)).unwrap_or(UNIX_EPOCH)
    }
}

/// Returns whole milliseconds, at most `u64::MAX`.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

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

    #[test]
    fn system_time_moves_on() {
        let clock = SystemClock::new();
        let (a, b) = (clock.read(), clock.read());
        assert_eq!(a.boot_id, b.boot_id);
        assert!(b.boot >= a.boot && a.wall > Duration::ZERO);
    }
}
