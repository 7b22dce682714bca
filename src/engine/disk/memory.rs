//! A directory in memory, for stores that need not outlive a test.
//!
//! Syncs do nothing: the bytes last as long as the disk. Its errors are those of a real disk: a
//! missing name, an existing one, and a read past the end.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::{Disk, DiskFile};

/// A directory in memory: for stores that need not outlive a test, and as the base of a double that
/// adds faults.
///
/// Nobody else can have it, so its lock is always free. Its syncs do nothing.
///
/// ```
/// use std::sync::Arc;
///
/// use refrain::disk::MemoryDisk;
///
/// let store = refrain::Store::builder().open_on(Arc::new(MemoryDisk::default()))?;
/// # drop(store);
/// # Ok::<(), refrain::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
    /// The identity of the next file.
    created: AtomicU64,
}

/// A file in memory. It outlives its name for as long as it is open.
#[derive(Debug, Default)]
struct MemoryFile {
    identity: u64,
    /// Names that lead to the file.
    links: AtomicU64,
    content: RwLock<Content>,
}

/// The bytes of a file. Those past the end of `written`, up to `len`, are zero and take no memory.
#[derive(Debug, Default)]
struct Content {
    written: Vec<u8>,
    len: usize,
}

impl Disk for MemoryDisk {
    fn path(&self) -> &Path {
        Path::new(":memory:")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let identity = self.created.fetch_add(1, Ordering::Relaxed);
        let links = AtomicU64::new(1);
        let file = Arc::new(MemoryFile { identity, links, ..MemoryFile::default() });
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
        let replaced = files.insert(to.to_owned(), file);
        replaced.iter().for_each(|file| file.count_out());
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.files.lock().remove(name).ok_or(io::ErrorKind::NotFound)?;
        removed.count_out();
        Ok(())
    }

    fn link(&self, name: &str, into: &dyn Disk) -> io::Result<()> {
        let into: &dyn Any = into;
        let Some(into) = into.downcast_ref::<Self>() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let file = self.files.lock().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        let mut files = into.files.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        file.links.fetch_add(1, Ordering::Relaxed);
        files.insert(name.to_owned(), file);
        Ok(())
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

impl MemoryFile {
    fn count_out(&self) {
        self.links.fetch_sub(1, Ordering::Relaxed);
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.read().len as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.content.read();
        let start = index(offset)?;
        if start.checked_add(buffer.len()).is_none_or(|end| end > content.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = content.written.get(start..).unwrap_or_default();
        let copied = written.len().min(buffer.len());
        buffer[..copied].copy_from_slice(&written[..copied]);
        buffer[copied..].fill(0);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.content.write();
        let start = index(offset)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        content.len = content.len.max(end);
        let written = &mut content.written;
        if written.len() < start {
            written.resize(start, 0);
        }
        // What lies beyond the end is not zeroed first.
        let (over, beyond) = bytes.split_at(bytes.len().min(written.len() - start));
        written[start..start + over.len()].copy_from_slice(over);
        written.extend_from_slice(beyond);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut content = self.content.write();
        content.len = content.len.max(index(len)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.content.write();
        content.len = index(len)?;
        let len = content.len;
        content.written.truncate(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn identity(&self) -> (u64, u64) {
        (0, self.identity)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.links.load(Ordering::Relaxed))
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
