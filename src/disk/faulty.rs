//! A disk whose n-th change fails, for tests.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Disk, DiskFile, MemoryDisk};

/// Passes everything on to a [`MemoryDisk`], until it is told to fail.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    disk: Arc<MemoryDisk>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
pub(crate) struct Faults {
    changes: AtomicU64,
    fail_at: u64,
    for_good: bool,
    error: io::ErrorKind,
    failed: AtomicBool,
    /// More than this cannot be allocated at once.
    room: u64,
}

impl Faults {
    /// Lets change number `fail_at` fail, and all later ones too if `for_good`.
    pub(crate) fn at(fail_at: u64, for_good: bool, error: io::ErrorKind) -> Arc<Self> {
        let (changes, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { changes, fail_at, for_good, error, failed, room: u64::MAX })
    }

    /// Lets nothing larger than this be allocated: the disk is full, or nearly.
    pub(crate) fn room(room: u64) -> Arc<Self> {
        let (changes, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let (fail_at, error) = (u64::MAX, io::ErrorKind::StorageFull);
        Arc::new(Self { changes, fail_at, for_good: false, error, failed, room })
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn change(&self) -> io::Result<()> {
        let number = self.changes.fetch_add(1, Ordering::SeqCst);
        if number == self.fail_at || (self.for_good && number > self.fail_at) {
            self.failed.store(true, Ordering::SeqCst);
            return Err(self.error.into());
        }
        Ok(())
    }
}

impl FaultyDisk {
    pub(crate) fn new(disk: Arc<MemoryDisk>, faults: Arc<Faults>) -> Self {
        Self { disk, faults }
    }

    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { file, faults: Arc::clone(&self.faults) })
    }
}

impl Disk for FaultyDisk {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.change()?;
        Ok(self.wrap(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults.change()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.change()?;
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.change()?;
        self.disk.sync()
    }

    fn lock(&self, name: &str) -> io::Result<bool> {
        self.disk.lock(name)
    }

    fn unlock(&self) -> io::Result<()> {
        self.disk.unlock()
    }

    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        self.disk.still_owns(name, file)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.faults.change() {
            // A write that fails may have written some of it.
            self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.faults.change()?;
        if len > self.faults.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.change()?;
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.change()?;
        self.file.sync()
    }

    fn identity(&self) -> (u64, u64) {
        self.file.identity()
    }
}
