//! P16: the bytes of what was forgotten or has expired are gone from all files after a purge.

use std::fs;
use std::sync::Arc;
use std::thread;

use refrain::disk::Disk;
use refrain::{Error, Operation, Outcome, Store};
use rustix::io::Errno;

use crate::damage::flip;
use crate::gate::{Gate, State};
use crate::kit::*;

/// Bodies of these lengths are in a row of a segment, or stay in a log.
const LENGTHS: [usize; 2] = [100, 20_000];

/// A body that occurs nowhere else.
fn secret(name: &str, length: usize) -> String {
    format!("<{name}>").repeat(length / (name.len() + 2) + 1)
}

fn put(store: &Store, operation: &Operation, body: &str) {
    execute(store, operation).complete(&response(body)).wait().unwrap();
}

fn put_secret(store: &Store, name: &str, length: usize) {
    put(store, &operation(name), &secret(name, length));
}

fn forget(store: &Store, name: &str) {
    store.forget(scope(), &key(name)).wait().unwrap();
}

fn purge(store: &Store) {
    store.purge().wait().unwrap();
}

/// Returns true if any file has the bytes of a body or a key by this name.
fn is_somewhere(home: &Home, name: &str) -> bool {
    !holding(home, name).is_empty()
}

/// Puts `count` records that stay.
fn put_live(store: &Store, count: usize, length: usize) {
    (0..count).for_each(|n| put_secret(store, &format!("live-{n}"), length));
}

fn expect_live(store: &Store, count: usize, length: usize) {
    for n in 0..count {
        let name = format!("live-{n}");
        assert!(replayed(store, &name) == Some(secret(&name, length)), "{name}");
    }
}

/// A record is somewhere; it is forgotten, and the store is purged.
fn gone_after_a_purge(place: impl Fn(&Home, Store, usize) -> Store) {
    for length in LENGTHS {
        let home = Home::new();
        let store = home.open();
        put_live(&store, 3, length);
        put_secret(&store, "hushed", length);
        put_secret(&store, "too", length);
        let store = place(&home, store, length);
        assert!(is_somewhere(&home, "<hushed>"), "there is nothing to purge");
        forget(&store, "hushed");
        purge(&store);
        assert_eq!(holding(&home, "hushed"), [""; 0], "of {length} bytes");
        expect_live(&store, 3, length);
        store.verify().unwrap();
        drop(store);
        let store = home.open();
        expect_live(&store, 3, length);
        assert_eq!(replayed(&store, "hushed"), None);
        assert_eq!(replayed(&store, "too").as_ref(), Some(&secret("too", length)));
        run(&store, "hushed");
        assert_eq!(replayed(&store, "hushed").as_deref(), Some("hushed"));
    }
}

#[test]
fn p16_nothing_of_a_forgotten_record_is_left_of_the_active_log() {
    gone_after_a_purge(|_, store, _| store);
}

#[test]
fn p16_nothing_of_a_forgotten_record_is_left_of_a_frozen_log() {
    gone_after_a_purge(|home, store, _| {
        drop(store);
        let store = home.open();
        assert_eq!((store.stats().logs, store.stats().segments), (2, 0));
        store
    });
}

#[test]
fn p16_nothing_of_a_forgotten_record_is_left_of_a_segment_and_its_log() {
    gone_after_a_purge(|home, store, _| {
        seal(&store, home);
        assert_eq!((store.stats().log_records, store.stats().segments), (0, 1));
        store
    });
}

/// The log is kept for newer records, and has an older one, which they hide.
#[test]
fn p16_nothing_of_a_hidden_record_is_left_of_a_log_that_is_kept_for_others() {
    let home = Home::new();
    let store = home.open();
    put_secret(&store, "hushed", 20_000);
    forget(&store, "hushed");
    put(&store, &operation("hushed"), &"new".repeat(9_000));
    put_live(&store, 3, 20_000);
    seal(&store, &home);
    assert_eq!(holding(&home, "<hushed>").len(), 1);
    purge(&store);
    assert_eq!(holding(&home, "<hushed>"), [""; 0]);
    assert_eq!(replayed(&store, "hushed"), Some("new".repeat(9_000)));
    expect_live(&store, 3, 20_000);
    store.verify().unwrap();
}

/// The logs that are in use were made of older ones, whose bytes they have behind their ends.
#[test]
fn p16_nothing_of_an_expired_record_is_left_behind_the_end_of_a_recycled_log() {
    let home = Home::new();
    let store = home.open();
    for n in 0..3 {
        (0..60).for_each(|m| put_secret(&store, &format!("hushed-{n}-{m}"), 400));
        seal(&store, &home);
    }
    run(&store, "other");
    home.clock.advance(DAY);
    store.reap().unwrap();
    let stats = store.stats();
    assert_eq!((stats.segments, stats.log_records), (0, 0), "{stats:?}");
    assert!(is_somewhere(&home, "<hushed-"), "no log was recycled");
    purge(&store);
    assert_eq!(holding(&home, "hushed-"), [""; 0]);
    store.verify().unwrap();
}

