//! The time at which a job's key was first handed out, as the journal keeps it.

use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut};

use crate::clock::Reading;

/// The format of what the journal keeps.
pub(super) const FORMAT: u8 = 1;

/// A reading of the clocks at the first use of a key, in whole milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Began(Reading);

impl Began {
    /// The length of the encoding in bytes: wall time, time since boot, boot id.
    pub(super) const LEN: usize = 8 + 8 + 16;

    pub(super) fn at(now: Reading) -> Self {
        Self(now)
    }

    /// Decodes a time from the first [`LEN`](Self::LEN) bytes, which must be there.
    pub(super) fn get(bytes: &mut impl Buf) -> Self {
        let wall = Duration::from_millis(bytes.get_u64_le());
        let boot = Duration::from_millis(bytes.get_u64_le());
        let mut boot_id = [0; 16];
        bytes.copy_to_slice(&mut boot_id);
        Self(Reading { boot_id, boot, wall })
    }

    pub(super) fn put(&self, bytes: &mut impl BufMut) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        bytes.put_u64_le(millis(self.0.wall));
        bytes.put_u64_le(millis(self.0.boot));
        bytes.put_slice(&self.0.boot_id);
    }

    pub(super) fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.0.wall
    }

    /// Returns the age by the boot clock while the machine stays up. Across a reboot, or in an
    /// unknown boot, it is the age by the wall clock, or by the boot clock if that is more.
    pub(super) fn age(&self, now: &Reading) -> Duration {
        let boot = now.boot.checked_sub(self.0.boot);
        if let Some(boot) = boot.filter(|_| now.shares_boot(&self.0)) {
            return boot;
        }
        // A wall clock that went backwards proves nothing, so the job counts as too old.
        let wall = now.wall.checked_sub(self.0.wall).unwrap_or(Duration::MAX);
        wall.max(boot.unwrap_or_default())
    }
}
