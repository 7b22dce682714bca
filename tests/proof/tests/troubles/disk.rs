//! Disks that are full, or fail, and what restarts do to them.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use refrain::error::{Cause, Limit};
use refrain::{Health, Refusing};
use refrain_proof::machine::{Fault, Faults};
use rustix::io::Errno;

use super::*;

const MIB: u64 = 1024 * 1024;
/// Room for a log of a few pages.
const LITTLE: u64 = 32 * 1024;

/// A store whose last log has no more than so many pages left, which it says.
fn nearly_full(bench: &Bench, most: usize) -> (Arc<Process>, Store, usize) {
    // Logs of this size are none that larger ones are made of, and the prepared one is used up.
    drop(bench.open(4 * LOG_BYTES));
    bench.limit_room(0);
    let process = bench.machine.start();
    let store = bench.try_open(&process, 8 * LOG_BYTES).unwrap();
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
    while pages_left() > most {
        run(&store, &fresh(), vec![1; 3000]);
    }
    let pages = pages_left();
    // It has sealed what it can, so that it syncs nothing from now on.
    store.reap().unwrap_err();
    (process, store, pages)
}

#[test]
fn p11_no_more_bodies_are_left_out_than_have_no_room() {
    let bench = Bench::new();
    let (process, store, pages) = nearly_full(&bench, 13);
    let first = execute(&store, &operation("first"));
    let others = (0..4).map(|n| execute(&store, &operation(&format!("other-{n}")))).collect();
    // Three of them fit what the first one leaves, and four do not.
    let records = complete_together(&process, first, others, &vec![1; pages * 4096 / 4]);
    let kept: Vec<_> = records.iter().map(|record| record.response().is_some()).collect();
    assert_eq!(kept, [true, true, true, false]);
    assert_eq!(store.stats().bodies_left_out, 1);
}

/// It had a page for the verdict of a volatile key, and was said to be ready.
#[test]
fn p11_a_store_that_refuses_durable_keys_for_want_of_space_is_not_ready() {
    let bench = Bench::new();
    let (_process, store, pages) = nearly_full(&bench, 1);
    assert_eq!(pages, 1);
    let refused = store.begin(&operation("durable").durable()).wait();
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    assert_eq!(store.stats().refusing, Some(Refusing::Full));
    assert!(!store.health().is_ready(), "{}", store.health());
}

/// While a body took the last pages, others were admitted to the same pages, and the writer had
/// nowhere to put them.
#[test]
fn p11_what_is_admitted_while_a_body_takes_the_last_pages_finds_its_own() {
    let bench = Bench::new();
    let (process, store, pages) = nearly_full(&bench, 7);
    let last = execute(&store, &operation("last"));
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
    store.verify().unwrap();
}

