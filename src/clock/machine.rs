//! The clocks of the machine.

use std::io::ErrorKind;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Clock, Reading};

/// The machine's clocks: `CLOCK_BOOTTIME`, the boot id of the kernel, and the wall clock.
///
/// In a time namespace, `boot` is the machine's boot clock and not the shifted one, so that
/// processes inside and outside of the namespace agree.
#[derive(Clone, Debug)]
pub struct SystemClock {
    boot_id: [u8; 16],
    /// The nanoseconds that this process's time namespace adds to the boot clock.
    shift: i128,
}

impl SystemClock {
    /// Creates the clock, and reads the machine's boot id and the shift of the time namespace.
    ///
    /// The boot id is [`Reading::UNKNOWN_BOOT`] outside Linux, and wherever `/proc` hides the
    /// kernel's id or shows the id of a container in its place.
    pub fn new() -> Self {
        match (boot_id(), shift()) {
            (Some(boot_id), Some(shift)) => Self { boot_id, shift },
            // A boot clock whose shift is unknown cannot be compared with another process's.
            (_, shift) => Self { boot_id: Reading::UNKNOWN_BOOT, shift: shift.unwrap_or_default() },
        }
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
        Reading { boot_id: self.boot_id, boot: self.boot(), wall }
    }
}

impl SystemClock {
    fn boot(&self) -> Duration {
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(id);
        let nanos = nanos(time.tv_sec, time.tv_nsec) - self.shift;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }
}

fn nanos(seconds: impl Into<i128>, nanos: impl Into<i128>) -> i128 {
    seconds.into() * 1_000_000_000 + nanos.into()
}

/// Reads the kernel's boot id, or returns `None` if it is hidden or replaced.
///
/// Managers of containers, such as systemd-nspawn and LXC, mount a file with an id of the container
/// over the kernel's.
#[cfg(target_os = "linux")]
fn boot_id() -> Option<[u8; 16]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let is_kernels = rustix::fs::statfs(PATH).ok()?.f_type == rustix::fs::PROC_SUPER_MAGIC;
    let text = std::fs::read_to_string(PATH).ok().filter(|_| is_kernels)?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok().map(u128::to_be_bytes)
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> Option<[u8; 16]> {
    None
}

/// Reads the nanoseconds that this process's time namespace adds to the boot clock, or returns
/// `None` if they cannot be read.
fn shift() -> Option<i128> {
    let namespace = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    if namespace("time") != namespace("time_for_children") {
        // The file then tells the shift of the children.
        return None;
    }
    match std::fs::read_to_string("/proc/self/timens_offsets") {
        Ok(text) => shift_in(&text),
        // The kernel has no time namespaces.
        Err(error) if error.kind() == ErrorKind::NotFound => Some(0),
        Err(_) => None,
    }
}

/// Returns the shift of the boot clock in the text of `/proc/self/timens_offsets`: a line for each
/// clock, with its name or number, seconds and nanoseconds.
fn shift_in(text: &str) -> Option<i128> {
    text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        fields.next().filter(|clock| ["boottime", "7"].contains(clock))?;
        let mut number = || fields.next()?.parse::<i64>().ok();
        Some(nanos(number()?, number()?))
    })
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

    #[test]
    fn p9_the_shift_of_a_time_namespace_is_read() {
        let of = shift_in;
        assert_eq!(
            of("monotonic           0         0\nboottime        90000         5\n"),
            Some(90_000_000_000_005)
        );
        assert_eq!(of("monotonic -1 7\nboottime -2 999999999\n"), Some(-1_000_000_001));
        assert_eq!(of("1 0 0\n7 60 0\n"), Some(60_000_000_000), "Linux 5.6");
        for unreadable in ["", "monotonic 1 0", "boottime", "boottime x 0", "boottime 1"] {
            assert_eq!(of(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn p9_the_boot_clock_is_the_machines_in_a_time_namespace() {
        let here = SystemClock::new();
        let shifted = SystemClock { shift: here.shift - 90_000_000_000_000, ..here };
        let ahead = shifted.read().boot - SystemClock::new().read().boot;
        assert!(ahead.as_secs().abs_diff(90_000) <= 1, "{ahead:?}");
    }
}
