//! A disk in memory whose syncs can be made to fail, and which forgets at a power cut the writes that
//! no sync of a log has covered.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use refrain::disk::{Disk, DiskFile, MemoryDisk};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

#[derive(Debug, Default)]
pub(super) struct Medium {
    disk: MemoryDisk,
    cache: Arc<Cache>,
}

/// The writes to logs since their last sync.
#[derive(Debug, Default)]
struct Cache {
    failing: AtomicBool,
    writes: Mutex<Vec<Write>>,
}

/// A write, with the bytes that it replaced.
#[derive(Debug)]
struct Write {
    file: Arc<dyn DiskFile>,
    offset: u64,
    before: Vec<u8>,
}

impl Medium {
    /// Writes the `LOCK` of a store with this uuid, as `docs/format.md` lays it out.
    pub(super) fn write_lock(&self, uuid: [u8; 16]) {
        let mut bytes = [b"rfrn lck", &1_u32.to_le_bytes()[..], &uuid].concat();
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        let lock = self.create("LOCK").expect("the disk is new");
        lock.write_at(&bytes, 0).expect("memory takes it");
    }

    /// From now on no sync of a log succeeds.
    pub(super) fn fail(&self) {
        self.cache.failing.store(true, Ordering::Relaxed);
    }

    /// Starts the machine again: what was not synced is lost.
    pub(super) fn cut_power(&self) {
        self.cache.failing.store(false, Ordering::Relaxed);
        for write in self.cache.writes.lock().drain(..).rev() {
            write.file.write_at(&write.before, write.offset).expect("it was written before");
        }
    }

    /// A store that failed keeps its disk for good, but it need not keep what is on it.
    pub(super) fn wipe(&self) {
        for name in self.disk.names().expect("memory does not fail") {
            self.disk.remove(&name).expect("it is there");
        }
        self.cache.writes.lock().clear();
    }

    fn cached(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        if !name.contains(".log") {
            return file;
        }
        Arc::new(LogFile { file, cache: Arc::clone(&self.cache) })
    }
}

impl Disk for Medium {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.cached(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.cached(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
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

/// redb never has one of these, so others may go on while it is synced.
#[derive(Debug)]
struct LogFile {
    file: Arc<dyn DiskFile>,
    cache: Arc<Cache>,
}

impl DiskFile for LogFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut before = vec![0; bytes.len()];
        self.file.read_at(&mut before, offset)?;
        let file = Arc::clone(&self.file);
        self.cache.writes.lock().push(Write { file, offset, before });
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // A place to switch, as shuttle's sleep is. Yielding would always let the settler go first.
        shuttle::thread::sleep(Duration::ZERO);
        if self.cache.failing.load(Ordering::Relaxed) {
            return Err(Errno::IO.into());
        }
        self.cache.writes.lock().retain(|write| !Arc::ptr_eq(&write.file, &self.file));
        self.file.sync()
    }

    fn identity(&self) -> (u64, u64) {
        self.file.identity()
    }
}
