//! The process that has a store open.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

/// A process that holds the lock of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) process: u32,
    /// The name of its program, if that can be seen.
    name: Option<String>,
}

impl Holder {
    /// Finds the process that holds the lock of a directory, where the system tells: Linux does, of
    /// processes in the same container.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        let metadata = fs::metadata(directory).ok()?;
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let process = holder_in(&locks, metadata.dev(), metadata.ino(), |process| {
            has_open(process, &metadata)
        })?;
        let name = fs::read_to_string(format!("/proc/{process}/comm")).ok();
        Some(Self { process, name: name.map(|name| crate::text::printable(name.trim_end())) })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

/// Finds the holder of a lock in the text of `/proc/locks`, whose lines are
/// `1: FLOCK  ADVISORY  WRITE 4242 fe:00:131074 0 EOF`. Some file systems, such as Btrfs, show
/// another device there than to `stat`: then the process must have the directory open.
fn holder_in(locks: &str, device: u64, inode: u64, has_open: impl Fn(u32) -> bool) -> Option<u32> {
    let exact = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let by_inode = format!(":{inode}");
    let held = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // A line with `->` is of a process that waits.
    let held: Vec<_> = held.filter(|fields| fields.get(1) == Some(&"FLOCK")).collect();
    let process = |fields: &Vec<&str>| {
        // A process that this one cannot see has no positive number.
        fields.get(4)?.parse().ok().filter(|process| *process > 0)
    };
    let is =
        |fields: &&Vec<&str>, file: &dyn Fn(&str) -> bool| fields.get(5).is_some_and(|it| file(it));
    if let Some(found) = held.iter().find(|fields| is(fields, &|file| file == exact)) {
        return process(found);
    }
    let alike = held.iter().filter(|fields| is(fields, &|file| file.ends_with(&by_inode)));
    alike.filter_map(process).find(|process| has_open(*process))
}

/// Returns true if a process can be seen to have a file open.
fn has_open(process: u32, file: &Metadata) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let open = open.filter_map(|link| fs::metadata(link.path()).ok());
    open.into_iter().any(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_the_process_with_the_lock_and_not_one_that_waits_for_it() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:131074 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 41 fe:00:31074 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 42 fe:00:131074 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 43 fe:00:131074 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE -1 fe:00:9 0 EOF\n";
        let device = rustix::fs::makedev(0xfe, 0);
        let (all, none) = (|_| true, |_| false);
        assert_eq!(holder_in(locks, device, 131_074, none), Some(42));
        let other = rustix::fs::makedev(0, 33);
        assert_eq!(holder_in(locks, other, 131_074, all), Some(42));
        assert_eq!(holder_in(locks, other, 131_074, none), None, "of another file system");
        assert_eq!(holder_in(locks, device, 5, all), None);
        assert_eq!(holder_in(locks, device, 9, all), None);
    }
}
