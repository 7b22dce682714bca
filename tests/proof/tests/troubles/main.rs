//! Past failures: each test tells what a user would have seen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;
use refrain::clock::SimulatedClock;
use refrain::disk::Disk;
use refrain::{Error, Fingerprint, Key, Operation, Outcome, Permit, Record, Scope, Store};
use refrain_proof::machine::{Limits, Machine, Process};
use refrain_proof::model::HOUR;
use refrain_proof::platter::Image;

mod disk;

const LOG_BYTES: u64 = 256 * 1024;

fn operation(name: &str) -> Operation {
    Operation::new(Scope::new("s"), name.parse().unwrap(), Fingerprint::of([name]))
}

fn execute(store: &Store, operation: &Operation) -> Permit {
    match store.begin(operation).wait() {
        Ok(Outcome::Execute(permit)) => permit,
        other => panic!("not to be executed: {other:?}"),
    }
}

fn run(store: &Store, name: &str, body: impl Into<Bytes>) {
    execute(store, &operation(name)).complete(&Response::new(body.into())).wait().unwrap();
}

fn address(name: &str) -> (Scope, Key) {
    (Scope::new("s"), name.parse().unwrap())
}

/// A store whose machine and clock the test holds.
struct Bench {
    machine: Machine,
    clock: SimulatedClock,
}

impl Bench {
    fn new() -> Self {
        Self { machine: Machine::new(&Image::default(), 1), clock: SimulatedClock::new() }
    }

    fn open(&self, log_bytes: u64) -> Store {
        self.try_open(&self.machine.start(), log_bytes).unwrap()
    }

    fn try_open(&self, process: &Arc<Process>, log_bytes: u64) -> refrain::Result<Store> {
        let builder = Store::builder().log_bytes(log_bytes).clock(self.clock.clone());
        builder.open_on(Arc::clone(process) as Arc<dyn Disk>)
    }

    fn limit_room(&self, room: u64) {
        self.machine.set_limits(Limits { room, ..Limits::default() });
    }
}

/// The second forget hid for a shorter time than the first, and took its place: the record that the
/// first had hidden came back.
#[test]
fn p4_what_was_forgotten_twice_does_not_come_back() {
    let bench = Bench::new();
    let store = bench.open(LOG_BYTES);
    let (scope, key) = address("k");
    run(&store, "k", "A");
    bench.clock.advance(2 * HOUR);
    store.reap().unwrap();
    assert_eq!(store.stats().segments, 1);
    store.forget(scope, &key).wait().unwrap();
    let short = execute(&store, &operation("k").ttl(HOUR / 2));
    short.complete(&Response::new(Bytes::from("B"))).wait().unwrap();
    store.forget(scope, &key).wait().unwrap();
    bench.clock.advance(2 * HOUR);
    store.reap().unwrap();
    assert!(store.get(scope, &key).wait().unwrap().is_none());
}

/// The store let go of its directory while a handler still ran, and the next process ran the same
/// key beside it.
#[test]
fn p1_a_store_that_is_closed_keeps_its_directory_while_a_permit_is_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let open = || Store::builder().log_bytes(LOG_BYTES).open(&path);
    let store = open().unwrap();
    let running = execute(&store, &operation("k"));
    assert_eq!(store.close(Duration::ZERO).wait().unwrap(), 1);
    drop(store);
    assert!(matches!(open(), Err(Error::Locked { .. })));
    drop(running);
    drop(execute(&open().unwrap(), &operation("k")));
}

/// Completes these while the first one is synced, so that they come together.
fn complete_together(
    process: &Process,
    first: Permit,
    others: Vec<Permit>,
    body: &[u8],
) -> Vec<Record> {
    let tickets = Arc::new(Mutex::new(Vec::new()));
    let (to, mut others) = (Arc::clone(&tickets), others.into_iter());
    let response = Response::new(Bytes::copy_from_slice(body));
    process.on_sync(move || to.lock().extend(others.by_ref().map(|one| one.complete(&response))));
    first.complete(&Response::new(Bytes::new())).wait().unwrap();
    process.on_sync(|| {});
    let tickets = std::mem::take(&mut *tickets.lock());
    tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect()
}

/// Requests that come while a batch is synced share one sync.
#[test]
fn what_comes_while_a_batch_is_synced_is_the_next_batch() {
    let bench = Bench::new();
    let process = bench.machine.start();
    let store = bench.try_open(&process, LOG_BYTES).unwrap();
    store.reap().unwrap();
    let first = execute(&store, &operation("first"));
    let others = (0..20).map(|n| execute(&store, &operation(&format!("key-{n}")))).collect();
    let before = store.stats();
    assert_eq!(complete_together(&process, first, others, &[1; 100]).len(), 20);
    let after = store.stats();
    assert_eq!((after.batches - before.batches, after.entries - before.entries), (2, 21));
    let bytes = after.log_bytes_written - before.log_bytes_written;
    assert_eq!(bytes, 4096 + 2 * 4096, "whole pages: one record, and twenty");
}

