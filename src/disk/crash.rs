//! A disk that remembers every change, and rebuilds what a power cut would have left, for tests.
//!
//! A change is safe once its file, or the directory, was synced behind it. Of the others a cut keeps
//! what chance decides: writes by the sector of 512 bytes, lengths, and names.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, MemoryDisk, read_all};

const SECTOR: usize = 512;

#[derive(Debug)]
pub(crate) struct CrashDisk {
    disk: MemoryDisk,
    history: Arc<Mutex<Vec<Change>>>,
    /// What it began with.
    before: Image,
}

/// What is on the platter: names, and the files that they lead to.
type Image = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone)]
enum Change {
    Write { file: u64, offset: usize, bytes: Vec<u8> },
    Length { file: u64, length: usize },
    Sync { file: u64 },
    Create { name: String, file: u64 },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncNames,
}

/// Small, seeded, and the same everywhere.
#[derive(Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

impl CrashDisk {
    pub(crate) fn new(before: Image) -> Self {
        let disk = MemoryDisk::default();
        for (name, bytes) in &before {
            let file = disk.create(name).expect("names differ");
            file.write_at(bytes, 0).expect("memory takes it");
        }
        Self { disk, history: Arc::default(), before }
    }

    /// How many changes there have been.
    pub(crate) fn changes(&self) -> usize {
        self.history.lock().len()
    }

    /// What a power cut after so many changes leaves.
    pub(crate) fn cut(&self, changes: usize, chance: &mut Chance) -> Image {
        let history = self.history.lock()[..changes].to_vec();
        // All, nothing or half of what is not synced; names in order or not.
        let (odds, ordered) = (chance.below(3), chance.below(2) == 0);
        let mut survives = || match odds {
            0 => false,
            1 => true,
            _ => chance.below(2) == 0,
        };
        let mut files: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        for (number, (name, bytes)) in self.before.iter().enumerate() {
            files.insert(number as u64, bytes.clone());
            names.insert(name.clone(), number as u64);
        }
        let mut lost_a_name = false;
        for (at, change) in history.iter().enumerate() {
            let later = &history[at + 1..];
            let synced = |file: u64| {
                later.iter().any(|change| matches!(change, Change::Sync { file: f } if *f == file))
            };
            let named = || later.iter().any(|change| matches!(change, Change::SyncNames));
            match change {
                Change::Write { file, offset, bytes } => {
                    let content = files.entry(*file).or_default();
                    let safe = synced(*file);
                    for (sector, part) in bytes.chunks(SECTOR).enumerate() {
                        if safe || survives() {
                            write(content, offset + sector * SECTOR, part);
                        }
                    }
                }
                Change::Length { file, length } => {
                    if synced(*file) || survives() {
                        files.entry(*file).or_default().resize(*length, 0);
                    }
                }
                Change::Create { .. } | Change::Rename { .. } | Change::Remove { .. } => {
                    if !named() {
                        lost_a_name |= !survives();
                        if lost_a_name && (ordered || !survives()) {
                            continue;
                        }
                    }
                    apply_name(&mut names, change);
                }
                Change::Sync { .. } | Change::SyncNames => {}
            }
        }
        names
            .into_iter()
            .map(|(name, file)| (name, files.get(&file).cloned().unwrap_or_default()))
            .collect()
    }

    /// What a kill leaves: the page cache, whole.
    pub(crate) fn image(&self) -> Image {
        let names = self.disk.names().expect("memory has names");
        let read = |name: &String| {
            read_all(&*self.disk.open(name).expect("it is there"), 1 << 30).expect("it is whole")
        };
        names.iter().map(|name| (name.clone(), read(name))).collect()
    }

    fn note(&self, change: Change) {
        self.history.lock().push(change);
    }

    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CrashFile { file, history: Arc::clone(&self.history) })
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Create { name, file } => {
            names.insert(name.clone(), *file);
        }
        Change::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Remove { name } => {
            names.remove(name);
        }
        _ => {}
    }
}

impl Disk for CrashDisk {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(name)?;
        self.note(Change::Create { name: name.to_owned(), file: file.identity().1 });
        Ok(self.wrap(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)?;
        self.note(Change::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)?;
        self.note(Change::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.note(Change::SyncNames);
        Ok(())
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
struct CrashFile {
    file: Arc<dyn DiskFile>,
    history: Arc<Mutex<Vec<Change>>>,
}

impl CrashFile {
    fn note(&self, change: impl FnOnce(u64) -> Change) {
        self.history.lock().push(change(self.file.identity().1));
    }
}

impl DiskFile for CrashFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (offset_, bytes_) = (usize::try_from(offset).expect("small"), bytes.to_vec());
        self.note(|file| Change::Write { file, offset: offset_, bytes: bytes_ });
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).expect("small");
        self.note(|file| Change::Length { file, length });
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.note(|file| Change::Sync { file });
        self.file.sync()
    }

    fn identity(&self) -> (u64, u64) {
        self.file.identity()
    }
}
