//! A process, and the directory that it has open.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use refrain::disk::{Disk, DiskFile};
use rustix::io::Errno;

use super::{Kind, Machine, State};
use crate::content::Content;
use crate::platter::{Event, FileId, NameChange};

/// A process. Its operations have no effect once it has been killed.
pub struct Process {
    machine: Mutex<Option<Machine>>,
    killed: Arc<AtomicBool>,
    on_sync: Arc<OnSync>,
}

/// A callback that runs whenever a file is synced.
type OnSync = Mutex<Option<Box<dyn FnMut() + Send>>>;

impl Process {
    pub(super) fn new(machine: Machine) -> Self {
        let (killed, on_sync) = (Arc::default(), Arc::default());
        Self { machine: Mutex::new(Some(machine)), killed, on_sync }
    }

    /// Calls `act` whenever a file is about to be synced.
    pub fn on_sync(&self, act: impl FnMut() + Send + 'static) {
        *self.on_sync.lock() = Some(Box::new(act));
    }

    /// Ends the process: whatever its threads still do has no effect.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        // A store that failed keeps its directory for good, and must not keep the machine.
        *self.machine.lock() = None;
    }

    fn with<T>(&self, kind: Kind, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let machine = self.machine.lock();
        let Some(machine) = &*machine else { return Err(Errno::IO.into()) };
        let mut state = machine.0.lock();
        state.attempt(kind, act)
    }

    fn file(&self, file: FileId) -> io::Result<Arc<dyn DiskFile>> {
        let machine = self.machine.lock().clone().ok_or(Errno::IO)?;
        let (killed, on_sync) = (Arc::clone(&self.killed), Arc::clone(&self.on_sync));
        Ok(Arc::new(OpenFile { machine, file, killed, on_sync }))
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

impl Disk for Process {
    fn path(&self) -> &Path {
        Path::new(":simulated:")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.with(Kind::Look, |state| Ok(state.names.keys().cloned().collect()))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.with(Kind::Grow, |state| {
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if let Some(reason) = state.limits.creation {
                return Err(reason.into());
            }
            let file = state.files.len() as FileId;
            state.files.insert(file, Content::default());
            state.rename(NameChange::Put { name: name.to_owned(), file, from: None });
            Ok(file)
        })?;
        self.file(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.with(Kind::Look, |state| state.file(name))?;
        self.file(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = self.with(Kind::Change, |state| {
            let (file, from) = (state.file(from)?, Some(from.to_owned()));
            state.rename(NameChange::Put { name: to.to_owned(), file, from });
            Ok(())
        });
        if let (Err(_), "MANIFEST", Some(machine)) = (&renamed, to, &*self.machine.lock()) {
            machine.0.lock().must_stop = true;
        }
        renamed
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(Kind::Change, |state| {
            state.file(name)?;
            state.rename(NameChange::Remove { name: name.to_owned() });
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let machine = self.machine.lock();
        let Some(machine) = &*machine else { return Err(Errno::IO.into()) };
        let state = &mut *machine.0.lock();
        if let Err(error) = state.operate(Kind::Sync) {
            let left = state.platter.half_synced_names(&mut state.chance);
            state.note(Event::SyncNamesFailed { left });
            return Err(error);
        }
        state.note(Event::SyncNames);
        Ok(())
    }

    fn lock(&self, _name: &str) -> io::Result<bool> {
        self.with(Kind::Look, |_| Ok(true))
    }

    fn unlock(&self) -> io::Result<()> {
        self.with(Kind::Look, |_| Ok(()))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.with(Kind::Look, |state| Ok(state.free()))
    }

    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        self.with(Kind::Look, |state| Ok(state.names.get(name) == Some(&file.identity().1)))
    }
}

struct OpenFile {
    machine: Machine,
    file: FileId,
    killed: Arc<AtomicBool>,
    on_sync: Arc<OnSync>,
}

impl OpenFile {
    fn with<T>(&self, kind: Kind, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.machine.0.lock();
        if self.killed.load(Ordering::SeqCst) {
            return Err(Errno::IO.into());
        }
        state.attempt(kind, act)
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.with(Kind::Look, |state| Ok(state.files[&self.file].len()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(Kind::Read, |state| state.files[&self.file].read(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.machine.0.lock();
        if self.killed.load(Ordering::SeqCst) {
            return Err(Errno::IO.into());
        }
        let more = (offset + bytes.len() as u64).saturating_sub(state.files[&self.file].len());
        let kind = if more > 0 { Kind::Grow } else { Kind::Write };
        if let Err(error) = state.operate(kind).and_then(|()| state.take_space(more)) {
            // A write that fails may have written some of it.
            let part = state.chance.below(bytes.len() + 1);
            state.write(self.file, &bytes[..part], offset);
            state.must_stop |= state.is_log(self.file);
            return Err(error);
        }
        state.write(self.file, bytes, offset);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let grows = len > self.machine.0.lock().files[&self.file].len();
        let kind = if grows { Kind::Grow } else { Kind::Change };
        self.with(kind, |state| state.allocate(self.file, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(Kind::Change, |state| {
            state.set_len(self.file, len);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(act) = self.on_sync.lock().as_mut() {
            act();
        }
        let state = &mut *self.machine.0.lock();
        if self.killed.load(Ordering::SeqCst) {
            return Err(Errno::IO.into());
        }
        let file = self.file;
        if let Err(error) = state.operate(Kind::Sync) {
            let left = state.platter.half_synced(file, &mut state.chance);
            state.note(Event::SyncFailed { file, left });
            state.must_stop |= state.is_log(file);
            return Err(error);
        }
        state.note(Event::Sync { file });
        Ok(())
    }

    fn identity(&self) -> (u64, u64) {
        (0, self.file)
    }
}