#[test]
fn p16_nothing_of_an_expired_record_is_left_beside_those_that_live() {
    for length in LENGTHS {
        let home = Home::new();
        let store = home.open();
        for n in 0..10 {
            put_live(&store, 1, length);
            let operation = operation(&format!("hushed-{n}")).ttl(HOUR * 2);
            put(&store, &operation, &secret(&format!("hushed-{n}"), length));
            forget(&store, "live-0");
        }
        put_live(&store, 10, length);
        seal(&store, &home);
        home.clock.advance(HOUR);
        assert!(is_somewhere(&home, "<hushed-"));
        purge(&store);
        assert_eq!(holding(&home, "hushed-"), [""; 0], "of {length} bytes");
        expect_live(&store, 10, length);
    }
}

/// It is kept in the segment for as long as what it hides, and nothing is left that it hides.
#[test]
fn p16_nothing_is_left_of_a_short_record_that_came_after_a_forget() {
    let home = Home::new();
    let store = home.open();
    put_secret(&store, "key", 100);
    seal(&store, &home);
    forget(&store, "key");
    put(&store, &operation("key").ttl(HOUR * 2), "hushed");
    put_live(&store, 1, 100);
    seal(&store, &home);
    home.clock.advance(HOUR);
    assert_eq!(replayed(&store, "key"), None);
    assert!(is_somewhere(&home, "hushed"));
    purge(&store);
    assert_eq!(holding(&home, "hushed"), [""; 0]);
    assert_eq!(holding(&home, "<key>"), [""; 0]);
    assert_eq!(replayed(&store, "key"), None);
    expect_live(&store, 1, 100);
}

#[test]
fn p7_p16_open_claims_stay_and_nothing_is_left_of_those_that_were_forgotten() {
    let home = Home::new();
    let store = home.open();
    for name in ["claimed", "hushed"] {
        let mut permit = execute(&store, &durable(name));
        permit.checkpoint(secret(&format!("of-{name}"), 300)).wait().unwrap();
        give_up(&store, permit);
    }
    put_live(&store, 3, 20_000);
    let in_flight = execute(&store, &operation("in-flight"));
    forget(&store, "hushed");
    assert!(is_somewhere(&home, "<of-hushed>"));
    purge(&store);
    assert_eq!(holding(&home, "hushed"), [""; 0]);
    in_flight.complete(&response("done")).wait().unwrap();
    drop(store);
    let store = home.open();
    let attempt = interrupted(&store, &durable("claimed"));
    assert_eq!(attempt.checkpoints(), [secret("of-claimed", 300).as_bytes()]);
    assert_eq!(replayed(&store, "in-flight").as_deref(), Some("done"));
    run(&store, "hushed");
}

#[test]
fn p5_p16_damaged_keys_stay_damaged() {
    let home = Home::new();
    let store = home.open();
    put_live(&store, 10, 20_000);
    put_secret(&store, "hushed", 20_000);
    put_secret(&store, "hit", 20_000);
    put_secret(&store, "too", 20_000);
    let log = home.file(&holding(&home, "<hit>")[0]);
    let bytes = fs::read(&log).unwrap();
    let at = bytes.windows(5).position(|bytes| bytes == b"<hit>").unwrap();
    flip(&log, at + 1000);
    seal(&store, &home);
    assert_eq!(store.stats().damaged_records, 1);
    forget(&store, "hushed");
    purge(&store);
    assert_eq!(holding(&home, "hushed"), [""; 0]);
    let expect = |store: &Store| {
        let hit = store.begin(&operation("hit")).wait();
        assert!(matches!(hit, Err(Error::Corrupt { .. })), "{hit:?}");
        assert_eq!(store.stats().damaged_records, 1);
        expect_live(store, 10, 20_000);
    };
    expect(&store);
    // Again, and through a merge.
    for n in 0..8 {
        run(&store, &format!("small-{n}"));
        seal(&store, &home);
    }
    purge(&store);
    expect(&store);
    drop(store);
    let store = home.open();
    expect(&store);
    forget(&store, "hit");
    run(&store, "hit");
}

