//! Expiry: what is over goes, what is live stays, and nobody waits for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod histories;
mod ring;
mod sweeper;

#[path = "../kit/mod.rs"]
mod kit;

use std::time::Duration;

use refrain::{Outcome, Store};

use kit::room::{Room, execute, operation, response};

/// The width of a slot is then a second, the least there is.
const TTL: Duration = Duration::from_secs(2);

/// Moves the past away by this much: the database's own clock cannot be set. The bodies' tables
/// stay, so that a whole turn of the ring passes with it.
fn pass_time(room: &Room, by: Duration) {
    let ms = by.as_millis();
    room.run(&format!(
        "UPDATE SCHEMA.key SET expires_at = expires_at - {ms} * interval '1 millisecond', \
         sweep = sweep - {ms} / (SELECT slot_ms FROM SCHEMA.meta)"
    ));
}

fn record(store: &Store, name: &str) {
    execute(store, &operation(name)).complete(&response(name)).wait().unwrap();
}

fn is_free(store: &Store, name: &str) -> bool {
    match store.begin(&operation(name)).wait().unwrap() {
        Outcome::Execute(permit) => {
            permit.release().wait().unwrap();
            true
        }
        Outcome::Replay(_) => false,
        other => panic!("neither free nor done: {other:?}"),
    }
}

fn keys(room: &Room) -> i64 {
    room.ask("SELECT count(*) FROM SCHEMA.key")
}

/// The number of bodies in all tables of the ring.
fn bodies(room: &Room) -> i64 {
    let counts: Vec<String> =
        (0..12).map(|slot| format!("(SELECT count(*) FROM SCHEMA.body_{slot:02})")).collect();
    room.ask(&format!("SELECT {}", counts.join(" + ")))
}

/// Keeps the stores' own sweepers away, so that only `reap` sweeps.
fn hold_duty(room: &Room) {
    room.run(
        "INSERT INTO SCHEMA.duty VALUES ('sweep', statement_timestamp() + interval '5 minutes')",
    );
}
