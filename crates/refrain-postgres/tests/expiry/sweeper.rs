//! Key rows: swept in batches, by one node at a time, and never under a claim.

use std::time::Duration;

use crate::kit::room::{DAY, Room, address, execute, operation, replayed, response, until};
use crate::kit::server::runtime;
use crate::{TTL, hold_duty, is_free, keys, pass_time, record};

/// More than two batches.
const MANY: i64 = 1_200;

/// Rows of keys whose records are over, as many as a day leaves behind.
fn fill(room: &Room, count: i64) {
    room.run(&format!(
        "INSERT INTO SCHEMA.key (address, attempt, session, sweep, slot, state, expires_at, \
         fingerprint, request_id) \
         SELECT gen_random_uuid(), gen_random_uuid(), 1, 0, 0, 3, \
         statement_timestamp() - interval '1 minute', '', 'req' FROM generate_series(1, {count})"
    ));
}

#[test]
fn a_record_is_replayed_for_its_ttl_and_then_runs_again() {
    let room = Room::with_ttl(DAY);
    let store = room.open("this");
    record(&store, "over");
    assert!(!is_free(&store, "over"));
    pass_time(&room, DAY);
    assert!(is_free(&store, "over"));
}

#[test]
fn a_record_ends_by_the_clock_of_the_database() {
    let room = Room::with_ttl(TTL);
    let store = room.open("this");
    record(&store, "over");
    until("the record is over", || is_free(&store, "over"));
    assert!(room.ask::<bool>("SELECT count(*) = 0 FROM SCHEMA.key WHERE state = 3"));
}

#[test]
fn all_that_is_over_is_swept_however_much_it_is() {
    let room = Room::with_ttl(DAY);
    let store = room.open("this");
    hold_duty(&room);
    fill(&room, MANY);
    record(&store, "live");
    let running = execute(&store, &operation("running"));
    store.reap().unwrap();
    assert_eq!(keys(&room), 2);
    assert_eq!(replayed(&store, &operation("live")), "live");
    running.complete(&response("running")).wait().unwrap();
}

#[test]
fn what_a_dead_node_held_is_swept_and_an_interrupted_run_only_when_it_is_over() {
    let room = Room::with_ttl(DAY);
    let (store, dead) = (room.open("this"), room.open("dead"));
    hold_duty(&room);
    let (volatile, durable) =
        (execute(&dead, &operation("volatile")), execute(&dead, &operation("durable").durable()));
    room.run("UPDATE SCHEMA.session SET dead = true WHERE node = 'dead'");
    // The rows are looked at once their slot has passed.
    room.run("UPDATE SCHEMA.key SET sweep = 0");
    store.reap().unwrap();
    assert_eq!(keys(&room), 1);
    pass_time(&room, DAY);
    store.reap().unwrap();
    assert_eq!(keys(&room), 0);
    drop((volatile, durable));
}

/// A run that goes on past its TTL is nobody else's.
#[test]
fn a_run_of_a_living_node_is_never_swept() {
    let room = Room::with_ttl(DAY);
    let store = room.open("this");
    hold_duty(&room);
    let volatile = execute(&store, &operation("volatile"));
    let durable = execute(&store, &operation("durable").durable());
    pass_time(&room, 2 * DAY);
    store.reap().unwrap();
    assert_eq!(keys(&room), 2);
    volatile.complete(&response("volatile")).wait().unwrap();
    durable.complete(&response("durable")).wait().unwrap();
    assert_eq!(replayed(&store, &operation("volatile")), "volatile");
}

