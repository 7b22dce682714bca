//! A directory in which any number of segments need a limited number of open files.
//!
//! A file of the pool is opened when it is used, and closed when too many others have been used
//! since. It is the same file each time, or an error: an identity is kept, and all that is read
//! verifies by digests that are bound to the file.
//!
//! Where the process has as many files open as it may, the pool closes its own until the operation
//! succeeds, and keeps fewer open from then on.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile};
use crate::sync::atomic::{AtomicU64, Ordering};

/// The most files of segments, and of the logs that are kept for their records, that are open at a
/// time.
pub(crate) const MAX_OPEN_FILES: usize = 128;
/// The most of them that are open once the process has run out of descriptors.
const FEW_OPEN_FILES: usize = 8;

/// A directory, and those of its files that are opened when they are used.
#[derive(Debug)]
pub(crate) struct Pool {
    disk: Arc<dyn Disk>,
    open: Mutex<Open>,
    /// The bytes that were granted to files and are not written yet.
    granted: AtomicU64,
}

/// The open files, by their number in the pool.
#[derive(Debug)]
struct Open {
    files: HashMap<u64, Used>,
    /// The most that may be in `files`.
    max: usize,
    /// Counts files, and then uses.
    next: u64,
    uses: u64,
}

#[derive(Debug)]
struct Used {
    file: Arc<dyn DiskFile>,
    /// The count of uses at its last one.
    last: u64,
}

/// A file that is opened when it is used.
#[derive(Debug)]
struct Pooled {
    pool: Arc<Pool>,
    number: u64,
    name: String,
    identity: (u64, u64),
}

impl Pool {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        let open = Open { files: HashMap::new(), max: MAX_OPEN_FILES, next: 0, uses: 0 };
        Arc::new(Self { disk, open: Mutex::new(open), granted: AtomicU64::new(0) })
    }

    /// Opens a file that may be closed and opened again.
    ///
    /// # Errors
    ///
    /// Those of [`Disk::open`].
    pub(crate) fn open_pooled(self: &Arc<Self>, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.open(name)?;
        Ok(self.adopt(name, file))
    }

    /// Takes in an open file, which may be closed and opened again under this name.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        name: &str,
        file: Arc<dyn DiskFile>,
    ) -> Arc<dyn DiskFile> {
        let identity = file.identity();
        let number = {
            let mut open = self.open.lock();
            open.next += 1;
            open.next
        };
        self.keep(number, file);
        Arc::new(Pooled { pool: Arc::clone(self), number, name: name.into(), identity })
    }

    /// Grants bytes to a file that is about to take them: they are not free any more.
    pub(crate) fn grant(&self, bytes: u64) {
        self.granted.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back bytes that were granted, because they are written or are not needed.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.granted.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Runs an operation that takes a descriptor. If the process has none left, files of the pool
    /// are closed, and it is run again.
    fn with_descriptor<T>(&self, run: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match run() {
                Err(error) if is_out_of_descriptors(&error) => {
                    let closed = self.open.lock().take_half();
                    if closed.is_empty() {
                        return Err(error);
                    }
                }
                done => return done,
            }
        }
    }

    /// Keeps a file open, and closes those that were not used for longest.
    fn keep(&self, number: u64, file: Arc<dyn DiskFile>) {
        let mut open = self.open.lock();
        let most = open.max - 1;
        let closed = open.take(most);
        let last = open.count_use();
        open.files.insert(number, Used { file, last });
        drop(open);
        // Outside the mutex: closing the last descriptor of a removed file frees its blocks.
        drop(closed);
    }
}

impl Open {
    fn count_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Takes out half of the files, and lets no more than the others be open from now on.
    fn take_half(&mut self) -> Vec<Used> {
        let half = self.files.len() / 2;
        self.max = half.max(FEW_OPEN_FILES);
        self.take(half)
    }