/// Otherwise each request of erasure would cost the whole store.
#[test]
fn files_that_hold_live_records_only_are_left_as_they_are() {
    let home = Home::new();
    let store = home.open();
    let sealed = |home: &Home| home.files(".redb");
    for n in 0..3 {
        put_secret(&store, &format!("hushed-{n}"), 20_000);
        put_secret(&store, &format!("live-{n}"), 20_000);
        seal(&store, &home);
    }
    purge(&store);
    let before = sealed(&home);
    purge(&store);
    assert_eq!(sealed(&home), before);
    forget(&store, "hushed-1");
    purge(&store);
    let after = sealed(&home);
    let same = before.iter().filter(|file| after.contains(file)).count();
    assert_eq!((before.len(), after.len(), same), (3, 3, 2));
    assert_eq!(holding(&home, "hushed-1"), [""; 0]);
    assert_eq!(holding(&home, "<hushed-2>").len(), 1);
    expect_live(&store, 3, 20_000);
}

#[test]
fn p11_p16_a_purge_on_a_full_disk_says_so_and_loses_nothing() {
    let gate = Arc::new(Gate::default());
    let store = small(Store::builder()).open_on(Arc::clone(&gate) as Arc<dyn Disk>).unwrap();
    put_live(&store, 10, 20_000);
    put_secret(&store, "hushed", 20_000);
    forget(&store, "hushed");
    let (full, quota) = (State::Failing(Errno::NOSPC), State::Failing(Errno::DQUOT));
    let trials = [(full, State::Open), (State::Open, full), (quota, quota)];
    for (n, (segments, logs)) in trials.into_iter().enumerate() {
        gate.set_segments(segments);
        gate.set_logs(logs);
        let purged = store.purge().wait();
        assert!(matches!(purged, Err(Error::Io { .. })), "{purged:?}");
        gate.set_segments(State::Open);
        gate.set_logs(State::Open);
        expect_live(&store, 10, 20_000);
        assert_eq!(replayed(&store, "hushed"), None);
        run(&store, &format!("new-{n}"));
        store.verify().unwrap();
    }
    purge(&store);
    expect_live(&store, 10, 20_000);
    store.verify().unwrap();
    let disk = &*gate;
    for name in disk.names().unwrap() {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        assert!(!bytes.windows(8).any(|bytes| bytes == b"<hushed>"), "{name}");
    }
}

/// The records that each of the threads commits.
const RECORDS: usize = 40;

#[test]
fn p2_p16_threads_commit_while_a_store_is_purged() {
    let home = Home::new();
    let store = home.builder().max_in_flight_per_scope(64).open(home.path()).unwrap();
    let names = |thread| (0..RECORDS).map(move |n| (format!("of-{thread}-{n}"), LENGTHS[n % 2]));
    let commit = |thread| {
        let store = store.clone();
        let commit =
            move || names(thread).for_each(|(name, length)| put_secret(&store, &name, length));
        thread::Builder::new().spawn(commit).unwrap()
    };
    let threads: Vec<_> = (0..16).map(commit).collect();
    let mut rounds = 0;
    while rounds == 0 || !threads.iter().all(|thread| thread.is_finished()) {
        put_secret(&store, "hushed", LENGTHS[rounds % 2]);
        forget(&store, "hushed");
        purge(&store);
        assert_eq!(holding(&home, "<hushed>"), [""; 0], "round {rounds}");
        rounds += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let expect = |store: &Store| {
        for (name, length) in (0..16).flat_map(names) {
            assert!(replayed(store, &name) == Some(secret(&name, length)), "{name}");
        }
        store.verify().unwrap();
    };
    expect(&store);
    drop(store);
    expect(&home.open());
}

#[test]
fn p10_p16_a_purge_that_is_under_way_ends_with_the_store() {
    let gate = Arc::new(Gate::default());
    let store = small(Store::builder()).open_on(Arc::clone(&gate) as Arc<dyn Disk>).unwrap();
    put_live(&store, 10, 20_000);
    gate.set_segments(State::Held);
    let purging = store.purge();
    let later = store.purge();
    // Until it waits at the gate.
    while store.stats().logs < 2 {
        thread::yield_now();
    }
    let closing = {
        let store = store.clone();
        thread::Builder::new().spawn(move || store.close(HOUR).wait()).unwrap()
    };
    while !matches!(store.begin(&operation("x")).wait(), Err(Error::Stopped { .. })) {
        thread::yield_now();
    }
    gate.set_segments(State::Open);
    for purged in [purging.wait(), later.wait(), store.purge().wait()] {
        assert!(matches!(purged, Err(Error::Stopped { .. })), "{purged:?}");
    }
    closing.join().unwrap().unwrap();
    drop(store);
    let store = small(Store::builder()).open_on(Arc::clone(&gate) as Arc<dyn Disk>).unwrap();
    expect_live(&store, 10, 20_000);
    purge(&store);
    expect_live(&store, 10, 20_000);
    let Outcome::Execute(_) = begin(&store, &operation("x")) else { panic!("it never ran") };
}
