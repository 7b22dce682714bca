//! The clock of tests.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Clock, Reading};

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
