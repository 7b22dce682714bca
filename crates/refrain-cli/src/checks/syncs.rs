//! A quick measure of the disk's syncs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Check;

const NAME: &str = "syncs";
const ROUNDS: usize = 16;
const PAGE: [u8; 4096] = [0x5a; 4096];
/// The fastest drives with a cache that survives a power cut are slower.
const TOO_FAST: Duration = Duration::from_micros(15);
const SLOW: Duration = Duration::from_millis(50);

/// Measures in a file without a name, which is gone when this returns.
pub(super) fn check(directory: &Path) -> Check {
    match median(directory) {
        Ok(median) => judged(median),
        Err(error) => {
            Check::warn(NAME, format!("not measured: {error}"), "measure them with a tool like fio")
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the disk is measured, and not the store's time")]
fn median(directory: &Path) -> io::Result<Duration> {
    let file = nameless(directory)?;
    // The first sync has the blocks of the file in it.
    file.write_all_at(&PAGE, 0)?;
    file.sync_data()?;
    let mut rounds = [Duration::ZERO; ROUNDS];
    for round in &mut rounds {
        file.write_all_at(&PAGE, 0)?;
        let begun = Instant::now();
        file.sync_data()?;
        *round = begun.elapsed();
    }
    rounds.sort_unstable();
    Ok(rounds[ROUNDS / 2])
}

#[cfg(target_os = "linux")]
fn nameless(directory: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Elsewhere every file has a name, and the directory is the store's.
#[cfg(not(target_os = "linux"))]
fn nameless(_directory: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

fn judged(median: Duration) -> Check {
    let found = format!("{:.2} ms for a page", median.as_secs_f64() * 1000.0);
    if median < TOO_FAST {
        let advice = "no disk is so fast: make sure that the disk, or the virtual machine's, flushes \
                      its cache";
        return Check::warn(NAME, found, advice);
    }
    if median > SLOW {
        let advice = "a commit waits so long: look for what else writes, or use a faster disk";
        return Check::warn(NAME, found, advice);
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_sync_that_takes_no_time_is_none() {
        assert_eq!(judged(Duration::from_micros(2)).verdict, Verdict::Warn);
        assert_eq!(judged(Duration::from_millis(3)).found, "3.00 ms for a page");
        assert_eq!(judged(Duration::from_millis(3)).verdict, Verdict::Ok);
        assert_eq!(judged(Duration::from_millis(80)).verdict, Verdict::Warn);
    }
}
