//! The clocks of the machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Clock, Reading};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_moves_on() {
        let clock = SystemClock::new();
        let (a, b) = (clock.read(), clock.read());
        assert_eq!(a.boot_id, b.boot_id);
        assert!(b.boot >= a.boot && a.wall > Duration::ZERO);
    }
}