    /// Takes out files until at most `max` are left, those first that were not used for longest.
    fn take(&mut self, max: usize) -> Vec<Used> {
        let mut taken = Vec::new();
        while self.files.len() > max {
            let oldest = self.files.iter().min_by_key(|(_, used)| used.last).map(|(n, _)| *n);
            taken.extend(oldest.and_then(|number| self.files.remove(&number)));
        }
        taken
    }
}

impl Pooled {
    /// Returns the file, open.
    fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        {
            let mut open = self.pool.open.lock();
            let last = open.count_use();
            if let Some(used) = open.files.get_mut(&self.number) {
                used.last = last;
                return Ok(Arc::clone(&used.file));
            }
        }
        // Two readers may open it at once, and one of the two descriptors is closed again.
        let file = self.pool.open(&self.name)?;
        if file.identity() != self.identity {
            let reason = "it was replaced by another file";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        self.pool.keep(self.number, Arc::clone(&file));
        Ok(file)
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let used = self.pool.open.lock().files.remove(&self.number);
        drop(used);
    }
}

impl Disk for Pool {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.with_descriptor(|| self.disk.names())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.with_descriptor(|| self.disk.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.with_descriptor(|| self.disk.open(name))
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
        self.with_descriptor(|| self.disk.lock(name))
    }

    fn unlock(&self) -> io::Result<()> {
        self.disk.unlock()
    }

    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        self.disk.still_owns(name, file)
    }

    fn is_replaced(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        self.disk.is_replaced(name, file)
    }

    fn link(&self, name: &str, into: &dyn Disk) -> io::Result<()> {
        self.disk.link(name, into)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let free = self.disk.free_bytes()?;
        Ok(free.saturating_sub(self.granted.load(Ordering::Relaxed)))
    }

    fn overwrites_in_place(&self) -> bool {
        self.disk.overwrites_in_place()
    }
}

impl DiskFile for Pooled {
    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file()?.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file()?.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file()?.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file()?.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file()?.sync()
    }

    fn identity(&self) -> (u64, u64) {
        self.identity
    }

    fn links(&self) -> io::Result<u64> {
        self.file()?.links()
    }
}

/// Returns true if the process or the system has as many files open as it may.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let limits = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    limits.iter().any(|limit| error.raw_os_error() == Some(limit.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::MemoryDisk;

    fn byte(file: &dyn DiskFile) -> io::Result<u8> {
        let mut byte = [0];
        file.read_at(&mut byte, 0).map(|()| byte[0])
    }

    #[test]
    fn p14_more_files_than_may_be_open_are_read() {
        let disk = Arc::new(MemoryDisk::default());
        let pool = Pool::new(Arc::clone(&disk) as Arc<dyn Disk>);
        let files: Vec<_> = (0..=u8::MAX)
            .map(|n| {
                let name = format!("file-{n}");
                disk.create(&name).unwrap().write_at(&[n], 0).unwrap();
                pool.open_pooled(&name).unwrap()
            })
            .collect();
        for _ in 0..2 {
            for (n, file) in (0..=u8::MAX).zip(&files) {
                assert_eq!(byte(&**file).unwrap(), n);
                assert!(pool.open.lock().files.len() <= MAX_OPEN_FILES);
            }
        }
        drop(files);
        assert_eq!(pool.open.lock().files.len(), 0);
    }

    #[test]
    fn p13_a_file_that_was_replaced_while_it_was_closed_is_not_read() {
        let disk = Arc::new(MemoryDisk::default());
        let pool = Pool::new(Arc::clone(&disk) as Arc<dyn Disk>);
        for name in ["ours", "theirs"] {
            disk.create(name).unwrap().write_at(&[7], 0).unwrap();
        }
        let file = pool.open_pooled("ours").unwrap();
        disk.rename("theirs", "ours").unwrap();
        assert_eq!(byte(&*file).unwrap(), 7, "it is still open");
        drop(pool.open.lock().take(0));
        assert_eq!(byte(&*file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
