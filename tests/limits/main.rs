//! A store under the limits of its process, in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::error::Error as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::clock::SimulatedClock;
use refrain::error::Cause;
use refrain::{Error, Fingerprint, Operation, Outcome, Permit, Scope, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LOG_BYTES: u64 = 256 * 1024;

/// A limit that holds until this is dropped. One test at a time has one.
struct Limited {
    resource: Resource,
    before: Rlimit,
    _turn: MutexGuard<'static, ()>,
}

impl Limited {
    fn new(resource: Resource) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(|failed| failed.into_inner());
        Self { resource, before: getrlimit(resource), _turn: turn }
    }

    fn to(&self, current: u64) {
        setrlimit(self.resource, Rlimit { current: Some(current), ..self.before }).unwrap();
    }

    fn lift(&self) {
        setrlimit(self.resource, self.before).unwrap();
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.lift();
    }
}

fn open(path: &Path) -> refrain::Result<Store> {
    Store::builder().log_bytes(LOG_BYTES).open(path)
}

fn execute(store: &Store, name: &str) -> Permit {
    let fingerprint = Fingerprint::of([name]);
    let operation = Operation::new(Scope::new("s"), name.parse().unwrap(), fingerprint);
    match store.begin(&operation).wait() {
        Ok(Outcome::Execute(permit)) => permit,
        other => panic!("{name} is new: {other:?}"),
    }
}

fn response(bytes: usize) -> Response<Bytes> {
    Response::new(Bytes::from(vec![b'x'; bytes]))
}

#[test]
fn a_store_that_may_not_have_its_logs_is_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let limited = Limited::new(Resource::Fsize);
    limited.to(LOG_BYTES - 1);
    let error = open(&path).unwrap_err();
    limited.lift();
    let Error::Io { cause: Cause::FileSize { max, .. }, ref source, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(max, Some(LOG_BYTES - 1));
    assert_eq!(source.to_string(), format!("{LOG_BYTES} bytes are needed"));
    assert!(!path.exists());

    limited.to(LOG_BYTES);
    execute(&open(&path).unwrap(), "a").complete(&response(1)).wait().unwrap();
}

/// The signal of the limit ended the process.
#[test]
fn p10_a_limit_on_file_sizes_stops_the_store_and_not_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let limited = Limited::new(Resource::Fsize);
    let store = open(&path).unwrap();
    execute(&store, "kept").complete(&response(1)).wait().unwrap();
    store.reap().unwrap();
    let permits = [execute(&store, "first"), execute(&store, "second")];
    limited.to(4096);
    let outcomes = permits.map(|permit| permit.complete(&response(1)).wait());
    limited.lift();
    for outcome in outcomes {
        let stopped = outcome.unwrap_err();
        assert!(matches!(stopped, Error::Stopped { .. }), "{stopped:?}");
        let said = stopped.source().unwrap().to_string();
        assert!(said.contains("within the limit of 4096 bytes for a file"), "{said}");
    }
}

#[test]
fn a_low_limit_on_open_files_is_raised_where_that_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let limited = Limited::new(Resource::Nofile);
    limited.to(200);
    let store = open(&directory.path().join("store")).unwrap();
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    assert_eq!(current, Some(maximum.unwrap_or(1024).min(1024)));
    execute(&store, "a").complete(&response(1)).wait().unwrap();
}

/// The files of segments gave none of their descriptors back, and every new key was refused.
#[test]
fn p14_a_store_goes_on_with_few_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let clock = SimulatedClock::new();
    let builder = Store::builder().log_bytes(8 * 1024 * 1024).clock(clock.clone());
    let store = builder.open(directory.path()).unwrap();
    let limited = Limited::new(Resource::Nofile);
    let open_now = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    limited.to(open_now + 12);
    for n in 0..24 {
        for part in 0..2 {
            // Too large to be merged, so each has a log of its own besides.
            let name = format!("key-{n}-{part}");
            execute(&store, &name).complete(&response(900_000)).wait().unwrap();
        }
        clock.advance(Duration::from_secs(3600 - 60));
        store.reap().unwrap();
        let stats = store.stats();
        assert!(stats.last_trouble.is_none(), "{stats:?}");
    }
    assert!(store.stats().segments >= 12, "{:?}", store.stats());
    for name in ["key-2-0", "key-10-1", "key-23-1"] {
        let operation =
            Operation::new(Scope::new("s"), name.parse().unwrap(), Fingerprint::of([name]));
        assert!(matches!(store.begin(&operation).wait(), Ok(Outcome::Replay(_))), "{name}");
    }
}
