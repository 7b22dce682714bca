//! Time: the [`Clock`] seam, and the engine time of a store.
//!
//! A store counts milliseconds of engine time, which starts at the wall time of the store's
//! creation.
//!
//! - Nothing else in the crate reads a clock.
//! - While the machine stays up, engine time advances with the boot clock, across restarts of the
//!   process too. A step of the wall clock neither shortens nor stretches a TTL.
//! - Across a reboot engine time advances by the wall clock, and never goes back.
//! - Where the clocks cannot tell how much time has passed, the least of it counts, so that a
//!   record is replayed for longer and never for less.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod machine;
mod simulated;
mod timeline;

pub use machine::SystemClock;
pub use simulated::SimulatedClock;
pub(crate) use timeline::{Anchor, Timeline};

/// A source of time for a store.
///
/// [`SystemClock`] reads the machine's clocks. [`SimulatedClock`] stands still until a test
/// advances it. A clock of your own must keep two rules: `boot` never goes back within one boot,
/// and `boot_id` changes with every reboot or is always [`Reading::UNKNOWN_BOOT`].
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Reads the three clocks at one moment.
    fn read(&self) -> Reading;
}

/// A reading of the machine's clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The id of the machine's boot: another one after each reboot, or [`Reading::UNKNOWN_BOOT`].
    pub boot_id: [u8; 16],
    /// The time since that boot, suspension included. It never steps.
    pub boot: Duration,
    /// The time since the Unix epoch. It may step in either direction.
    pub wall: Duration,
}

impl Reading {
    /// The boot id of a clock that does not know in which boot it reads.
    pub const UNKNOWN_BOOT: [u8; 16] = [0; 16];

    /// Returns true if the boot id is known.
    pub fn knows_boot(&self) -> bool {
        self.boot_id != Self::UNKNOWN_BOOT
    }

    /// Returns true if both readings are known to have the same boot id.
    ///
    /// ```
    /// use refrain::clock::{Clock, Reading, SimulatedClock};
    ///
    /// let before = SimulatedClock::new().read();
    /// assert!(before.shares_boot(&before));
    /// let unknown = Reading { boot_id: Reading::UNKNOWN_BOOT, ..before };
    /// assert!(!unknown.shares_boot(&unknown));
    /// ```
    pub fn shares_boot(&self, other: &Self) -> bool {
        self.knows_boot() && self.boot_id == other.boot_id
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