/// After an outage of a day, the first node that came back deleted the sessions of all others.
#[test]
fn a_session_goes_a_day_after_its_lease_once_a_node_may_say_that_it_is_dead() {
    let room = Room::with_ttl(DAY);
    // It may not say so before it has had a lease of its own for an hour.
    let new = runtime()
        .block_on(room.builder().lease(Duration::from_secs(60 * 60)).connect(&address()))
        .unwrap();
    hold_duty(&room);
    room.run(
        "INSERT INTO SCHEMA.session (id, node, lease_until, dead) \
         SELECT -row_number() OVER (), name, statement_timestamp() - since, dead \
         FROM (VALUES ('dead', interval '25 hours', true), ('silent', '25 hours', false), \
         ('dead_today', '23 hours', true), ('silent_today', '23 hours', false)) \
         AS s(name, since, dead)",
    );
    let left = || {
        room.ask::<String>(
            "SELECT coalesce(string_agg(node, ' ' ORDER BY node), '') FROM SCHEMA.session \
             WHERE id < 0",
        )
    };
    new.reap().unwrap();
    assert_eq!(left(), "dead_today silent silent_today");
    let steady = runtime()
        .block_on(room.builder().lease(Duration::from_millis(300)).connect(&address()))
        .unwrap();
    until("the silent one is gone", || {
        steady.reap().unwrap();
        left() == "dead_today silent_today"
    });
}

/// The sweep reads rows, the key is claimed again, and the sweep deletes: shown against a published
/// store, whose new holder's row was gone.
#[test]
fn a_row_that_is_claimed_again_before_its_deletion_survives() {
    let room = Room::with_ttl(DAY);
    let (store, sweeper) = (room.open("this"), room.open("sweeper"));
    hold_duty(&room);
    for (name, is_durable) in [("volatile", false), ("durable", true)] {
        record(&store, name);
        // And its slot with it.
        pass_time(&room, 2 * DAY);
        let client = crate::kit::room::client();
        // Between the two statements of the sweep stands a lock on the row that it has read.
        crate::kit::server::runtime().block_on(async {
            let lock = room.sql("BEGIN; SELECT FROM SCHEMA.key WHERE state = 3 FOR UPDATE");
            client.batch_execute(&lock).await.unwrap();
        });
        let sweep = {
            let sweeper = sweeper.clone();
            std::thread::Builder::new().spawn(move || sweeper.reap()).unwrap()
        };
        until("the sweep waits for the row", || {
            room.ask(
                "SELECT count(*) > 0 FROM pg_stat_activity \
                 WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM%SCHEMA%'",
            )
        });
        // Claimed again, under another attempt; the claim commits before the deletion goes on.
        let (state, over) = if is_durable {
            (1, "statement_timestamp() - interval '1 minute'")
        } else {
            (0, "NULL")
        };
        let claimed = room.sql(&format!(
            "UPDATE SCHEMA.key SET attempt = gen_random_uuid(), state = {state}, \
             expires_at = {over}, session = (SELECT max(id) FROM SCHEMA.session) WHERE state = 3; \
             COMMIT"
        ));
        crate::kit::server::runtime().block_on(client.batch_execute(&claimed)).unwrap();
        sweep.join().unwrap().unwrap();
        assert_eq!(keys(&room), 1, "{name}");
        room.run("DELETE FROM SCHEMA.key");
    }
    // The same by the address alone: a record that was made anew has another attempt.
    record(&store, "anew");
    pass_time(&room, DAY);
    record(&store, "anew");
    sweeper.reap().unwrap();
    assert_eq!(replayed(&store, &operation("anew")), "anew");
}

/// Notes what becomes of the row of the duty: when it was taken, by whom, and until when.
fn note_rounds(room: &Room) {
    room.run(
        "CREATE TABLE SCHEMA.round (at timestamptz, held_until timestamptz, node text); \
         CREATE FUNCTION SCHEMA.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO SCHEMA.round VALUES (statement_timestamp(), NEW.held_until, \
         current_setting('application_name')); RETURN NULL; END $$; \
         CREATE TRIGGER note AFTER INSERT OR UPDATE ON SCHEMA.duty \
         FOR EACH ROW EXECUTE FUNCTION SCHEMA.note()",
    );
}

