//! P9: a record is replayed for its whole TTL, and never after it.

use std::time::{Duration, SystemTime};

use refrain::Store;
use refrain::clock::{Clock, Reading, SimulatedClock};

use crate::kit::*;

#[test]
fn p9_steps_of_the_wall_clock_change_nothing_while_the_machine_is_up() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    home.clock.set_wall(Duration::from_secs(4_000_000_000));
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    drop(store);
    let store = home.open();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"), "over a restart");
    home.clock.set_wall(Duration::ZERO);
    home.clock.advance(DAY);
    assert_eq!(replayed(&store, "a"), None);
}

#[test]
fn p9_a_reboot_lets_the_wall_clock_decide() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    drop(store);
    home.clock.reboot(DAY - HOUR);
    let store = home.open();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    drop(store);
    home.clock.reboot(HOUR);
    assert_eq!(replayed(&home.open(), "a"), None);
}

/// A clock 30 years ahead made every key run again, and its records were gone for good once it was
/// put right.
#[test]
fn p9_a_clock_that_jumped_over_a_reboot_expires_and_deletes_nothing() {
    let home = Home::new();
    let right = home.clock.read().wall;
    let store = home.open();
    run(&store, "sealed");
    seal(&store, &home);
    run(&store, "logged");
    drop(store);
    home.clock.reboot(30 * 365 * DAY);
    let store = home.open();
    let replayed_both = |store: &Store| {
        store.reap().unwrap();
        for name in ["sealed", "logged"] {
            assert_eq!(replayed(store, name).as_deref(), Some(name));
        }
    };
    assert!(store.stats().clock_jump.unwrap() >= 29 * 365 * DAY);
    replayed_both(&store);
    drop(store);
    let store = home.open();
    replayed_both(&store);
    let completed = run(&store, "new").completed_at();
    assert!(completed < SystemTime::UNIX_EPOCH + right + DAY, "{completed:?}");
    home.clock.set_wall(right + HOUR);
    drop(store);
    let store = home.open();
    replayed_both(&store);
    drop(store);
    home.clock.reboot(HOUR);
    let store = home.open();
    assert_eq!(store.stats().clock_jump, None, "it was put right");
    replayed_both(&store);
    home.clock.advance(DAY);
    store.reap().unwrap();
    for name in ["sealed", "logged", "new"] {
        assert_eq!(replayed(&store, name), None);
    }
}

#[test]
fn p9_the_report_of_a_jump_ends_when_the_clock_is_put_right() {
    let home = Home::new();
    let right = home.clock.read().wall;
    drop(home.open());
    home.clock.reboot(30 * DAY);
    let store = home.open();
    assert!(store.stats().clock_jump.is_some());
    home.clock.set_wall(right + Duration::from_secs(30));
    assert_eq!(store.stats().clock_jump, None);
}

#[test]
fn p9_a_longer_downtime_counts_where_it_is_trusted() {
    let home = Home::new();
    run(&home.open(), "a");
    home.clock.reboot(30 * DAY);
    let store = home.builder().trusted_downtime(30 * DAY).open(home.path()).unwrap();
    assert_eq!(store.stats().clock_jump, None);
    assert_eq!(replayed(&store, "a"), None);
}

/// The store wrote nothing while it was idle, and the reboot took the idle time for downtime.
#[test]
fn p9_a_store_that_was_idle_for_long_knows_a_short_downtime() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    for _ in 0..30 {
        home.clock.advance(DAY);
        store.reap().unwrap();
    }
    drop(store);
    home.clock.reboot(DAY);
    let store = home.open();
    assert_eq!(store.stats().clock_jump, None);
    assert_eq!(replayed(&store, "a"), None);
}

/// A clock that does not know in which boot it reads, as a process to which `/proc/sys` is hidden.
#[derive(Clone, Debug)]
struct Hidden(SimulatedClock);

impl Clock for Hidden {
    fn read(&self) -> Reading {
        Reading { boot_id: Reading::UNKNOWN_BOOT, ..self.0.read() }
    }
}

/// Each process counted as a boot of its own, so a step of the wall clock between two processes
/// made every key run again, and nothing told the operator.
#[test]
fn p9_a_step_of_the_wall_clock_in_an_unknown_boot_expires_nothing_and_is_reported() {
    let home = Home::new();
    let open =
        || small(Store::builder()).clock(Hidden(home.clock.clone())).open(home.path()).unwrap();
    let store = open();
    run(&store, "a");
    drop(store);
    let wall = home.clock.read().wall;
    for off in [25 * HOUR, 400 * DAY] {
        for wall in [wall + off, wall - off] {
            home.clock.set_wall(wall);
            let store = open();
            let stats = store.stats();
            assert!(stats.boot_unknown && stats.clock_jump.is_some(), "{stats:?}");
            assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
        }
    }
    home.clock.set_wall(wall);
    drop(open());
    home.clock.advance(DAY);
    let store = open();
    assert_eq!(store.stats().clock_jump, None);
    assert_eq!(replayed(&store, "a"), None);
    drop(store);
    assert!(!home.open().stats().boot_unknown);
}

/// Some kernels give every boot the same id.
#[test]
fn p9_a_reboot_under_the_same_boot_id_is_reported_if_the_clocks_disagree() {
    #[derive(Clone, Debug)]
    struct Same(SimulatedClock);
    impl Clock for Same {
        fn read(&self) -> Reading {
            Reading { boot_id: [7; 16], ..self.0.read() }
        }
    }
    let home = Home::new();
    let open =
        || small(Store::builder()).clock(Same(home.clock.clone())).open(home.path()).unwrap();
    run(&open(), "a");
    home.clock.reboot(20 * HOUR);
    let store = open();
    assert_eq!(store.stats().clock_jump, None);
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    drop(store);
    home.clock.reboot(30 * HOUR);
    // As long up as before: the wall clock may as well have been set.
    home.clock.advance(HOUR);
    let store = open();
    assert!(store.stats().clock_jump.unwrap() >= 30 * HOUR);
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}

#[test]
fn expired_segments_are_dropped_without_a_write_to_the_log() {
    let home = Home::new();
    let store = home.open();
    for n in 0..100 {
        run(&store, &format!("key-{n}"));
    }
    seal(&store, &home);
    let before = store.stats();
    assert_eq!((before.segments, before.segment_records), (1, 100));
    assert_eq!(replayed(&store, "key-1").as_deref(), Some("key-1"));
    assert_eq!(store.stats().segment_lookups, before.segment_lookups + 1);
    assert_eq!(home.files(".redb").len(), 1);
    home.clock.advance(DAY);
    store.reap().unwrap();
    let after = store.stats();
    assert_eq!((after.segments, after.segments_dropped, after.batches), (0, 1, before.batches));
    assert_eq!(home.files(".redb").len(), 0);
    assert_eq!(replayed(&store, "key-1"), None);
}

#[test]
fn an_idle_store_seals_its_log_and_then_drops_it() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    let bound = 50;
    for hours in 1.. {
        seal(&store, &home);
        let stats = store.stats();
        if hours < 24 {
            assert_eq!(replayed(&store, "a").as_deref(), Some("a"), "after {hours} hours");
        }
        if stats.segments == 0 && stats.log_records == 0 {
            break;
        }
        assert!(hours < bound, "still there: {stats:?}");
    }
}

#[test]
fn p4_a_key_reused_after_expiry_survives_the_dropping_of_its_first_life() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    seal(&store, &home);
    home.clock.advance(DAY);
    run(&store, "a");
    store.reap().unwrap();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    drop(store);
    assert_eq!(replayed(&home.open(), "a").as_deref(), Some("a"));
}
