//! The file system of a store, and the space on it.

use std::io;
use std::path::Path;

use rustix::fs::{statfs, statvfs};

use super::Check;
use crate::text::size;

/// Two logs of the largest size that a store makes by default.
const LITTLE_BYTES: u64 = 256 * 1024 * 1024;
/// A store keeps this much free for its openings, and refuses keys before.
const RESERVED_BYTES: u64 = 192 * 1024;
const LITTLE_FILES: u64 = 1000;

/// File systems by their numbers, as `statfs` tells them.
const ON_DISK: [(i128, &str); 6] = [
    (0xef53, "ext4"),
    (0x5846_5342, "XFS"),
    (0x9123_683e, "Btrfs"),
    (0x2fc1_2fc1, "ZFS"),
    (0xca45_1a4e, "bcachefs"),
    (0xf2f5_2010, "F2FS"),
];
const IN_MEMORY: [(i128, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
const OVER_A_NETWORK: [(i128, &str); 6] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
];
const OVERLAY: i128 = 0x794c_7630;

pub(super) fn checks(directory: &Path) -> io::Result<[Check; 3]> {
    // The number has 32 bits, and its type differs between machines.
    let number = i128::from(statfs(directory)?.f_type) & 0xffff_ffff;
    let disk = statvfs(directory)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Some file systems make places for files as they need them, and count none.
    let files = (disk.f_files > 0).then_some(disk.f_favail);
    Ok([file_system(number), free_space(free), free_files(files)])
}

fn file_system(number: i128) -> Check {
    const NAME: &str = "file system";
    let named = |names: &[(i128, &'static str)]| {
        names.iter().find(|(each, _)| *each == number).map(|(_, name)| *name)
    };
    if let Some(name) = named(&ON_DISK) {
        return Check::ok(NAME, name);
    }
    if let Some(name) = named(&IN_MEMORY) {
        let advice = "use a directory on a disk: this one is empty after a restart of the machine";
        return Check::fail(NAME, name, advice);
    }
    if let Some(name) = named(&OVER_A_NETWORK) {
        let advice = "use a local disk: locks and syncs over it are what its server makes of them";
        return Check::warn(NAME, name, advice);
    }
    if number == OVERLAY {
        let advice = "mount a volume: a container's own layer goes when the container goes";
        return Check::warn(NAME, "the layer of a container", advice);
    }
    Check::warn(NAME, format!("unknown, number {number:#x}"), "make sure that it honours fsync")
}

fn free_space(free: u64) -> Check {
    const NAME: &str = "free space";
    let found = size(free);
    match free {
        0..RESERVED_BYTES => {
            Check::fail(NAME, found, "free some space: new keys are refused, and replays go on")
        }
        RESERVED_BYTES..LITTLE_BYTES => {
            Check::warn(NAME, found, "free some space: it is less than two logs may take")
        }
        _ => Check::ok(NAME, found),
    }
}

fn free_files(free: Option<u64>) -> Check {
    const NAME: &str = "free files";
    match free {
        None => Check::ok(NAME, "as many as the space allows"),
        Some(files) if files < LITTLE_FILES => {
            Check::warn(NAME, files.to_string(), "remove files: the file system has few left")
        }
        Some(files) => Check::ok(NAME, files.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_file_system_is_judged_by_its_promises() {
        assert_eq!(file_system(0xef53).verdict, Verdict::Ok);
        assert_eq!(file_system(0x0102_1994).verdict, Verdict::Fail);
        assert_eq!(file_system(0x6969).verdict, Verdict::Warn);
        assert_eq!(file_system(OVERLAY).verdict, Verdict::Warn);
        assert_eq!(file_system(7).found, "unknown, number 0x7");
    }

    #[test]
    fn little_space_is_told_before_keys_are_refused() {
        assert_eq!(free_space(0).verdict, Verdict::Fail);
        assert_eq!(free_space(RESERVED_BYTES).verdict, Verdict::Warn);
        assert_eq!(free_space(LITTLE_BYTES).verdict, Verdict::Ok);
        assert_eq!(free_files(Some(3)).verdict, Verdict::Warn);
        assert_eq!(free_files(None).verdict, Verdict::Ok);
    }
}
