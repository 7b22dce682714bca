//! A disk in memory on which sealing can be held up, and the making of files can fail.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use refrain::disk::{Disk, DiskFile, MemoryDisk};
use rustix::io::Errno;

/// The state of a kind of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Open,
    /// Whoever makes a file waits.
    Held,
    /// Nobody can make a file.
    Failing(Errno),
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    disk: MemoryDisk,
    states: Mutex<States>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct States {
    segments: State,
    logs: State,
}

impl Gate {
    /// From now on so it goes with new segments.
    pub(crate) fn set_segments(&self, state: State) {
        self.states.lock().segments = state;
        self.changed.notify_all();
    }

    /// From now on so it goes with new logs.
    pub(crate) fn set_logs(&self, state: State) {
        self.states.lock().logs = state;
        self.changed.notify_all();
    }
}

impl Disk for Gate {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut states = self.states.lock();
        loop {
            let state = if name.contains(".redb") { states.segments } else { states.logs };
            match state {
                State::Open => return self.disk.create(name),
                State::Failing(error) => return Err(error.into()),
                State::Held => self.changed.wait(&mut states),
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
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

    fn free_bytes(&self) -> io::Result<u64> {
        let is_full = self.states.lock().logs == State::Failing(Errno::NOSPC);
        Ok(if is_full { 0 } else { u64::MAX })
    }

    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        self.disk.still_owns(name, file)
    }
}
