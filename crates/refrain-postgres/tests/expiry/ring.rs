//! The ring of body tables.

use std::time::Duration;

use crate::kit::room::{DAY, Room, client, operation, replayed, until};
use crate::kit::server::runtime;
use crate::{TTL, bodies, hold_duty, keys, record};

/// The longest that anything may wait for a table that is to be truncated: less than the lock
/// timeout of a connection.
const SOON: Duration = Duration::from_secs(3);

/// The slots whose records may be live, by the database's clock: from the one that is passing to
/// the one after a TTL from now.
const LIVE: &str = "SELECT array_agg((slot % 12)::int4) FROM SCHEMA.meta m, generate_series( \
    (extract(epoch FROM statement_timestamp()) * 1000)::int8 / m.slot_ms, \
    ((extract(epoch FROM statement_timestamp()) * 1000)::int8 + m.retention_ms) / m.slot_ms + 1) \
    AS slot";

fn fill_all(room: &Room) {
    for slot in 0..12 {
        room.run(&format!(
            "INSERT INTO SCHEMA.body_{slot:02} \
             VALUES (gen_random_uuid(), gen_random_uuid(), '', '', '')"
        ));
    }
}

fn is_full(room: &Room, slot: i32) -> bool {
    room.ask(&format!("SELECT count(*) > 0 FROM SCHEMA.body_{slot:02}"))
}

#[test]
fn a_table_is_emptied_when_its_slot_has_passed_and_not_before() {
    let room = Room::with_ttl(DAY);
    let store = room.open("this");
    hold_duty(&room);
    fill_all(&room);
    let before: Vec<i32> = room.ask(LIVE);
    store.reap().unwrap();
    let after: Vec<i32> = room.ask(LIVE);
    for slot in 0..12 {
        // At the edge of a slot either is right.
        match (before.contains(&slot), after.contains(&slot)) {
            (true, true) => assert!(is_full(&room, slot), "{slot} is live"),
            (false, false) => assert!(!is_full(&room, slot), "{slot} has passed"),
            _ => {}
        }
    }
    assert!(before.len() < 12);
}

/// Whatever the retention, a TTL from now, a clock that a node has guessed and the slot that is
/// passing leave a table that is free.
#[test]
fn every_retention_leaves_a_table_to_empty() {
    let retentions = [1, 2, 7, 8, 9, 1_000, 8_000, 8_001, 60_000, 3_600_000, 366 * 86_400_000];
    for retention in retentions.map(Duration::from_millis) {
        let room = Room::with_ttl(retention);
        let live: Vec<i32> = room.ask(LIVE);
        assert!(live.len() < 12, "{retention:?}: {live:?}");
    }
}

#[test]
fn records_and_their_bodies_are_gone_a_while_after_their_ttl() {
    let room = Room::with_ttl(TTL);
    let store = room.open("this");
    for n in 0..20 {
        record(&store, &format!("n{n}"));
    }
    assert_eq!((keys(&room), bodies(&room)), (20, 20));
    // By the sweeper itself.
    until("keys and bodies are gone", || (keys(&room), bodies(&room)) == (0, 0));
    assert_eq!(store.stats().last_trouble, None);
}

/// A lock that waits holds up all locks that are asked for after it.
#[test]
fn a_transaction_on_a_table_that_has_passed_holds_up_nobody() {
    let room = Room::with_ttl(DAY);
    let store = room.open("this");
    hold_duty(&room);
    fill_all(&room);
    let live: Vec<i32> = room.ask(LIVE);
    let passed = (0..12).find(|slot| !live.contains(slot)).unwrap();
    let long = client();
    let read = room.sql(&format!("BEGIN; SELECT FROM SCHEMA.body_{passed:02}"));
    runtime().block_on(long.batch_execute(&read)).unwrap();

    runtime().block_on(async {
        let reaps = async {
            for _ in 0..10 {
                let store = store.clone();
                tokio::task::spawn_blocking(move || store.reap()).await.unwrap().unwrap();
            }
        };
        let calls = async {
            for n in 0..50 {
                let store = store.clone();
                let call = tokio::task::spawn_blocking(move || {
                    let name = format!("n{n}");
                    record(&store, &name);
                    assert_eq!(replayed(&store, &operation(&name)), name);
                });
                tokio::time::timeout(SOON, call).await.expect("nobody waits").unwrap();
            }
        };
        tokio::join!(reaps, calls);
    });
    assert!(is_full(&room, passed));
    runtime().block_on(long.batch_execute("COMMIT")).unwrap();
    store.reap().unwrap();
    assert!(!is_full(&room, passed));
}

