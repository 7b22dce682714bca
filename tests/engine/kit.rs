//! Directories for the tests, beside the operations that they share with the conformance suite.
//! Nothing here asserts.

use std::path::{Path, PathBuf};

use refrain::clock::SimulatedClock;
use refrain::{Builder, Store};
use tempfile::TempDir;

pub(crate) use operations::*;

#[path = "../conformance/facts/kit.rs"]
#[allow(dead_code, reason = "the suite needs more of them")]
mod operations;

/// A directory for a store, and the time that it lives in.
pub(crate) struct Home {
    pub(crate) directory: TempDir,
    pub(crate) clock: SimulatedClock,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: SimulatedClock::new() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub(crate) fn builder(&self) -> Builder {
        small(Store::builder()).clock(self.clock.clone())
    }

    pub(crate) fn open(&self) -> Store {
        self.builder().open(self.path()).unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The names in the store's directory that end so, in order.
    pub(crate) fn files(&self, ending: &str) -> Vec<PathBuf> {
        files(&self.path(), ending)
    }
}

pub(crate) fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

/// Logs that are quick to fill.
pub(crate) fn small(builder: Builder) -> Builder {
    builder
        .log_bytes(1024 * 1024)
        .max_in_flight(64)
        .max_open_claims(64)
        .max_response_bytes(64 * 1024)
}

/// Moves what is in the active log into a segment: an hour passes.
pub(crate) fn seal(store: &Store, home: &Home) {
    home.clock.advance(HOUR);
    store.reap().unwrap();
}

/// The files of the store that hold these bytes.
pub(crate) fn holding(home: &Home, bytes: &str) -> Vec<String> {
    let holds = |path: &PathBuf| {
        // A file may go while the directory is read.
        let Ok(content) = std::fs::read(path) else { return false };
        content.windows(bytes.len()).any(|window| window == bytes.as_bytes())
    };
    let files = home.files("").into_iter().filter(holds);
    files.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}
