//! Stores in the states that the alerts of the runbook stand for.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use refrain::clock::SimulatedClock;
use refrain::server::IdempotencyLayer;
use refrain::{Builder, Outcome, Store};
use rustix::io::Errno;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::gate::{Gate, State};
use crate::kit::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A store in its state, for as long as this is kept.
pub(crate) struct Kept {
    _store: Store,
    _home: Option<TempDir>,
}

impl From<Store> for Kept {
    fn from(store: Store) -> Self {
        Self { _store: store, _home: None }
    }
}

/// Brings a store into the state of an alert.
pub(crate) async fn bring(alert: &str) -> Kept {
    match alert {
        "RefrainStopped" | "RefrainOutcomeUnknown" | "RefrainKeysHeld" => stopped().await,
        "RefrainDiskFull" | "RefrainBodiesLeftOut" | "RefrainNoRoom" => short_of(Errno::NOSPC),
        "RefrainUnavailable" | "RefrainTrouble" => short_of(Errno::MFILE),
        "RefrainAway" => away(),
        "RefrainOpenClaims" => with_open_claims(),
        "RefrainClientAtLimit" => with_a_client_at_its_limit().await,
        "RefrainRequestsRefused" => closed().await,
        "RefrainRecordDamaged" | "RefrainKeysDamaged" => with_a_damaged_record().await,
        "RefrainFilesDamaged" => with_a_damaged_file(),
        "RefrainClockJump" => with_a_clock_that_jumped(),
        other => panic!("no state is known for {other}"),
    }
}

/// A store that has run, replayed and sealed.
pub(crate) async fn healthy() -> Kept {
    let clock = SimulatedClock::new();
    let store = builder(&clock).open_in_memory().unwrap();
    let app = app(&store);
    for _ in 0..2 {
        assert_eq!(ask(&app, "key-1").await, 200);
    }
    clock.advance(HOUR);
    store.reap().unwrap();
    store.into()
}

fn builder(clock: &SimulatedClock) -> Builder {
    let builder = Store::builder().log_bytes(256 * 1024).max_response_bytes(32 * 1024);
    builder.clock(clock.clone()).max_open_claims(8)
}

/// The disk fails while a handler runs.
async fn stopped() -> Kept {
    let (gate, clock) = (Arc::new(Gate::default()), SimulatedClock::new());
    let store = builder(&clock).open_on(Arc::clone(&gate) as _).unwrap();
    let (runs, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (Arc::clone(&runs), Arc::clone(&goes_on));
    let handler = post(|| async move {
        signals.0.notify_one();
        signals.1.notified().await;
        "placed"
    });
    let layer = IdempotencyLayer::new(store.clone());
    let app = Router::new().route("/calls", handler).layer(layer);
    let asking = tokio::spawn(async move { ask(&app, "key-1").await });
    runs.notified().await;
    let Ok(Outcome::Execute(permit)) = store.begin(&operation("key-2")).wait() else {
        panic!("it is new")
    };
    permit.complete_without_response().wait().unwrap();
    gate.set_logs(State::Failing(Errno::IO));
    clock.advance(HOUR);
    store.reap().unwrap_err();
    goes_on.notify_one();
    assert_eq!(asking.await.unwrap(), 503);
    store.into()
}

/// Neither logs nor segments can be made.
fn short_of(errno: Errno) -> Kept {
    let gate = Arc::new(Gate::default());
    let store = builder(&SimulatedClock::new()).open_on(Arc::clone(&gate) as _).unwrap();
    gate.set_logs(State::Failing(errno));
    gate.set_segments(State::Failing(errno));
    fill(&store);
    store.begin(&operation("refused").durable()).wait().unwrap_err();
    store.reap().unwrap_err();
    store.into()
}

fn away() -> Kept {
    let home = tempfile::tempdir().unwrap();
    let store = builder(&SimulatedClock::new()).open(home.path().join("store")).unwrap();
    fs::rename(home.path().join("store"), home.path().join("elsewhere")).unwrap();
    store.reap().unwrap();
    Kept { _store: store, _home: Some(home) }
}

/// Runs that were interrupted have more than half of the places.
fn with_open_claims() -> Kept {
    let store = builder(&SimulatedClock::new()).open_in_memory().unwrap();
    for n in 0..5 {
        drop(store.begin(&operation(&format!("key-{n}")).durable()).wait().unwrap());
    }
    store.reap().unwrap();
    store.into()
}

async fn with_a_client_at_its_limit() -> Kept {
    let builder = builder(&SimulatedClock::new()).max_open_claims_per_scope(1);
    let store = builder.open_in_memory().unwrap();
    drop(store.begin(&operation("interrupted").durable()).wait().unwrap());
    let app = app(&store);
    for n in 0..101 {
        assert_eq!(ask(&app, &format!("key-{n}")).await, 429);
    }
    store.into()
}

async fn closed() -> Kept {
    let store = builder(&SimulatedClock::new()).open_in_memory().unwrap();
    let app = app(&store);
    store.close(Duration::ZERO).wait().unwrap();
    assert_eq!(ask(&app, "key-1").await, 503);
    store.into()
}

/// A record that is damaged in its log, asked for, and sealed.
async fn with_a_damaged_record() -> Kept {
    let (home, clock) = (tempfile::tempdir().unwrap(), SimulatedClock::new());
    let path = home.path().join("store");
    let store = builder(&clock).open(&path).unwrap();
    let app = app(&store);
    assert_eq!(ask(&app, "key-1").await, 200);
    let files = fs::read_dir(&path).unwrap().map(|file| file.unwrap().path());
    let holds = |bytes: &[u8]| bytes.windows(6).position(|window| window == b"placed");
    // A file may go while the directory is read.
    let found = files.filter_map(|file| Some((holds(&fs::read(&file).ok()?)?, file)));
    found.for_each(|(at, file)| flip(&file, at));
    assert_eq!(ask(&app, "key-1").await, 500);
    for _ in 0..2 {
        clock.advance(HOUR);
        store.reap().unwrap();
    }
    Kept { _store: store, _home: Some(home) }
}

fn with_a_damaged_file() -> Kept {
    let (home, clock) = (tempfile::tempdir().unwrap(), SimulatedClock::new());
    let path = home.path().join("store");
    drop(builder(&clock).open(&path).unwrap());
    flip(&path.join("LOCK"), 20);
    let store = builder(&clock).open(&path).unwrap();
    Kept { _store: store, _home: Some(home) }
}

fn with_a_clock_that_jumped() -> Kept {
    let (home, clock) = (tempfile::tempdir().unwrap(), SimulatedClock::new());
    drop(builder(&clock).open(home.path().join("store")).unwrap());
    clock.reboot(30 * 24 * HOUR);
    let store = builder(&clock).open(home.path().join("store")).unwrap();
    Kept { _store: store, _home: Some(home) }
}

/// Changes a bit in place.
fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}
