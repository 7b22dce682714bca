//! A computer whose disk remembers all that happens to it, and fails when it is told to.
//!
//! Processes come and go; the page cache stays until the power is cut. [`Machine::start`] gives a
//! process its directory, and killing the process takes it away. A cut is made afterwards, at any
//! place of the [`trace`](Machine::trace).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::chance::Chance;
use crate::content::{Content, PAGE};
use crate::platter::{Event, FileId, Image, NameChange, Platter};

/// A machine that is running. Its copies are the same one.
#[derive(Clone)]
pub struct Machine(Arc<Mutex<State>>);

struct State {
    /// The content of each file, as the page cache has it.
    files: HashMap<FileId, Content>,
    names: BTreeMap<String, FileId>,
    platter: Platter,
    trace: Vec<Event>,
    faults: Faults,
    chance: Chance,
    /// The operations that a fault could have hit.
    operations: u64,
    /// Set once something has failed whose outcome nobody knows, so that the store must stop.
    must_stop: bool,
    /// The last batch that was written to a log.
    last_batch: Option<(FileId, Range<usize>)>,
    limits: Limits,
}

/// The limits of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The bytes that can still be allocated. Nothing is given back.
    pub room: u64,
    /// The bytes that all files can have together.
    pub space: u64,
    /// The error of making a file, if none can be made.
    pub creation: Option<Errno>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { room: u64::MAX, space: u64::MAX, creation: None }
    }
}

/// The operations that fail.
#[derive(Debug, Clone, Copy, Default)]
pub enum Faults {
    /// None.
    #[default]
    None,
    /// The `at`-th of the operations that `kind` concerns; with `for_good` all later ones too.
    At {
        /// The way in which the operation fails.
        kind: Fault,
        /// The number of operations that succeed before.
        at: u64,
        /// True if all later ones fail too.
        for_good: bool,
    },
}

/// A way in which an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Any operation fails with an I/O error.
    Broken,
    /// Whatever needs room fails for want of it.
    Full,
    /// Whatever changes something fails for want of room, as where a file system copies on writing.
    NoRoom,
    /// A read comes to less than was asked for.
    Short,
    /// A sync fails.
    Sync,
}

/// The kind of an operation, which decides the faults that concern it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Look,
    Write,
    Grow,
    Change,
    Sync,
}

/// The content that a new process reads where a sync had failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// The content written: the cache still has it.
    Cached,
    /// The content on the medium: the cache has dropped what was written.
    Dropped,
    /// Either, for each page.
    Mixed,
}

mod process;

pub use process::Process;

impl Machine {
    /// A machine that has just been switched on, with these files on its disk.
    pub fn new(image: &Image, seed: u64) -> Self {
        let platter = Platter::new(image);
        let names = platter.names().clone();
        let files = names.values().map(|file| (*file, platter.file(*file))).collect();
        Self(Arc::new(Mutex::new(State {
            files,
            names,
            platter,
            trace: Vec::new(),
            faults: Faults::None,
            chance: Chance::new(seed),
            operations: 0,
            must_stop: false,
            last_batch: None,
            limits: Limits::default(),
        })))
    }

    /// Gives a new process the directory.
    pub fn start(&self) -> Arc<Process> {
        // Of what became of an earlier one it knows nothing.
        self.0.lock().must_stop = false;
        Arc::new(Process::new(self.clone()))
    }

    /// Lets the machine be short of something from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.0.lock().limits = limits;
    }

    /// Leaves so many bytes of the disk free.
    pub fn leave_free(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.limits.space = state.used() + bytes;
    }

    /// Lets operations fail from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.0.lock();
        state.faults = faults;
        state.operations = 0;
        state.must_stop = false;
    }

    /// Returns true once the fault has come.
    pub fn has_failed(&self) -> bool {
        let state = self.0.lock();
        matches!(state.faults, Faults::At { at, .. } if state.operations > at)
    }

    /// Returns true once something has failed after which a store must not go on: a write or sync
    /// of a log that the store may be using, or the last step in replacing `MANIFEST`.
    pub fn must_stop(&self) -> bool {
        self.0.lock().must_stop
    }

    /// The number of events on the disk.
    pub fn events(&self) -> usize {
        self.0.lock().trace.len()
    }

    /// All events on the disk.
    pub fn trace(&self) -> Vec<Event> {
        self.0.lock().trace.clone()
    }

    /// The files as every process sees them now.
    pub fn image(&self) -> Image {
        let state = self.0.lock();
        let files = state.names.iter();
        Image(files.map(|(name, file)| (name.clone(), state.files[file].clone())).collect())
    }

    /// The log whose batch was written last, by its name, and the pages of that batch.
    pub fn last_batch(&self) -> Option<(String, Range<usize>)> {
        let state = self.0.lock();
        let (file, pages) = state.last_batch.clone()?;
        let name = state.names.iter().find(|(_, named)| **named == file)?.0.clone();
        Some((name, pages))
    }

    /// Lets the cache drop what it believes to be on the medium.
    pub fn drop_caches(&self, reads: Reads) {
        let state = &mut *self.0.lock();
        let mut chance = Chance::new(state.chance.draw());
        let mut drops = || match reads {
            Reads::Cached => false,
            Reads::Dropped => true,
            Reads::Mixed => chance.one_in(2),
        };
        for (file, cached) in &mut state.files {
            let medium = state.platter.view(*file);
            for page in 0..cached.pages().max(medium.pages()) {
                if drops() {
                    cached.put(page, medium.page(page).cloned());
                }
            }
        }
        let medium = state.platter.names_view();
        let mut names: Vec<String> = state.names.keys().chain(medium.keys()).cloned().collect();
        names.dedup();
        for name in names {
            if drops() {
                match medium.get(&name) {
                    Some(file) => drop(state.names.insert(name, *file)),
                    None => drop(state.names.remove(&name)),
                }
            }
        }
    }
}

