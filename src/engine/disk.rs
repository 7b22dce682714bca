//! The seam between the store and the file system.
//!
//! A store lives in one directory, and everything that it does there goes through two traits:
//! [`Disk`] is the directory and [`DiskFile`] an open file in it. The store uses a directory of the
//! operating system, or one in memory; a test may put its own implementation in between, to record
//! the calls, to make them fail, or to forget at a simulated power cut whatever was not synced.
//!
//! The store relies on this, and on nothing more:
//!
//! - **Reads see all writes**, synced or not, through every handle of the file and at once.
//! - **Content and names are durable separately.** [`DiskFile::sync`] covers the content and the
//!   length of one file, [`Disk::sync`] the names in the directory. Without the first a power cut
//!   may keep any part of the writes since the last one, in any order; without the second, any of
//!   the creations, renames and removals.
//! - **A rename is atomic**, even across a power cut: the name leads to the old file or to the new
//!   one, and never to none.
//! - **A synced sector stays as it is** while other sectors are written. A sector that is being
//!   written when the power fails may hold anything afterwards.
//! - **A failed sync proves nothing**: each change since the last sync may be durable, lost, or in
//!   the cache alone, where no later sync will bring it out. The store stops after one.
//!
//! All names are relative to the directory, and each is one plain component of at most 32 ASCII
//! bytes. An implementation keeps the directory open, or something equivalent, so that moving the
//! directory cannot make the store write elsewhere.
//!
//! # Errors
//!
//! Methods return the error of the operating system. The store acts on some kinds of it:
//!
//! - [`io::ErrorKind::NotFound`]: the name is free;
//! - [`io::ErrorKind::UnexpectedEof`]: the file is shorter than the requested range;
//! - [`io::ErrorKind::StorageFull`] and [`io::ErrorKind::QuotaExceeded`]: the disk is full;
//! - [`io::ErrorKind::FileTooLarge`], and the raw errors `EMFILE`, `ENFILE`, `ENOMEM` and `EINTR`: a
//!   shortage that may end.
//!
//! The last two are transient where no listed file can have changed, and the store then tries
//! again. In all other places, and for any other error of a write, a rename or a sync, it stops and
//! only a new process may open it. A failed read fails that request only.
//!
//! # Test doubles
//!
//! A double may fail any call with any error, once or for ever, and may do part of the work of a
//! call that fails. It may also, when it simulates a power cut, drop everything that was not
//! durable. It must not fail silently: a call that returns `Ok` has done all that its documentation
//! says. Calls come from several threads at a time; they may block, and must not panic.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod memory;
mod pool;
mod real;

pub use memory::MemoryDisk;
pub(crate) use pool::Pool;
pub(crate) use real::RealDisk;

/// The bytes that logs and segments leave free on a disk, so that the store opens again: for the log
/// of an opening, and `MANIFEST`.
pub(crate) const RESERVE_BYTES: u64 = 192 * 1024;
/// The directory at the root of a file system where `fsck` puts files whose names are lost.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// A directory that one store owns.
///
/// The documentation of the module says what the store relies on. No method but
/// [`sync`](Disk::sync) makes anything durable.
pub trait Disk: Any + fmt::Debug + Send + Sync {
    /// Returns the path of the directory, for messages.
    ///
    /// It need not exist in the file system; nothing is opened by it.
    fn path(&self) -> &Path;

    /// Lists the names in the directory, in any order, without `.` and `..`.
    ///
    /// Names that are not the store's are listed too: a directory that holds other files and no
    /// store is not taken for an empty one. An empty `lost+found` is left out, because every new
    /// file system has one.
    ///
    /// # Errors
    ///
    /// Those of the operating system. An incomplete list must be an error.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file, readable and writable by its owner only, and opens it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken, and those of the operating system.
    ///
    /// # Durability
    ///
    /// The name is durable after the next [`sync`](Disk::sync) of the directory, the content after
    /// a [`sync`](DiskFile::sync) of the file.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// The handle stays with the file, whatever becomes of its name.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if nothing has the name, and those of the operating system. A
    /// symbolic link is not followed and must be an error.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, and replaces the file that has the new name, if there is one.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if nothing has the old name, and those of the operating system.
    /// After an error either name may lead to the file.
    ///
    /// # Durability
    ///
    /// The change is durable after the next [`sync`](Disk::sync). Until then a power cut may undo
    /// it, but leaves no state in between.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Open handles of the file go on working, and its space is freed with the last
    /// of them.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if nothing has the name, and those of the operating system.
    ///
    /// # Durability
    ///
    /// The removal is durable after the next [`sync`](Disk::sync). Until then a power cut may bring
    /// the name back.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: all creations, renames and removals so far.
    ///
    /// # Errors
    ///
    /// Those of the operating system. After an error the names on the medium are unknown.
    ///
    /// # Durability
    ///
    /// When this returns `Ok`, a power cut leaves the directory with at least these changes. It
    /// covers no file's content.
    fn sync(&self) -> io::Result<()>;

