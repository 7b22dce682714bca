//! A disk whose n-th change fails, for tests.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::{Disk, DiskFile, MemoryDisk};

/// Passes everything on to a [`MemoryDisk`], until it is told to fail.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    disk: Arc<MemoryDisk>,
    faults: Arc<Faults>,
}

pub(crate) struct Faults {
    changes: AtomicU64,
    fail_at: u64,
    for_good: bool,
    error: io::ErrorKind,
    failed: AtomicBool,
    /// More than this cannot be allocated at once.
    room: u64,
    /// Why no file can be made now, if none can.
    creation: Mutex<Option<Errno>>,
    /// What happens meanwhile, whenever a file is synced.
    on_sync: Mutex<Option<OnSync>>,
}

type OnSync = Box<dyn FnMut() + Send>;

impl Faults {
    /// Lets change number `fail_at` fail, and all later ones too if `for_good`.
    pub(crate) fn at(fail_at: u64, for_good: bool, error: io::ErrorKind) -> Arc<Self> {
        let (changes, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { changes, fail_at, for_good, error, failed, ..Self::none() })
    }

    /// Lets nothing larger than this be allocated: the disk is full, or nearly.
    pub(crate) fn room(room: u64) -> Arc<Self> {
        Arc::new(Self { room, ..Self::none() })
    }

    fn none() -> Self {
        Self {
            changes: AtomicU64::new(0),
            fail_at: u64::MAX,
            for_good: false,
            error: io::ErrorKind::Other,
            failed: AtomicBool::new(false),
            room: u64::MAX,
            creation: Mutex::default(),
            on_sync: Mutex::default(),
        }
    }

    /// Lets no file be made for this reason, or again, if there is none.
    pub(crate) fn refuse_creation(&self, reason: Option<Errno>) {
        *self.creation.lock() = reason;
    }

    /// Has something done whenever a file is about to be synced.
    pub(crate) fn on_sync(&self, act: impl FnMut() + Send + 'static) {
        *self.on_sync.lock() = Some(Box::new(act));
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
        if let Some(reason) = *self.faults.creation.lock() {
            return Err(reason.into());
        }
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
        if let Some(act) = self.faults.on_sync.lock().as_mut() {
            act();
        }
        self.file.sync()
    }

    fn identity(&self) -> (u64, u64) {
        self.file.identity()
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").field("fail_at", &self.fail_at).finish_non_exhaustive()
    }
}