impl State {
    /// Counts an operation that may fail, and fails it if its turn has come.
    fn operate(&mut self, kind: Kind) -> io::Result<()> {
        let Faults::At { kind: fault, at, for_good } = self.faults else { return Ok(()) };
        let concerned = match fault {
            Fault::Broken => true,
            Fault::Full => kind == Kind::Grow,
            Fault::NoRoom => !matches!(kind, Kind::Read | Kind::Look),
            Fault::Short => kind == Kind::Read,
            Fault::Sync => kind == Kind::Sync,
        };
        if !concerned {
            return Ok(());
        }
        let number = self.operations;
        self.operations += 1;
        if number != at && !(for_good && number > at) {
            return Ok(());
        }
        Err(match fault {
            Fault::Full | Fault::NoRoom => Errno::NOSPC.into(),
            Fault::Short => io::ErrorKind::UnexpectedEof.into(),
            Fault::Broken | Fault::Sync => Errno::IO.into(),
        })
    }

    /// Does something, or fails to; an operation that fails may have happened all the same.
    fn attempt<T>(
        &mut self,
        kind: Kind,
        act: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        let Err(error) = self.operate(kind) else { return act(self) };
        let changes = matches!(kind, Kind::Change | Kind::Grow);
        if changes && error.kind() != io::ErrorKind::StorageFull && self.chance.one_in(2) {
            // As if it had gone through, and the word of it been lost.
            let _ = act(self);
        }
        Err(error)
    }

    fn note(&mut self, event: Event) {
        self.platter.take(&event);
        self.trace.push(event);
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.note(Event::Name(change));
    }

    fn file(&mut self, name: &str) -> io::Result<FileId> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, file: FileId, bytes: &[u8], offset: u64) {
        let Some(content) = self.files.get_mut(&file) else { return };
        let pages = content.write(bytes, offset);
        let content = content.clone();
        if offset >= PAGE as u64 && bytes.starts_with(b"btc2") && self.is_log(file) {
            self.last_batch = Some((file, pages.clone()));
        }
        for page in pages {
            let Some(written) = content.page(page) else { continue };
            let len = content.len().min((page as u64 + 1) * PAGE as u64);
            self.note(Event::Write { file, page, content: Arc::clone(written), len });
        }
    }

    /// Returns the bytes that files can still have.
    fn free(&self) -> u64 {
        if self.limits.space == u64::MAX {
            u64::MAX
        } else {
            self.limits.space.saturating_sub(self.used())
        }
    }

    /// Returns the bytes that files have.
    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[file].len()).sum()
    }

    /// Expects that a file can have so many more bytes.
    fn take_space(&self, more: u64) -> io::Result<()> {
        if more > 0 && more > self.free() { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    /// Makes a file at least `len` bytes long, or fails if there is too little space.
    fn allocate(&mut self, file: FileId, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(self.files[&file].len());
        if more > self.limits.room {
            return Err(Errno::NOSPC.into());
        }
        self.take_space(more)?;
        if more > 0 {
            self.limits.room -= if self.limits.room == u64::MAX { 0 } else { more };
            self.set_len(file, len);
        }
        Ok(())
    }

    /// Returns true if a log has this file, under its own name.
    fn is_log(&self, file: FileId) -> bool {
        let mut names = self.names.iter();
        names.any(|(name, named)| *named == file && name.ends_with(".log"))
    }

    fn set_len(&mut self, file: FileId, len: u64) {
        if let Some(content) = self.files.get_mut(&file) {
            content.set_len(len);
        }
        self.note(Event::Length { file, len });
    }
}
