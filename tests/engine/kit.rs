//! What the tests build with. Nothing here asserts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::clock::SimulatedClock;
use refrain::{
    Attempt, Builder, Fingerprint, Key, Operation, Outcome, Permit, Record, Scope, Store,
};
use tempfile::TempDir;

pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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

pub(crate) fn scope() -> Scope {
    Scope::from_api_key("sk_live_51")
}

pub(crate) fn key(name: &str) -> Key {
    name.parse().unwrap()
}

pub(crate) fn operation(name: &str) -> Operation {
    Operation::new(scope(), key(name), Fingerprint::of(["POST", "/v1/calls", name]))
        .request_id(format!("req_{name}").parse().unwrap())
}

pub(crate) fn response(body: &str) -> Response<Bytes> {
    Response::builder().status(201).header("x-kind", "call").body(body.to_owned().into()).unwrap()
}

pub(crate) fn begin(store: &Store, operation: &Operation) -> Outcome {
    store.begin(operation).wait().unwrap()
}

pub(crate) fn execute(store: &Store, operation: &Operation) -> Permit {
    match begin(store, operation) {
        Outcome::Execute(permit) => permit,
        other => panic!("not to be executed: {other:?}"),
    }
}

pub(crate) fn interrupted(store: &Store, operation: &Operation) -> Attempt {
    match begin(store, operation) {
        Outcome::Interrupted(attempt) => attempt,
        other => panic!("not interrupted: {other:?}"),
    }
}

/// Runs an operation whose answer is its own name.
pub(crate) fn run(store: &Store, name: &str) -> Record {
    execute(store, &operation(name)).complete(&response(name)).wait().unwrap()
}

/// The body that is replayed, or nothing if the operation would be executed.
pub(crate) fn replayed(store: &Store, name: &str) -> Option<String> {
    match begin(store, &operation(name)) {
        Outcome::Replay(record) => {
            let body = record.response().expect("the response was kept").body().clone();
            Some(String::from_utf8(body.to_vec()).unwrap())
        }
        Outcome::Execute(_) => None,
        other => panic!("neither replayed nor executed: {other:?}"),
    }
}

/// Moves what is in the active log into a segment: an hour passes.
pub(crate) fn seal(store: &Store, home: &Home) {
    home.clock.advance(HOUR);
    store.reap().unwrap();
}
