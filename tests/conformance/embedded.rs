//! The embedded engine, in a directory and in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::time::Duration;

use refrain::backend::Limits;
use refrain::clock::SimulatedClock;
use refrain::{Builder, Store};
use tempfile::TempDir;

use crate::facts::{Bounded, FEW, House, Survives};

pub(crate) struct OnDisk {
    /// The one in use is the last.
    directories: RefCell<Vec<TempDir>>,
    clock: SimulatedClock,
}

impl House for OnDisk {
    fn new() -> Self {
        let directories = RefCell::new(vec![tempfile::tempdir().unwrap()]);
        Self { directories, clock: SimulatedClock::new() }
    }

    fn open_within(&self, limits: Limits) -> Store {
        self.open_builder(builder(limits, &self.clock))
    }

    fn pass_time(&self, by: Duration) {
        self.clock.advance(by);
    }
}

impl OnDisk {
    fn open_builder(&self, builder: Builder) -> Store {
        builder.open(self.directories.borrow().last().unwrap().path()).unwrap()
    }
}

impl Bounded for OnDisk {
    fn open_for_claims(&self, max: usize, max_per_scope: usize) -> Store {
        self.open_builder(builder_for_claims(&self.clock, max, max_per_scope))
    }
}

impl Survives for OnDisk {
    /// A killed process leaves what it wrote: the files as they are read now, at one moment. The store
    /// may be removing some of them in the background, and then they are copied again.
    fn crash(&self) {
        let mut directories = self.directories.borrow_mut();
        let path = directories.last().unwrap().path();
        let copy = loop {
            let (before, copy) = (listed(path), tempfile::tempdir().unwrap());
            let is_copied = before.iter().all(|(name, _)| {
                match fs::copy(path.join(name), copy.path().join(name)) {
                    Err(error) if error.kind() == ErrorKind::NotFound => false,
                    copied => copied.map(|_| true).unwrap(),
                }
            });
            if is_copied && listed(path) == before {
                break copy;
            }
        };
        directories.push(copy);
    }
}

/// The names in a directory and the files that they lead to.
fn listed(path: &Path) -> BTreeSet<(OsString, u64)> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), entry.ino())).collect()
}

pub(crate) struct InMemory {
    clock: SimulatedClock,
    opened: Cell<bool>,
}

impl House for InMemory {
    fn new() -> Self {
        Self { clock: SimulatedClock::new(), opened: Cell::new(false) }
    }

    fn open_within(&self, limits: Limits) -> Store {
        self.open_builder(builder(limits, &self.clock))
    }

    fn pass_time(&self, by: Duration) {
        self.clock.advance(by);
    }
}

impl InMemory {
    fn open_builder(&self, builder: Builder) -> Store {
        assert!(!self.opened.replace(true), "nothing survives in memory");
        builder.open_in_memory().unwrap()
    }
}

impl Bounded for InMemory {
    fn open_for_claims(&self, max: usize, max_per_scope: usize) -> Store {
        self.open_builder(builder_for_claims(&self.clock, max, max_per_scope))
    }
}

fn builder_for_claims(clock: &SimulatedClock, max: usize, max_per_scope: usize) -> Builder {
    builder(FEW, clock).max_open_claims(max).max_open_claims_per_scope(max_per_scope)
}

fn builder(limits: Limits, clock: &SimulatedClock) -> Builder {
    Store::builder()
        .log_bytes(1024 * 1024)
        .max_in_flight(limits.in_flight)
        .max_in_flight_per_scope(limits.per_scope)
        .max_waiters_per_key(limits.waiters)
        .max_open_claims(64)
        .max_response_bytes(64 * 1024)
        .clock(clock.clone())
}
