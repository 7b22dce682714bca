//! A directory of the file system, owned by this process.
//!
//! Invariants:
//! - Every name is resolved relative to the open directory, so moving the directory away cannot
//!   make the store write elsewhere.
//! - No symbolic link is followed to a file, and files are readable by their owner only.
//! - Two locks are held: on the directory before anything in it is read, and on the lock file.
//! - No call asks for a file beyond the size that the process may have, which would end it by a
//!   signal.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, FlockOperation, Mode, OFlags, Stat, fallocate, fdatasync,
    flock, fstat, fstatvfs, fsync, linkat, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Disk, DiskFile, LOST_AND_FOUND};
use crate::error::expect_file_size;

/// The zeros of one write, for file systems that cannot allocate.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The files that a process with a store may have open, where its hard limit allows it: enough for
/// the store's own beside a server's connections.
const MIN_DESCRIPTORS: u64 = 1024;

/// A directory of the file system, open and locked.
#[derive(Debug)]
pub(crate) struct RealDisk {
    path: PathBuf,
    directory: OwnedFd,
    identity: (u64, u64),
    /// The access with which files are opened: reading and writing, or reading alone.
    access: OFlags,
    /// The name of the lock file, and the handle that holds its lock.
    lock: OnceLock<(String, RealFile)>,
}

/// An open file, with its identity at the time of opening.
#[derive(Debug)]
struct RealFile {
    file: File,
    identity: (u64, u64),
}