#[test]
fn one_node_sweeps_at_a_time() {
    let room = Room::with_ttl(TTL);
    note_rounds(&room);
    let nodes: Vec<_> = (0..4)
        .map(|n| {
            let address = format!("{}&application_name=node_{n}", crate::kit::room::address());
            crate::kit::server::runtime().block_on(room.builder().connect(&address)).unwrap()
        })
        .collect();
    until("several rounds have passed", || room.ask("SELECT count(*) >= 5 FROM SCHEMA.round"));
    drop(nodes);
    let overlapping: i64 = room.ask(
        "SELECT count(*) FROM (SELECT at, lag(held_until) OVER (ORDER BY at) AS held \
         FROM SCHEMA.round) r WHERE at < held",
    );
    assert_eq!(overlapping, 0);
}

/// Another node swept at the same time where a sweep took longer than a pause.
#[test]
fn a_long_sweep_renews_its_duty_between_its_batches() {
    let room = Room::with_ttl(TTL);
    note_rounds(&room);
    fill(&room, MANY);
    let store = room.open("this");
    until("all of it is swept", || keys(&room) == 0);
    let (renewed, later): (bool, bool) = (
        room.ask("SELECT count(*) >= 3 FROM SCHEMA.round"),
        room.ask(
            "SELECT bool_and(held > before) FROM (SELECT held_until AS held, \
             lag(held_until) OVER (ORDER BY at) AS before FROM SCHEMA.round) r \
             WHERE before IS NOT NULL",
        ),
    );
    assert!(renewed && later);
    store.close(Duration::from_secs(1)).wait().unwrap();
}

/// It was gone after the next round, though another node had that one.
#[test]
fn the_trouble_of_a_sweep_is_told_until_the_node_sweeps_again() {
    let room = Room::with_ttl(TTL);
    fill(&room, 10);
    room.run(
        "CREATE FUNCTION SCHEMA.refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE 'not now'; END $$; \
         CREATE TRIGGER refuse BEFORE DELETE ON SCHEMA.key \
         FOR EACH ROW EXECUTE FUNCTION SCHEMA.refuse()",
    );
    let store = room.open("this");
    let trouble = || store.stats().last_trouble;
    until("a sweep fails", || trouble().is_some_and(|told| told.contains("not now")));
    // From now on another node has the duty.
    room.run("UPDATE SCHEMA.duty SET held_until = statement_timestamp() + interval '5 minutes'");
    let asked = "SELECT idx_scan FROM pg_stat_user_tables \
                 WHERE schemaname = 'SCHEMA' AND relname = 'duty'";
    let before: i64 = room.ask(asked);
    until("the sweeper has asked for its turn", || room.ask::<i64>(asked) >= before + 3);
    assert!(trouble().is_some());
    room.run(
        "DROP TRIGGER refuse ON SCHEMA.key; \
         UPDATE SCHEMA.duty SET held_until = statement_timestamp()",
    );
    until("a sweep succeeds", || trouble().is_none());
    assert_eq!(keys(&room), 0);
}

#[test]
fn a_node_whose_turn_it_is_not_sweeps_nothing() {
    let room = Room::with_ttl(TTL);
    hold_duty(&room);
    fill(&room, 10);
    let store = room.open("this");
    // It has asked for the duty, and was not given it.
    until("the sweeper has asked for its turn", || {
        room.ask(
            "SELECT n_tup_ins = 1 AND n_tup_upd = 0 AND idx_scan >= 3 \
             FROM pg_stat_user_tables WHERE schemaname = 'SCHEMA' AND relname = 'duty'",
        )
    });
    assert_eq!(keys(&room), 10);
    room.run("UPDATE SCHEMA.duty SET held_until = statement_timestamp()");
    until("its turn has come", || keys(&room) == 0);
    store.close(Duration::from_secs(1)).wait().unwrap();
}

#[test]
fn a_turn_that_was_taken_while_the_clock_was_ahead_keeps_nobody_from_sweeping() {
    let room = Room::with_ttl(TTL);
    let store = room.open("this");
    room.run(
        "INSERT INTO SCHEMA.duty VALUES ('sweep', statement_timestamp() + interval '1 hour') \
         ON CONFLICT (name) DO UPDATE SET held_until = excluded.held_until",
    );
    record(&store, "over");
    until("it is swept", || keys(&room) == 0);
}