/// For want of a page, or of a descriptor, for a moment, the background thread stopped the store.
#[test]
fn p11_a_shortage_that_passes_stops_nothing_in_flight_and_is_made_up_for() {
    let shortages =
        [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::FBIG];
    for shortage in shortages {
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

/// A file system turns read-only after an error of its disk.
#[test]
fn p10_a_file_system_that_turns_read_only_stops_the_store_and_loses_nothing() {
    let bench = Bench::new();
    let store = bench.open(LOG_BYTES);
    run(&store, "k", "A");
    let permit = execute(&store, &operation("in-flight"));
    bench.machine.set_limits(Limits { creation: Some(Errno::ROFS), ..Limits::default() });
    bench.clock.advance(2 * HOUR);
    let Err(Error::Stopped { source: Some(failure), .. }) = store.reap() else {
        panic!("it goes on")
    };
    assert!(failure.to_string().ends_with(" on a read-only file system"), "{failure}");
    let told = permit.complete(&Response::new(Bytes::from("B"))).wait();
    assert!(matches!(told, Err(Error::Stopped { .. })), "{told:?}");
    drop(store);
    bench.machine.set_limits(Limits::default());
    let store = bench.open(LOG_BYTES);
    assert!(matches!(store.begin(&operation("k")).wait(), Ok(Outcome::Replay(_))));
    drop(execute(&store, &operation("in-flight")));
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
    store.close(HOUR).wait().unwrap();
    for round in 0..3 {
        let store = bench.open(LOG_BYTES);
        assert_eq!(store.stats().open_claims, 500);
        run(&store, &format!("x-{round}"), "x");
        bench.clock.advance(2 * HOUR);
        store.reap().unwrap();
        run(&store, &format!("y-{round}"), "y");
    }
}

/// Every opening repeats it, however long it is.
#[test]
fn p12_smaller_logs_take_the_last_batch_of_larger_ones() {
    let bench = Bench::new();
    run(&bench.open(64 * LOG_BYTES), "long", vec![7; 1024 * 1024]);
    for _ in 0..3 {
        let Ok(Outcome::Replay(record)) = bench.open(LOG_BYTES).begin(&operation("long")).wait()
        else {
            panic!("it was done")
        };
        assert_eq!(record.response().unwrap().body().len(), 1024 * 1024);
    }
}

#[test]
fn p10_after_a_failed_commit_the_store_takes_no_work_and_keeps_the_key_locked() {
    let mut failed = 0;
    for at in 0..150 {
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
        assert!(matches!(again, Err(Error::Stopped { source: Some(_), .. })), "{again:?}");
        assert!(matches!(other, Err(Error::Stopped { source: Some(_), .. })), "{other:?}");
        assert!(matches!(store.close(HOUR).wait(), Err(Error::Stopped { source: Some(_), .. })));
    }
    assert_eq!(failed, 3, "the look at its names, its write, and its sync");
}

#[test]
fn p10_a_disk_that_fails_while_a_store_is_opened_is_not_called_damage() {
    let bench = Bench::new();
    let store = bench.open(LOG_BYTES);
    run(&store, "sealed", "A");
    bench.clock.advance(2 * HOUR);
    store.reap().unwrap();
    run(&store, "logged", "B");
    store.close(HOUR).wait().unwrap();
    let image = bench.machine.image();
    let mut failed = 0;
    for at in 0.. {
        let bench = Bench { machine: Machine::new(&image, at), ..Bench::new() };
        bench.machine.set_faults(Faults::At { kind: Fault::Broken, at, for_good: false });
        match bench.try_open(&bench.machine.start(), LOG_BYTES).map(drop) {
            Err(Error::Io { .. }) => failed += 1,
            Err(error) => panic!("operation {at}: {error:?}"),
            Ok(()) if !bench.machine.has_failed() => break,
            Ok(()) => {}
        }
    }
    assert!(failed > 50, "only {failed}");
}

/// It is about to list what it has sealed, and the store must not change any more.
#[test]
fn p10_what_stops_the_store_stops_sealing() {
    let bench = Bench::new();
    let process = bench.machine.start();
    let store = bench.try_open(&process, LOG_BYTES).unwrap();
    run(&store, "k", "A");
    // The round of the opening is over, and the next one has all to do.
    store.reap().unwrap();
    bench.clock.advance(2 * HOUR);
    // The next log is to be made while the segment is, and that fails for good.
    bench.limit_room(0);
    let machine = bench.machine.clone();
    process.on_sync(move || {
        if machine.image().0.keys().any(|name| name.ends_with(".redb.tmp")) {
            machine.set_limits(Limits { creation: Some(Errno::IO), ..Limits::default() });
        }
    });
    store.reap().unwrap_err();
    assert!(store.stats().failed);
    let names = bench.machine.image().0;
    assert!(!names.keys().any(|name| name.contains(".redb")), "{:?}", names.keys());
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
        // The fault may come after there was room, which others then have reserved.
        assert!(
            matches!(refused, Error::Full | Error::Limit { limit: Limit::ReservedBytes, .. }),
            "{refused:?}"
        );
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
    for room in [0, LITTLE, LITTLE, LITTLE] {
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
    for name in &names {
        assert!(matches!(store.begin(&operation(name)).wait(), Ok(Outcome::Replay(_))));
    }
}

#[test]
fn p12_a_disk_without_room_for_any_log_is_told_apart_by_the_bytes_that_are_needed() {
    let bench = Bench::new();
    bench.limit_room(LITTLE / 4);
    let refused = bench.try_open(&bench.machine.start(), LOG_BYTES).unwrap_err();
    assert!(matches!(refused, Error::Io { cause: Cause::DiskFull, .. }), "{refused:?}");
    assert_eq!(refused.source().unwrap().to_string(), "12288 bytes are needed");
    bench.limit_room(12_288);
    drop(bench.open(LOG_BYTES));
}

/// A volume that did not hold two logs took some hundred keys, and then refused all for good.
#[test]
fn p11_a_small_disk_serves_for_as_long_as_its_records_fit() {
    let bench = Bench::new();
    bench.machine.set_limits(Limits { space: 8 * MIB, ..Limits::default() });
    let store = bench.open(128 * MIB);
    for round in 0..12 {
        // A fifth of the disk at a time, and at last several times the disk.
        for n in 0..40 {
            let operation = operation(&format!("key-{round}-{n}")).ttl(HOUR);
            let record = execute(&store, &operation)
                .complete(&Response::new(Bytes::from(vec![7; 40_000])))
                .wait()
                .unwrap();
            assert!(record.response().is_some(), "in round {round}");
        }
        let outcome = store.begin(&operation(&format!("key-{round}-0"))).wait();
        assert!(matches!(outcome, Ok(Outcome::Replay(_))), "in round {round}: {outcome:?}");
        bench.clock.advance(2 * HOUR);
        store.reap().unwrap();
    }
    assert_eq!(store.stats().bodies_left_out, 0);
    store.verify().unwrap();
}

/// Each process took some of what was left for the next, until none opened, though all that filled the
/// disk had expired.
#[test]
fn p12_a_store_that_has_filled_its_disk_opens_again_and_again() {
    let bench = Bench::new();
    bench.machine.set_limits(Limits { space: 4 * MIB, ..Limits::default() });
    for restart in 0..80 {
        let process = bench.machine.start();
        let store = bench.try_open(&process, 128 * MIB);
        let store = store.unwrap_or_else(|error| panic!("at restart {restart}: {error:?}"));
        for n in 0..if restart % 2 == 0 { 1500 } else { 0 } {
            let operation = operation(&format!("key-{restart}-{n}")).ttl(HOUR);
            match store.begin(&operation).wait_timeout(Duration::ZERO) {
                Ok(Outcome::Execute(permit)) => {
                    permit.complete(&Response::new(Bytes::from(vec![7; 4000]))).wait().unwrap();
                }
                Err(Error::Full | Error::Behind) => {}
                other => panic!("key-{restart}-{n}: {other:?}"),
            }
        }
        let _ = store.reap();
        process.kill();
    }
    bench.clock.advance(2 * HOUR);
    let store = bench.open(128 * MIB);
    let _ = store.reap();
    store.reap().unwrap();
    run(&store, "later", vec![7; 12_000]);
    store.verify().unwrap();
}

/// A log with which a full disk is opened takes the place of the one before, records, claims and all.
#[test]
fn p2_p7_p12_openings_of_a_full_disk_keep_records_and_claims_and_take_no_space() {
    let bench = Bench::new();
    let process = bench.machine.start();
    let store = bench.try_open(&process, LOG_BYTES).unwrap();
    let durable = operation("claimed").durable();
    execute(&store, &durable).checkpoint(Bytes::from("half-way")).wait().unwrap();
    process.kill();
    let mut names: Vec<String> = Vec::new();
    let mut free = Vec::new();
    for restart in 0..20 {
        let process = bench.machine.start();
        let store = bench.try_open(&process, LOG_BYTES).unwrap();
        for name in &names {
            assert!(matches!(store.begin(&operation(name)).wait(), Ok(Outcome::Replay(_))));
        }
        let Ok(Outcome::Interrupted(attempt)) = store.begin(&durable).wait() else {
            panic!("the claim is gone at restart {restart}")
        };
        assert_eq!(attempt.checkpoints(), [Bytes::from("half-way")]);
        if restart == 0 {
            for n in 0..5 {
                names.push(format!("key-{n}"));
                run(&store, &names[n], "x");
            }
            // Room for three logs of a few pages, beside what the store leaves.
            bench.machine.leave_free(192 * 1024 + 3 * LITTLE);
        }
        // It tells what it cannot make room for, and has nothing half done then.
        let _ = store.reap();
        free.push(process.free_bytes().unwrap());
        process.kill();
    }
    assert!(free[5..].iter().all(|bytes| *bytes == free[5]), "{free:?}");
    bench.machine.set_limits(Limits::default());
    bench.open(LOG_BYTES).verify().unwrap();
}

/// Each opening took the bytes of all open claims from what is left for it, and a later one found too
/// few.
#[test]
fn p2_p7_p12_openings_of_a_full_disk_need_no_room_for_its_claims() {
    const CLAIMS: usize = 150;
    let bench = Bench::new();
    let process = bench.machine.start();
    let store = bench.try_open(&process, 4 * MIB).unwrap();
    let claim = |n: usize| operation(&format!("{n:0>255}")).durable();
    for n in 0..CLAIMS {
        execute(&store, &claim(n)).checkpoint(Bytes::from(vec![7; 500])).wait().unwrap();
    }
    let short = operation("short").ttl(HOUR);
    execute(&store, &short).complete(&Response::new(Bytes::new())).wait().unwrap();
    process.kill();
    let expect_all = |store: &Store| {
        for n in 0..CLAIMS {
            let Ok(Outcome::Interrupted(attempt)) = store.begin(&claim(n)).wait() else {
                panic!("claim {n} is gone")
            };
            assert_eq!(attempt.checkpoints(), [Bytes::from(vec![7; 500])]);
        }
    };
    for restart in 0..12 {
        // Others take what the store gives back.
        bench.machine.leave_free(96 * 1024);
        let process = bench.machine.start();
        let store = bench.try_open(&process, 4 * MIB);
        let store = store.unwrap_or_else(|error| panic!("at restart {restart}: {error:?}"));
        expect_all(&store);
        // Nothing but claims is left in their log, and it needs no space to go.
        bench.clock.advance(HOUR);
        let _ = store.reap();
        process.kill();
    }
    // With space they are carried into the next log, and theirs is sealed.
    bench.machine.set_limits(Limits::default());
    let store = bench.open(4 * MIB);
    bench.clock.advance(2 * HOUR);
    store.reap().unwrap();
    store.reap().unwrap();
    let logs = bench.machine.image().0.into_keys().filter(|name| name.ends_with(".log")).count();
    assert!(logs <= 3, "{logs} logs");
    expect_all(&store);
    drop(store);
    expect_all(&bench.open(4 * MIB));
    bench.open(4 * MIB).verify().unwrap();
}

/// A purge took one read that failed for the end of a record whose bytes were all there.
#[test]
fn p5_a_purge_removes_no_record_for_one_read_that_failed() {
    for at in 0.. {
        let bench = Bench::new();
        let store = bench.open(LOG_BYTES);
        run(&store, "kept", vec![7; 12_000]);
        run(&store, "forgotten", vec![7; 12_000]);
        let (scope, key) = address("forgotten");
        bench.clock.advance(2 * HOUR);
        store.reap().unwrap();
        store.forget(scope, &key).wait().unwrap();
        bench.machine.set_faults(Faults::At { kind: Fault::Short, at, for_good: false });
        // It is refused, or does its work.
        let purged = store.purge().wait();
        let has_failed = bench.machine.has_failed();
        bench.machine.set_faults(Faults::None);
        if let Ok(Outcome::Replay(record)) = store.begin(&operation("kept")).wait() {
            assert!(record.response().is_some(), "read {at}, purge {purged:?}");
        } else {
            panic!("after read {at} the record is lost, purge {purged:?}");
        }
        if !has_failed {
            break;
        }
    }
}

/// Sealing needed room for a copy of the larger records, on a disk that was full of logs to be sealed:
/// all keys were refused for good, though every record had expired.
#[test]
fn p11_a_disk_that_unsealed_logs_have_filled_serves_again_once_they_have_expired() {
    let bench = Bench::new();
    bench.machine.set_limits(Limits { space: 4 * MIB, ..Limits::default() });
    let store = bench.open(128 * MIB);
    let mut refused = 0;
    for n in 0..4000 {
        // So many small ones that no log is worth keeping for the larger ones.
        let bytes = if n % 10 == 0 { 12_000 } else { 900 };
        let operation = operation(&format!("key-{n}")).ttl(HOUR);
        match store.begin(&operation).wait_timeout(Duration::ZERO) {
            Ok(Outcome::Execute(permit)) => {
                permit.complete(&Response::new(Bytes::from(vec![7; bytes]))).wait().unwrap();
            }
            Err(Error::Full | Error::Behind) => refused += 1,
            other => panic!("key-{n}: {other:?}"),
        }
    }
    assert!(refused > 0, "the disk holds all of them");
    bench.clock.advance(2 * HOUR);
    // The first round may still end what was begun before.
    let _ = store.reap();
    store.reap().unwrap();
    run(&store, "later", vec![7; 12_000]);
    assert_eq!(store.stats().segments, 0);
    assert!(matches!(store.health(), Health::Ok), "{:?}", store.health());
}

/// Whatever fills it, the store opens again, and serves once there is space.
#[test]
fn p11_p12_a_disk_that_fills_up_keeps_what_was_acknowledged() {
    let bench = Bench::new();
    bench.machine.set_limits(Limits { space: 4 * MIB, ..Limits::default() });
    let mut done = Vec::new();
    for process in 0..3 {
        let store = bench.open(128 * MIB);
        for n in 0..150 {
            let name = format!("key-{process}-{n}");
            let Ok(Outcome::Execute(permit)) = store.begin(&operation(&name)).wait() else {
                continue;
            };
            let body = vec![7; 40_000];
            let record = permit.complete(&Response::new(Bytes::from(body))).wait().unwrap();
            done.push((name, record.response().is_some()));
        }
        for (name, is_kept) in &done {
            let Ok(Outcome::Replay(record)) = store.begin(&operation(name)).wait() else {
                panic!("{name} is gone")
            };
            assert_eq!(record.response().is_some(), *is_kept, "{name}");
        }
        store.close(HOUR).wait().unwrap();
    }
    bench.machine.set_limits(Limits::default());
    let store = bench.open(128 * MIB);
    run(&store, "roomy-again", vec![7; 40_000]);
    store.verify().unwrap();
}