/// Many bodies at once made a batch larger than a log, and were left out though the disk was empty.
#[test]
fn p3_bodies_that_come_together_are_all_kept_in_small_logs_too() {
    let store = Bench::new().open(LOG_BYTES);
    let permits: Vec<_> =
        (0..16).map(|n| execute(&store, &operation(&format!("key-{n}")))).collect();
    let body = Response::new(Bytes::from(vec![0; 20_000]));
    let tickets: Vec<_> = permits.into_iter().map(|permit| permit.complete(&body)).collect();
    for ticket in tickets {
        assert!(ticket.wait().unwrap().response().is_some());
    }
    assert_eq!(store.stats().bodies_left_out, 0);
}

/// Each was checked against what was durable, and so all of a burst were admitted.
#[test]
fn p14_checkpoints_in_a_burst_keep_to_their_bound() {
    let store = Bench::new().open(LOG_BYTES);
    let name = |n| operation(&format!("c{n}")).durable();
    let mut permits: Vec<_> = (0..4).map(|n| execute(&store, &name(n))).collect();
    let checkpoints = permits.iter_mut().flat_map(|permit| {
        (0..16).map(|_| permit.checkpoint(vec![7; 16 * 1024])).collect::<Vec<_>>()
    });
    let checkpoints: Vec<_> = checkpoints.collect();
    let admitted = checkpoints.into_iter().filter_map(|ticket| ticket.wait().ok()).count();
    assert_eq!(admitted, 2, "an eighth of a log");
}

#[test]
fn p14_claims_in_a_burst_keep_to_their_bound() {
    let bench = Bench::new();
    let builder = Store::builder().log_bytes(LOG_BYTES).max_open_claims(4);
    let store = builder.clock(bench.clock).open_on(bench.machine.start()).unwrap();
    let begun: Vec<_> =
        (0..9).map(|n| store.begin(&operation(&format!("c{n}")).durable())).collect();
    let outcomes: Vec<_> = begun.into_iter().map(|begin| begin.wait()).collect();
    let admitted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(admitted, 4, "{outcomes:?}");
}

#[test]
fn stats_count_what_is_in_logs() {
    let store = Bench::new().open(LOG_BYTES);
    run(&store, "k", "A");
    run(&store, "l", "B");
    assert_eq!((store.stats().log_records, store.stats().segment_records), (2, 0));
}

/// A retry that had not seen the last checkpoint wrote its shorter list over the longer one.
#[test]
fn p7_a_checkpoint_that_was_acknowledged_is_there_in_later_attempts() {
    let store = Bench::new().open(16 * LOG_BYTES);
    for n in 0..50 {
        let operation = operation(&format!("k{n}")).durable();
        let mut permit = execute(&store, &operation);
        let ticket = permit.checkpoint("paid");
        drop(permit);
        let Ok(Outcome::Interrupted(attempt)) = store.begin(&operation).wait() else {
            panic!("it is not interrupted")
        };
        let permit = attempt.retry().wait().unwrap();
        ticket.wait().unwrap();
        drop(permit);
        let Ok(Outcome::Interrupted(attempt)) = store.begin(&operation).wait() else {
            panic!("it is not interrupted")
        };
        assert_eq!(attempt.checkpoints(), ["paid"]);
        attempt.release().wait().unwrap();
    }
}

#[test]
fn p4_a_record_that_expired_while_it_waited_to_be_taken_is_not_served() {
    let bench = Bench::new();
    let store = bench.open(LOG_BYTES);
    let short = operation("k").ttl(Duration::from_secs(60));
    let permit = execute(&store, &short);
    let waiting = store.begin(&short);
    permit.complete(&Response::new(Bytes::from("x"))).wait().unwrap();
    let ready = store.begin(&short);
    bench.clock.advance(Duration::from_secs(60));
    let Ok(Outcome::Execute(fresh)) = waiting.wait() else { panic!("it has expired") };
    drop(fresh);
    assert!(matches!(ready.wait(), Ok(Outcome::Execute(_))));
}

/// A jump that was not believed expired every record, and those in logs were deleted at once.
#[test]
fn p9_a_jump_of_the_clock_over_a_reboot_expires_nothing() {
    let bench = Bench::new();
    run(&bench.open(LOG_BYTES), "k", "x");
    bench.clock.reboot(8 * 24 * HOUR);
    let store = bench.open(LOG_BYTES);
    assert!(store.stats().clock_jump.is_some());
    for _ in 0..23 {
        store.reap().unwrap();
        assert!(matches!(store.begin(&operation("k")).wait(), Ok(Outcome::Replay(_))));
        bench.clock.advance(HOUR);
    }
    bench.clock.advance(48 * HOUR);
    store.reap().unwrap();
    let stats = store.stats();
    assert_eq!(stats.log_records as u64 + stats.segment_records, 0);
}
