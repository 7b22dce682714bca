//! P9: a record is replayed for its whole TTL, and never after it.

use std::time::Duration;

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

#[test]
fn a_clock_that_jumped_over_a_reboot_is_reported_and_deletion_waits() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    seal(&store, &home);
    drop(store);
    home.clock.reboot(30 * DAY);
    let store = home.open();
    assert!(store.stats().clock_jump.unwrap() >= 30 * DAY);
    store.reap().unwrap();
    assert_eq!(replayed(&store, "a"), None, "it has expired");
    assert_eq!(store.stats().segments, 1, "but it is kept");
    home.clock.advance(DAY);
    store.reap().unwrap();
    assert_eq!(store.stats().segments, 0);
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