impl RealDisk {
    /// Opens the directory and takes the lock on it; `None` if the lock is held elsewhere.
    ///
    /// A missing directory is created with mode 0700.
    ///
    /// # Errors
    ///
    /// Those of the operating system; a missing parent is one.
    ///
    /// # Durability
    ///
    /// The name of the directory is durable when this returns.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        raise_descriptor_limit();
        // The process may change its directory later.
        let path = &std::path::absolute(path)?;
        let is_made = match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        // An earlier process may have made the directory and crashed before it synced the name.
        match sync_parent(path) {
            // A parent that we may not read cannot be synced; its owner made the directory.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_made => {}
            synced => synced?,
        }
        Self::open_with_access(path, OFlags::RDWR)
    }

    /// Opens a directory that exists, to read its files only, and takes the lock on it; `None` if the
    /// lock is held elsewhere.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub(crate) fn open_read_only(path: &Path) -> io::Result<Option<Self>> {
        Self::open_with_access(&std::path::absolute(path)?, OFlags::RDONLY)
    }

    fn open_with_access(path: &Path, access: OFlags) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())?;
        if !try_flock(&directory)? {
            return Ok(None);
        }
        let identity = identity_of(&fstat(&directory)?);
        Ok(Some(Self { path: path.to_owned(), directory, identity, access, lock: OnceLock::new() }))
    }

    /// Opens an empty directory for a backup, and takes the lock on it; `None` if the lock is held
    /// elsewhere. It holds the file `marker` from the moment on at which it has its name, so that
    /// nobody takes it for an empty directory.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::DirectoryNotEmpty`] if it holds anything else, and those of the operating
    /// system; a missing parent is one.
    ///
    /// # Durability
    ///
    /// The name of the directory and the marker are durable when this returns.
    pub(crate) fn open_for_backup(path: &Path, marker: &str) -> io::Result<Option<Self>> {
        // Without a slash at the end, which is no part of the name.
        let path: PathBuf = std::path::absolute(path)?.components().collect();
        if path.try_exists()? {
            return Self::open_marked(&path, marker);
        }
        let mut unnamed = path.clone().into_os_string();
        unnamed.push(".tmp");
        let unnamed = Path::new(&unnamed);
        let Some(mut disk) = Self::open_marked(unnamed, marker)? else { return Ok(None) };
        renameat(CWD, unnamed, CWD, &path)?;
        sync_parent(&path)?;
        disk.path = path;
        Ok(Some(disk))
    }

    /// Opens a directory that is empty but for the marker, and puts the marker there.
    fn open_marked(path: &Path, marker: &str) -> io::Result<Option<Self>> {
        let Some(disk) = Self::open(path)? else { return Ok(None) };
        if disk.names()?.iter().any(|name| name != marker) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        match disk.create(marker) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => disk.sync()?,
        }
        Ok(Some(disk))
    }

    /// Opens a file of the directory, without following a symbolic link.
    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<RealFile> {
        let flags = flags | self.access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        let identity = identity_of(&fstat(&file)?);
        Ok(RealFile { file: file.into(), identity })
    }

    /// Returns true if `lost+found` holds anything. One that this user may not read, as root makes
    /// it on a new volume, counts as empty.
    fn has_recovered_files(&self) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = match openat(&self.directory, LOST_AND_FOUND, flags, Mode::empty()) {
            Err(Errno::ACCESS | Errno::PERM) => return Ok(false),
            // Anything but a directory is somebody's file.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            opened => opened?,
        };
        for entry in Dir::read_from(directory)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Checks that the directory is still at its path.
    fn is_at_path(&self) -> io::Result<bool> {
        match identity_at(CWD, &self.path, AtFlags::empty()) {
            Ok(found) => Ok(found == self.identity),
            Err(error) if is_elsewhere(error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that the lock file is still in the directory, and that `name` leads to `file` there.
    fn has(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        let has_lock = match self.lock.get() {
            Some((lock, file)) => self.leads_to(lock, file.identity)?,
            None => true,
        };
        Ok(has_lock && self.leads_to(name, file.identity())?)
    }

    /// Checks that a name in the directory leads to the file with this identity.
    fn leads_to(&self, name: &str, identity: (u64, u64)) -> io::Result<bool> {
        match identity_at(&self.directory, Path::new(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(found == identity),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns true if a path leads nowhere for now, or not for this process: a part of it is missing, is
/// no directory, may not be passed or is a circle of links, or the server of its file system has it
/// no more.
fn is_elsewhere(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP | Errno::STALE)
}

/// Raises the soft limit of open files as far as the hard limit allows, if it is low. Where it cannot
/// be raised, the pool makes do with fewer files.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MIN_DESCRIPTORS, |maximum| maximum.min(MIN_DESCRIPTORS));
    if current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

impl Disk for RealDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            let is_listed = match &*name {
                "." | ".." => false,
                LOST_AND_FOUND => self.has_recovered_files()?,
                _ => true,
            };
            if is_listed {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.open_with(name, OFlags::CREATE | OFlags::EXCL)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.open_with(name, OFlags::empty())?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.directory, from, &self.directory, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.directory)?)
    }

    fn lock(&self, name: &str) -> io::Result<bool> {
        let file = self.open_with(name, OFlags::empty())?;
        if !try_flock(&file.file)? {
            return Ok(false);
        }
        self.lock.set((name.to_owned(), file)).expect("a directory is locked once");
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        if let Some((_, file)) = self.lock.get() {
            flock(&file.file, FlockOperation::Unlock)?;
        }
        Ok(flock(&self.directory, FlockOperation::Unlock)?)
    }

    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        Ok(self.is_at_path()? && self.has(name, file)?)
    }

    // The path is not asked again: it may have come back by now.
    fn is_replaced(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        Ok(!self.has(name, file)?)
    }

    fn link(&self, name: &str, into: &dyn Disk) -> io::Result<()> {
        let into: &dyn Any = into;
        match into.downcast_ref::<Self>() {
            Some(into) => {
                Ok(linkat(&self.directory, name, &into.directory, name, AtFlags::empty())?)
            }
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = fstatvfs(&self.directory)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    #[cfg(target_os = "linux")]
    fn overwrites_in_place(&self) -> bool {
        !self.copies_on_writing()
    }
}

#[cfg(target_os = "linux")]
impl RealDisk {
    /// Returns true on a file system that writes changes to new blocks, always or where a copy
    /// shares the old ones.
    fn copies_on_writing(&self) -> bool {
        /// The numbers of Btrfs, bcachefs and ZFS, and of XFS, whose files may share blocks.
        const COPYING: [i128; 4] = [0x9123_683e, 0xca45_1a4e, 0x2fc1_2fc1, 0x5846_5342];
        let found = rustix::fs::fstatfs(&self.directory);
        // The type of the number differs between machines.
        found.is_ok_and(|found| COPYING.contains(&(i128::from(found.f_type) & 0xffff_ffff)))
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        expect_file_size(offset + bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        expect_file_size(len)?;
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            // This file system cannot allocate without writing, so it gets no blocks for what the
            // file has already.
            Err(Errno::OPNOTSUPP | Errno::INVAL) => {
                for offset in (self.len()?..len).step_by(ZEROS.len()) {
                    let left = usize::try_from(len - offset).unwrap_or(usize::MAX);
                    self.file.write_all_at(&ZEROS[..ZEROS.len().min(left)], offset)?;
                }
                Ok(())
            }
            allocated => Ok(allocated?),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A file from before the limit may be cut.
        if let Err(error) = expect_file_size(len)
            && len > self.len()?
        {
            return Err(error);
        }
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(&self.file)?)
    }

    fn identity(&self) -> (u64, u64) {
        self.identity
    }

    #[expect(clippy::useless_conversion, reason = "the types differ between systems")]
    fn links(&self) -> io::Result<u64> {
        Ok(fstat(&self.file)?.st_nlink.into())
    }
}

/// Returns the identity of the file that a path leads to.
///
/// On Linux nothing but the inode is requested: a request for a file's times makes the next write
/// record a new time, and the sync after that write then waits for the file system's journal.
fn identity_at(at: impl AsFd, path: &Path, flags: AtFlags) -> rustix::io::Result<(u64, u64)> {
    #[cfg(target_os = "linux")]
    match rustix::fs::statx(at.as_fd(), path, flags, rustix::fs::StatxFlags::INO) {
        // This kernel is older than the call, or a sandbox forbids it.
        Err(Errno::NOSYS | Errno::PERM) => {}
        found => {
            return found.map(|file| {
                (rustix::fs::makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino)
            });
        }
    }
    Ok(identity_of(&statat(at, path, flags)?))
}

/// Returns device and inode: the identity of a file as long as it is open.
#[expect(clippy::unnecessary_cast, reason = "the types differ between systems")]
fn identity_of(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Takes an exclusive lock, and returns whether it was free.
fn try_flock(file: impl AsFd) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes the name of a directory durable in its parent.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
