//! A directory in memory whose process is killed, or whose machine loses its power.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::engine::disk::{Disk, DiskFile, MemoryDisk, read_all};
use crate::engine::log::PAGE;

/// A directory of which one change fails, and some changes later all do, as they do once the process
/// is killed.
#[derive(Debug)]
pub(super) struct Killed {
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) fate: Arc<Fate>,
    /// The bytes that all files may take, in whole pages.
    pub(super) space: u64,
}

/// A file that was created in such a directory.
#[derive(Debug)]
struct KilledFile {
    file: Arc<dyn DiskFile>,
    fate: Arc<Fate>,
    disk: Arc<MemoryDisk>,
    space: u64,
}

/// The number of changes so far, of those before the one that fails, and of those after it; and what
/// has been synced.
#[derive(Debug)]
pub(super) struct Fate {
    made: AtomicUsize,
    before: usize,
    after: usize,
    /// The files that the names led to when the directory was synced last.
    names: Mutex<BTreeMap<String, (u64, u64)>>,
    /// The content of each file when that was synced last.
    contents: Mutex<BTreeMap<(u64, u64), Vec<u8>>>,
}

impl Killed {
    /// An empty directory, with the number of changes before the one that fails, and of those after
    /// it.
    pub(super) fn new(before: usize, after: usize) -> Self {
        let (made, names, contents) = (AtomicUsize::default(), Mutex::default(), Mutex::default());
        let fate = Arc::new(Fate { made, before, after, names, contents });
        Self { disk: Arc::default(), fate, space: u64::MAX }
    }

    /// A directory that is durably marked as that of a backup.
    pub(super) fn marked(before: usize, after: usize) -> Self {
        let killed = Self::new(before, after);
        let marker = killed.disk.create("BACKUP").unwrap();
        killed.fate.names.lock().insert("BACKUP".to_owned(), marker.identity());
        killed
    }

    /// The disk after a power cut that leaves nothing but what was synced.
    pub(super) fn durable(&self) -> Arc<MemoryDisk> {
        let disk = MemoryDisk::default();
        let contents = self.fate.contents.lock();
        for (name, identity) in &*self.fate.names.lock() {
            let file = disk.create(name).unwrap();
            file.write_at(contents.get(identity).map_or(&[], |bytes| bytes), 0).unwrap();
        }
        Arc::new(disk)
    }
}

impl Fate {
    /// Returns true once a change has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.made.load(Ordering::SeqCst) > self.before
    }

    fn change(&self) -> io::Result<()> {
        let made = self.made.fetch_add(1, Ordering::SeqCst);
        let fails = made == self.before || made > self.before.saturating_add(self.after);
        if fails { Err(io::Error::other("killed")) } else { Ok(()) }
    }
}

impl Disk for Killed {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.space.saturating_sub(used(&self.disk)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.fate.change()?;
        let (fate, disk) = (Arc::clone(&self.fate), Arc::clone(&self.disk));
        Ok(Arc::new(KilledFile { file: disk.create(name)?, fate, disk, space: self.space }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fate.change()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.fate.change()?;
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.fate.change()?;
        let all = self.disk.names()?.into_iter();
        let identified = all.map(|name| Ok((name.clone(), self.disk.open(&name)?.identity())));
        *self.fate.names.lock() = identified.collect::<io::Result<_>>()?;
        Ok(())
    }

    fn lock(&self, _name: &str) -> io::Result<bool> {
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }

    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        self.disk.still_owns(name, file)
    }
}

impl KilledFile {
    /// Checks that the file may become so long.
    fn expect_space(&self, len: u64) -> io::Result<()> {
        let pages = |len: u64| len.next_multiple_of(PAGE);
        let more = pages(len).saturating_sub(pages(self.file.len()?));
        let fits = more <= self.space.saturating_sub(used(&self.disk));
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

/// The bytes that all files take.
pub(super) fn used(disk: &MemoryDisk) -> u64 {
    let names = disk.names().unwrap().into_iter();
    names.map(|name| disk.open(&name).unwrap().len().unwrap().next_multiple_of(PAGE)).sum()
}

impl DiskFile for KilledFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.fate.change()?;
        self.expect_space(offset + bytes.len() as u64)?;
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.fate.change()?;
        self.expect_space(len)?;
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fate.change()?;
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.fate.change()?;
        let content = read_all(&*self.file, u64::MAX)?;
        self.fate.contents.lock().insert(self.file.identity(), content);
        Ok(())
    }

    fn identity(&self) -> (u64, u64) {
        self.file.identity()
    }
}
