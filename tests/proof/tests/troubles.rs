//! What went wrong once: each test tells what a user would have seen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;
use refrain::clock::SimulatedClock;
use refrain::internals::{Disk, open_on};
use refrain::{Error, Fingerprint, Key, Operation, Outcome, Permit, Scope, Store};
use refrain_proof::machine::{Fault, Faults, Limits, Machine, Process};
use refrain_proof::model::HOUR;
use refrain_proof::platter::Image;
use rustix::io::Errno;

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
        open_on(builder, Arc::clone(process) as Arc<dyn Disk>)
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
    assert!(store.get(scope, &key).unwrap().is_none());
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
    assert_eq!(store.close(Duration::ZERO).unwrap(), 1);
    drop(store);
    assert!(matches!(open(), Err(Error::Locked { .. })));
    drop(running);
    drop(execute(&open().unwrap(), &operation("k")));
}

/// While a body took the last pages, others were admitted to the same pages, and the writer had
/// nowhere to put them.
#[test]
fn p11_what_is_admitted_while_a_body_takes_the_last_pages_finds_its_own() {
    let bench = Bench::new();
    // Logs of this size are none that larger ones are made of.
    drop(bench.open(LOG_BYTES));
    bench.limit_room(LOG_BYTES);
    for _ in 0..2 {
        // The prepared log is used up, and smaller ones follow.
        let store = bench.open(2 * LOG_BYTES);
        store.close(HOUR).unwrap();
    }
    let process = bench.machine.start();
    let store = bench.try_open(&process, 2 * LOG_BYTES).unwrap();
    assert!(!store.stats().next_log_ready);
    let count = AtomicUsize::new(0);
    let fresh = || format!("key-{}", count.fetch_add(1, Ordering::Relaxed));
    let pages_left = || {
        let mut permits = Vec::new();
        while let Ok(Outcome::Execute(permit)) = store.begin(&operation(&fresh())).wait() {
            permits.push(permit);
        }
        permits.len()
    };
    while pages_left() > 7 {
        run(&store, &fresh(), vec![1; 3000]);
    }
    let pages = pages_left();
    let last = execute(&store, &operation("last"));
    // It has sealed what it can, so that it syncs nothing below.
    store.reap().unwrap_err();
    let admitted = Arc::new(Mutex::new(Vec::new()));
    let (to, handle) = (Arc::clone(&admitted), store.clone());
    let mut others = (0..20).map(|n| operation(&format!("other-{n}")));
    process.on_sync(move || {
        // The reaper looks for room meanwhile, and must not give this one out again.
        handle.reap().unwrap_err();
        for other in others.by_ref() {
            if let Ok(Outcome::Execute(permit)) = handle.begin(&other).wait() {
                to.lock().push(permit);
            }
        }
    });
    let body = vec![1; pages * 4096 - 1000];
    last.complete(&Response::new(Bytes::from(body))).wait().unwrap();
    process.on_sync(|| {});
    let admitted = std::mem::take(&mut *admitted.lock());
    for permit in admitted {
        permit.complete(&Response::new(Bytes::new())).wait().unwrap();
    }
}

/// For want of a page, or of a descriptor, for a moment, the background thread stopped the store.
#[test]
fn p11_a_shortage_that_passes_stops_nothing_in_flight_and_is_made_up_for() {
    for shortage in [Errno::NOSPC, Errno::MFILE] {
        let bench = Bench::new();
        let store = bench.open(LOG_BYTES);
        run(&store, "k", "A");
        bench.clock.advance(2 * HOUR);
        store.reap().unwrap();
        assert_eq!(store.stats().segments, 1);
        let permit = execute(&store, &operation("in-flight"));
        bench.machine.set_limits(Limits { creation: Some(shortage), ..Limits::default() });
        bench.clock.advance(30 * HOUR);
        store.reap().unwrap_err();
        permit.complete(&Response::new(Bytes::from("B"))).wait().unwrap();
        bench.machine.set_limits(Limits::default());
        store.reap().unwrap();
        assert_eq!((store.stats().segments, store.stats().last_trouble), (0, None), "{shortage}");
        run(&store, "l", "C");
        drop(store);
        let store = bench.open(LOG_BYTES);
        assert!(matches!(store.begin(&operation("in-flight")).wait(), Ok(Outcome::Replay(_))));
    }
}

/// Each short run left a log, until they filled the disk: the reaper never came to seal them.
#[test]
fn p14_quick_restarts_do_not_pile_up_logs() {
    let bench = Bench::new();
    for n in 0..40 {
        let store = bench.open(LOG_BYTES);
        run(&store, &format!("key-{n}"), "x");
        drop(store);
        let names = bench.machine.image().0;
        let logs = names.keys().filter(|name| name.ends_with(".log")).count();
        // Three that wait, two in use, and some that the reaper had no time to remove.
        assert!(logs <= 9, "{logs} logs after {n} restarts");
    }
    let store = bench.open(LOG_BYTES);
    for n in 0..40 {
        let outcome = store.begin(&operation(&format!("key-{n}"))).wait();
        assert!(matches!(outcome, Ok(Outcome::Replay(_))), "{n}: {outcome:?}");
    }
}

