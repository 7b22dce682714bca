//! The directory seam: everything that the engine asks of a file system.
//!
//! [`RealDisk`] is a directory that this process owns; [`MemoryDisk`] holds a store for a test. All
//! names are relative to the directory, whose descriptor stays open, so moving it away cannot make
//! the engine write elsewhere.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod memory;
mod real;

pub(crate) use memory::MemoryDisk;
pub(crate) use real::RealDisk;

/// A directory.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// The names in it.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Creates a file that only its owner may read; fails if the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Whoever has the file open keeps it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: creations, renames and removals so far.
    fn sync(&self) -> io::Result<()>;

    /// Claims the file that proves ownership, and says whether it was free.
    fn lock(&self, name: &str) -> io::Result<bool>;

    /// Lets others have the directory. Nothing may be written any more.
    fn unlock(&self) -> io::Result<()>;

    /// Whether the directory, its lock file and this file are still what their names lead to.
    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool>;

    /// The path of a file in it, for messages.
    fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// How long it is.
    fn len(&self) -> io::Result<u64>;

    /// Fills the buffer, or fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes it all, or fails.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file `len` bytes long, with every block of it allocated.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts or extends the file, without allocating.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes data and length durable.
    fn sync(&self) -> io::Result<()>;

    /// What the file is, whatever its name.
    fn identity(&self) -> (u64, u64);
}

/// Removes a file that an earlier attempt may have left.
pub(crate) fn remove_leftover(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a whole file of at most `max` bytes.
pub(crate) fn read_all(file: &dyn DiskFile, max: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("the bound fits memory")];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}
