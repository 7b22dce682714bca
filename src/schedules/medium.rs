//! A disk in memory whose syncs can be made to fail, and which forgets what they did not cover.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::engine::disk::{Disk, DiskFile, MemoryDisk};

#[derive(Debug, Default)]
pub(super) struct Medium {
    disk: MemoryDisk,
    cache: Arc<Cache>,
}

/// What is written to logs and not synced.
#[derive(Debug, Default)]
struct Cache {
    failing: AtomicBool,
    writes: Mutex<Vec<Write>>,
}

/// A write, with what was there before.
#[derive(Debug)]
struct Write {
    file: Arc<dyn DiskFile>,
    offset: u64,
    before: Vec<u8>,
}

impl Medium {
    /// From now on no sync of a log succeeds.
    pub(super) fn fail(&self) {
        self.cache.failing.store(true, Ordering::Relaxed);
    }

    /// The machine starts again, and what was not synced is lost.
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