/// More claims than the smaller logs were made for: the first rotation found no room for them.
#[test]
fn p12_smaller_logs_take_the_claims_of_larger_ones() {
    let bench = Bench::new();
    let store = bench.open(8 * 1024 * 1024);
    for n in 0..500 {
        drop(execute(&store, &operation(&format!("{n:0>255}")).durable()));
    }
    store.close(HOUR).unwrap();
    for round in 0..3 {
        let store = bench.open(LOG_BYTES);
        assert_eq!(store.stats().open_claims, 500);
        run(&store, &format!("x-{round}"), "x");
        bench.clock.advance(2 * HOUR);
        store.reap().unwrap();
        run(&store, &format!("y-{round}"), "y");
    }
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
    let store = open_on(builder.clock(bench.clock), bench.machine.start()).unwrap();
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

/// Records in logs were deleted in the first round after a jump, though deletion was put off.
#[test]
fn p9_a_jump_of_the_clock_over_a_reboot_deletes_nothing_for_a_ttl() {
    let bench = Bench::new();
    run(&bench.open(LOG_BYTES), "k", "x");
    bench.clock.reboot(8 * 24 * HOUR);
    let store = bench.open(LOG_BYTES);
    assert!(store.stats().clock_jump.is_some());
    let records = || {
        let stats = store.stats();
        stats.log_records as u64 + stats.segment_records
    };
    for _ in 0..4 {
        store.reap().unwrap();
        assert_eq!(records(), 1);
        bench.clock.advance(HOUR);
    }
    bench.clock.advance(48 * HOUR);
    store.reap().unwrap();
    assert_eq!(records(), 0);
}

#[test]
fn p10_after_a_failed_commit_the_store_takes_no_work_and_keeps_the_key_locked() {
    let mut failed = 0;
    for at in 0..100 {
        let bench = Bench::new();
        bench.machine.set_faults(Faults::At { kind: Fault::Broken, at, for_good: false });
        // Earlier operations belong to the opening, which is another test's business, and to what
        // the background thread does about it.
        let Ok(store) = bench.try_open(&bench.machine.start(), LOG_BYTES) else { continue };
        if store.reap().is_err() {
            continue;
        }
        let Ok(Outcome::Execute(permit)) = store.begin(&operation("a")).wait() else { continue };
        if permit.complete(&Response::new(Bytes::new())).wait().is_ok() {
            continue;
        }
        failed += 1;
        let again = store.begin(&operation("a")).wait();
        let other = store.begin(&operation("b")).wait();
        assert!(matches!(again, Err(Error::Stopped { source: Some(_) })), "{again:?}");
        assert!(matches!(other, Err(Error::Stopped { source: Some(_) })), "{other:?}");
        assert!(matches!(store.close(HOUR), Err(Error::Stopped { source: Some(_) })));
    }
    assert_eq!(failed, 3, "the look at its names, its write, and its sync");
}

#[test]
fn p11_a_full_disk_refuses_new_keys_and_finishes_those_in_flight() {
    for at in 0..40 {
        let bench = Bench::new();
        bench.machine.set_faults(Faults::At { kind: Fault::Full, at, for_good: true });
        let Ok(store) = bench.try_open(&bench.machine.start(), LOG_BYTES) else { continue };
        let mut permits = Vec::new();
        let refused = loop {
            match store.begin(&operation(&format!("key-{}", permits.len()))).wait() {
                Ok(Outcome::Execute(permit)) => permits.push(permit),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Full), "{refused:?}");
        for permit in permits {
            permit.complete(&Response::new(Bytes::new())).wait().unwrap();
        }
    }
}

/// The prepared log was left alone, and opening wanted room for another: a server on a full disk
/// could not be restarted.
#[test]
fn p12_a_store_on_a_full_disk_opens_again_and_again() {
    let bench = Bench::new();
    let mut names = vec!["roomy".to_owned()];
    run(&bench.open(2 * LOG_BYTES), &names[0], "x");
    // The first time there is a prepared log, and not even a smaller one could be made.
    for room in [0, LOG_BYTES, LOG_BYTES, LOG_BYTES] {
        bench.limit_room(room);
        let store = bench.open(2 * LOG_BYTES);
        for name in &names {
            assert!(matches!(store.begin(&operation(name)).wait(), Ok(Outcome::Replay(_))));
        }
        names.push(format!("full-{}", names.len()));
        run(&store, names.last().unwrap(), "x");
        store.verify().unwrap();
    }
    bench.limit_room(u64::MAX);
    let store = bench.open(2 * LOG_BYTES);
    run(&store, "roomy-again", "x");
    assert!(store.stats().next_log_ready);
}
