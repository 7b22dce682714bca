//! A limited number of open files for any number of segments.
//!
//! A file of the pool is opened when it is used, and closed when too many others have been used
//! since. It is the same file each time, or an error: an identity is kept, and all that is read
//! verifies by digests that are bound to the file.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile};

/// The most files of segments, and of the logs that are kept for their records, that are open at a
/// time.
pub(crate) const MAX_OPEN_FILES: usize = 128;

/// The files of one directory that are opened when they are used.
#[derive(Debug)]
pub(crate) struct Pool {
    disk: Arc<dyn Disk>,
    open: Mutex<Open>,
}

/// The open files, by their number in the pool.
#[derive(Debug, Default)]
struct Open {
    files: HashMap<u64, Used>,
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
        Arc::new(Self { disk, open: Mutex::default() })
    }

    /// Returns the directory.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Opens a file that may be closed and opened again.
    ///
    /// # Errors
    ///
    /// Those of [`Disk::open`].
    pub(crate) fn open(self: &Arc<Self>, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.open_now(name)?;
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

    /// Opens a file. If the process has too many open, half of the pool is closed first.
    fn open_now(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match self.disk.open(name) {
            Err(error) if is_out_of_descriptors(&error) => {
                drop(self.open.lock().take(MAX_OPEN_FILES / 2));
                self.disk.open(name)
            }
            opened => opened,
        }
    }

    /// Keeps a file open, and closes those that were not used for longest.
    fn keep(&self, number: u64, file: Arc<dyn DiskFile>) {
        let mut open = self.open.lock();
        let closed = open.take(MAX_OPEN_FILES - 1);
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
        let file = self.pool.open_now(&self.name)?;
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
                pool.open(&name).unwrap()
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
        let file = pool.open("ours").unwrap();
        disk.rename("theirs", "ours").unwrap();
        assert_eq!(byte(&*file).unwrap(), 7, "it is still open");
        drop(pool.open.lock().take(0));
        assert_eq!(byte(&*file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
