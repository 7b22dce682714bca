//! The space that a directory takes, and the space that is left.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::statvfs;

use crate::failure::{Failure, Result};

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// The files of a directory in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    pub(crate) files: u64,
    /// The bytes that they take on the disk.
    pub(crate) bytes: u64,
    /// Their lengths.
    pub(crate) lengths: u64,
    /// The bytes that this user may still write on that disk.
    pub(crate) free: u64,
}

impl Space {
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        measured(directory).map_err(|source| Failure::File {
            action: "measure",
            path: directory.into(),
            source,
        })
    }
}

fn measured(directory: &Path) -> io::Result<Space> {
    let mut space = Space::default();
    for file in fs::read_dir(directory)? {
        // One that the store has removed meanwhile takes nothing.
        let Ok(metadata) = file?.metadata() else { continue };
        space.files += 1;
        space.bytes += metadata.blocks() * BLOCK;
        space.lengths += metadata.len();
    }
    let disk = statvfs(directory)?;
    space.free = disk.f_bavail.saturating_mul(disk.f_frsize);
    Ok(space)
}
