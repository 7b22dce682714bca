//! A disk in memory whose syncs can be made to fail, and which forgets at a power cut what no sync
//! of a log has covered.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use refrain::disk::{Disk, DiskFile};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

#[derive(Debug, Default)]
pub(super) struct Medium {
    files: Mutex<BTreeMap<String, Arc<MediumFile>>>,
    /// The identity of the next file.
    created: AtomicU64,
    failing: Arc<AtomicBool>,
}

#[derive(Debug)]
struct MediumFile {
    identity: u64,
    is_log: bool,
    failing: Arc<AtomicBool>,
    content: Mutex<Content>,
}

/// The bytes of a file. Those past the end of `written`, up to `len`, are zero.
#[derive(Debug, Default)]
struct Content {
    written: Vec<u8>,
    len: usize,
    /// For each write to a log since its last sync, the offset and what was there before.
    unsynced: Vec<(usize, Vec<u8>)>,
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
        self.failing.store(true, Ordering::Relaxed);
    }

    /// The machine starts again, and what was not synced is lost.
    pub(super) fn cut_power(&self) {
        self.failing.store(false, Ordering::Relaxed);
        for file in self.files.lock().values() {
            file.content.lock().undo();
        }
    }

    /// A store that failed keeps its disk for good, but it need not keep what is on it.
    pub(super) fn wipe(&self) {
        self.files.lock().clear();
    }
}

impl Disk for Medium {
    fn path(&self) -> &Path {
        Path::new(":medium:")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(MediumFile {
            identity: self.created.fetch_add(1, Ordering::Relaxed),
            is_log: name.contains(".log"),
            failing: Arc::clone(&self.failing),
            content: Mutex::default(),
        });
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match self.files.lock().get(name) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn DiskFile>),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _name: &str) -> io::Result<bool> {
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }

    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        Ok(self.files.lock().get(name).is_some_and(|found| found.identity() == file.identity()))
    }
}

impl DiskFile for MediumFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().len as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.content.lock().read(buffer, index(offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut content, start) = (self.content.lock(), index(offset));
        if self.is_log {
            let mut before = vec![0; bytes.len()];
            content.read(&mut before, start)?;
            content.unsynced.push((start, before));
        }
        content.write(bytes, start);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut content, len) = (self.content.lock(), index(len));
        content.written.truncate(len);
        content.len = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // redb holds locks of its own while its file is synced, so no other thread may run then.
        if !self.is_log {
            return Ok(());
        }
        // A place to switch, as shuttle's sleep is. Yielding would always let the settler go first.
        shuttle::thread::sleep(Duration::ZERO);
        if self.failing.load(Ordering::Relaxed) {
            return Err(Errno::IO.into());
        }
        self.content.lock().unsynced.clear();
        Ok(())
    }

    fn identity(&self) -> (u64, u64) {
        (0, self.identity)
    }
}

impl Content {
    fn read(&self, buffer: &mut [u8], start: usize) -> io::Result<()> {
        if start + buffer.len() > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = self.written.get(start..).unwrap_or_default();
        let copied = written.len().min(buffer.len());
        buffer[..copied].copy_from_slice(&written[..copied]);
        buffer[copied..].fill(0);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], start: usize) {
        let end = start + bytes.len();
        if self.written.len() < end {
            self.written.resize(end, 0);
        }
        self.written[start..end].copy_from_slice(bytes);
        self.len = self.len.max(end);
    }

    fn undo(&mut self) {
        for (start, before) in std::mem::take(&mut self.unsynced).into_iter().rev() {
            self.write(&before, start);
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("the files are small")
}