/// All connections of the store that were idle were closed, round after round.
#[test]
fn a_table_that_cannot_be_locked_costs_no_connection() {
    let room = Room::with_ttl(DAY);
    let address = format!("{}&application_name={}", crate::kit::room::address(), room.schema);
    let store = runtime().block_on(room.builder().connect(&address)).unwrap();
    hold_duty(&room);
    fill_all(&room);
    let long = client();
    let tables: Vec<String> = (0..12).map(|slot| format!("SCHEMA.body_{slot:02}")).collect();
    let lock = format!("BEGIN; LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "));
    runtime().block_on(long.batch_execute(&room.sql(&lock))).unwrap();
    record(&store, "first");
    let connections = || {
        room.ask::<Vec<i32>>(
            "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity \
             WHERE application_name = 'SCHEMA'",
        )
    };
    let before = connections();
    store.reap().unwrap();
    assert_eq!(connections(), before);
}

/// A table that is in use was locked for a moment, and commits waited.
#[test]
fn a_table_whose_records_are_live_is_never_locked() {
    let room = Room::with_ttl(DAY);
    let store = room.open("this");
    hold_duty(&room);
    let live: Vec<i32> = room.ask(LIVE);
    // Not at the edge of a slot.
    let slot = live[live.len() / 2];
    room.run(&format!(
        "INSERT INTO SCHEMA.body_{slot:02} VALUES (gen_random_uuid(), gen_random_uuid(), '', '', '')"
    ));
    let long = client();
    let read = room.sql(&format!("BEGIN; SELECT FROM SCHEMA.body_{slot:02}"));
    runtime().block_on(long.batch_execute(&read)).unwrap();
    let sweep = move || (0..20).try_for_each(|_| store.reap());
    let sweep = std::thread::Builder::new().spawn(sweep).unwrap();
    while !sweep.is_finished() {
        let is_awaited: bool = room.ask(
            "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' \
             AND relation IN (SELECT oid FROM pg_class \
             WHERE relnamespace = 'SCHEMA'::regnamespace)",
        );
        assert!(!is_awaited);
    }
    sweep.join().unwrap().unwrap();
}

/// A commit that is on its way has its table, and the record is there after it.
#[test]
fn a_commit_that_is_on_its_way_keeps_its_table() {
    let room = Room::with_ttl(DAY);
    let store = room.open("this");
    hold_duty(&room);
    let writer = client();
    let live: Vec<i32> = room.ask(LIVE);
    for slot in 0..12 {
        let write = room.sql(&format!(
            "BEGIN; INSERT INTO SCHEMA.body_{slot:02} \
             VALUES (gen_random_uuid(), gen_random_uuid(), '', '', '')"
        ));
        runtime().block_on(writer.batch_execute(&write)).unwrap();
        store.reap().unwrap();
        runtime().block_on(writer.batch_execute("COMMIT")).unwrap();
        assert!(is_full(&room, slot));
        store.reap().unwrap();
        assert_eq!(is_full(&room, slot), live.contains(&slot), "{slot}");
    }
}

/// A clock that was ahead for a while left records in slots of time that no node of now would name.
#[test]
fn a_table_with_live_records_stays_whatever_the_clock_says_of_its_slot() {
    let room = Room::with_ttl(DAY);
    let store = room.open("this");
    hold_duty(&room);
    record(&store, "ahead");
    let live: Vec<i32> = room.ask(LIVE);
    let slot = (0..12).find(|slot| !live.contains(slot)).unwrap();
    let own: i16 = room.ask("SELECT slot FROM SCHEMA.key");
    room.run(&format!(
        "INSERT INTO SCHEMA.body_{slot:02} SELECT * FROM SCHEMA.body_{own:02}; \
         DELETE FROM SCHEMA.body_{own:02}; \
         UPDATE SCHEMA.key SET slot = {slot}, expires_at = expires_at + interval '7 hours'"
    ));
    store.reap().unwrap();
    assert!(is_full(&room, slot));
    assert_eq!(replayed(&store, &operation("ahead")), "ahead");

    room.run("UPDATE SCHEMA.key SET expires_at = statement_timestamp()");
    store.reap().unwrap();
    assert!(!is_full(&room, slot));
}