    /// Takes the lock on the file `name`, which proves ownership of the store, and returns whether
    /// it was free. The lock is held until [`unlock`](Disk::unlock) or the end of the process.
    ///
    /// The store calls this once, after it has read or created the file.
    ///
    /// # Errors
    ///
    /// Those of the operating system. A lock that is held elsewhere is `Ok(false)`.
    fn lock(&self, name: &str) -> io::Result<bool>;

    /// Gives up the lock and the directory, so that another process may open the store. The store
    /// writes nothing after this.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn unlock(&self) -> io::Result<()>;

    /// Checks that the directory is still at its path, that the lock file is still in it, and that
    /// `name` still leads to `file`. The store asks before each batch that it writes.
    ///
    /// # Errors
    ///
    /// Those of the operating system. A name that leads elsewhere or nowhere is `Ok(false)`.
    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool>;

    /// Returns whether the store is gone for good, where [`still_owns`](Self::still_owns) says `false`:
    /// in its own directory, wherever that is, the lock file or `name` leads to another file or to
    /// none. Otherwise the path leads elsewhere for now, as through a link that was switched, and may
    /// lead back.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn is_replaced(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        Ok(!self.still_owns(name, file)?)
    }

    /// Gives a file a second name, the same one in another directory: for a copy of the store that
    /// shares what is not written any more. The store then neither writes nor cuts the file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] if the directory is of another kind, which is the default, and
    /// those of the operating system. The store then copies the content.
    ///
    /// # Durability
    ///
    /// The name is durable after the next [`sync`](Disk::sync) of the other directory.
    fn link(&self, name: &str, into: &dyn Disk) -> io::Result<()> {
        let _ = (name, into);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the bytes that are free on the file system. The store keeps its logs small where
    /// little is free.
    ///
    /// # Errors
    ///
    /// Those of the operating system. The store then behaves as if the space were unlimited.
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Returns true if bytes that are written again stay in the blocks that the file has. A file
    /// system that copies on writing needs free space for it, so the store then makes new files
    /// instead of using old ones again.
    fn overwrites_in_place(&self) -> bool {
        true
    }

    /// Returns the path of a file in the directory, for messages.
    fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// An open file of a [`Disk`].
///
/// Offsets and lengths are in bytes. Reads and writes of different ranges may run at the same time;
/// the store never writes a range while it reads or writes the same one. No method but
/// [`sync`](DiskFile::sync) makes anything durable.
#[expect(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Returns the length of the file in bytes.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn len(&self) -> io::Result<u64>;

    /// Fills the whole buffer from `offset` on. Bytes that were allocated and never written are
    /// zero.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before the buffer is full, and those of
    /// the operating system. The content of the buffer is unspecified then.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all bytes at `offset`, and extends the file if they reach beyond its end.
    ///
    /// # Errors
    ///
    /// Those of the operating system. Any part of the bytes may be written then.
    ///
    /// # Durability
    ///
    /// The bytes are durable after the next [`sync`](DiskFile::sync). Until then a power cut may
    /// keep any part of them.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file at least `len` bytes long and allocates all blocks up to there, so that later
    /// writes within that length need no free space. The content stays as it is, and new bytes are
    /// zero.
    ///
    /// The store calls it on new files, and on files whose blocks may be missing, as in a sparse
    /// copy.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] if there is too little
    /// free space, and those of the operating system. The file may be longer then, with or without
    /// blocks.
    ///
    /// # Durability
    ///
    /// The length is durable after the next [`sync`](DiskFile::sync).
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file to `len` bytes, or extends it with zeros that take no space yet.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    ///
    /// # Durability
    ///
    /// The length is durable after the next [`sync`](DiskFile::sync).
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the content and the length of the file durable.
    ///
    /// # Errors
    ///
    /// Those of the operating system. After an error each write since the last sync may be durable
    /// or not, and calling this again proves nothing about it.
    ///
    /// # Durability
    ///
    /// When this returns `Ok`, everything written before the call survives a power cut, under
    /// whatever names of the file are durable.
    fn sync(&self) -> io::Result<()>;

    /// Returns an identity of the file that no other file has while this one is open: on Unix the
    /// device and the inode. It stays the same when the file is renamed.
    fn identity(&self) -> (u64, u64);

    /// Returns the number of names that lead to the file, in all directories. A file that has more
    /// than one is never written again.
    ///
    /// # Errors
    ///
    /// Those of the operating system. The store then takes it that there are more names.
    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
}

/// Returns true if a file has no other name, as in a backup, and may be written and cut.
pub(crate) fn is_alone(file: &dyn DiskFile) -> bool {
    file.links().is_ok_and(|links| links <= 1)
}

/// Removes a file that an earlier attempt may have left. A missing file is no error.
pub(crate) fn remove_leftover(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a whole file of at most `max` bytes.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] if it is longer, and those of the operating system.
pub(crate) fn read_all(file: &dyn DiskFile, max: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("the bound fits memory")];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}
