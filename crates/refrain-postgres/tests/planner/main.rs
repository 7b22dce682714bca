//! The trap of the generic plan: a statement that was planned while its tables were empty, and
//! reads all of them for ever.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../kit/mod.rs"]
mod kit;

mod pooler;

use std::time::Duration;

use refrain::{Outcome, Store};

use kit::room::{DAY, Room, execute, operation, response};
use kit::server::{Server, runtime};

/// Keys of a table that has grown.
const GROWN: i64 = 200_000;
/// Requests at once: enough for lanes of batches beside single statements.
const AT_ONCE: usize = 200;

#[test]
fn a_table_that_has_grown_is_read_by_its_index() {
    for is_analyzed in [true, false] {
        grown(false, is_analyzed);
    }
}

#[test]
fn a_table_that_has_grown_is_read_by_its_index_if_statements_are_not_prepared() {
    for is_analyzed in [true, false] {
        grown(true, is_analyzed);
    }
}

fn grown(is_pooled: bool, is_analyzed: bool) {
    let room = Room::with_ttl(DAY);
    let address = Server::shared().address().replace("refrain@", &format!("{}@", role(&room)));
    let builder = room.builder().pooler(is_pooled).patience(Duration::from_secs(10));
    let store = runtime().block_on(builder.connect(&address)).unwrap();
    holds_when_grown(&room, &store, is_analyzed);
}

/// A role of the room's own, which tells its connections from those of other tests.
fn role(room: &Room) -> String {
    room.run("CREATE ROLE SCHEMA LOGIN SUPERUSER");
    room.schema.clone()
}

/// Uses a store while it is small, lets it grow, and uses it again.
fn holds_when_grown(room: &Room, store: &Store, is_analyzed: bool) {
    // Known to be empty: of a table that it has never looked at, the planner expects ten pages.
    let bodies: String = (0..12).map(|slot| format!(", SCHEMA.body_{slot:02}")).collect();
    room.run(&format!("VACUUM ANALYZE SCHEMA.key{bodies}"));
    settle_plans(store);
    work(store, "small");
    room.run(&format!(
        "INSERT INTO SCHEMA.key (address, attempt, session, sweep, slot, state, expires_at, \
         fingerprint, request_id) \
         SELECT gen_random_uuid(), gen_random_uuid(), 1, \
         (extract(epoch FROM statement_timestamp()) * 1000)::int8 / m.slot_ms + 100, 0, 3, \
         statement_timestamp() + interval '1 day', '', 'req' \
         FROM SCHEMA.meta m, generate_series(1, {GROWN})"
    ));
    // The one of bodies that expire in a day: others may be looked through by the sweeper.
    let slot = room.ask::<i64>(
        "SELECT ((extract(epoch FROM statement_timestamp()) * 1000)::int8 / slot_ms + 8) % 12 \
         FROM SCHEMA.meta",
    );
    room.run(&format!(
        "INSERT INTO SCHEMA.body_{slot:02} SELECT gen_random_uuid(), gen_random_uuid(), '', '', '' \
         FROM generate_series(1, {GROWN})"
    ));
    if is_analyzed {
        room.run(&format!("ANALYZE SCHEMA.key; ANALYZE SCHEMA.body_{slot:02}"));
    }
    // With the connections, and the plans, of the time when the table was small.
    work(store, "grown");
    store.interrupted(None, 10).wait().unwrap();
    store.reap().unwrap();
    // Small tables are read whole; one such look at all keys is one too many.
    let count = read(room);
    assert!(count < GROWN, "{count} rows were read without an index");
}

/// Repeats the statements of one request after the other, on tables that are next to empty, until
/// the server keeps one plan for all of them.
fn settle_plans(store: &Store) {
    for _ in 0..12 {
        let asked = operation("first");
        execute(store, &asked).complete(&response("first")).wait().unwrap();
        for _ in 0..2 {
            assert!(matches!(store.begin(&asked).wait().unwrap(), Outcome::Replay(_)));
        }
        store.forget(asked.scope(), asked.key()).wait().unwrap();
    }
}

/// Claims, completes and replays, many at once and one by one, with every kind of claim.
fn work(store: &Store, name: &str) {
    let all = |suffix: &str| -> Vec<_> {
        (0..AT_ONCE)
            .map(|n| match n % 4 {
                0 => operation(&format!("{name}_{n}_{suffix}")).durable(),
                _ => operation(&format!("{name}_{n}_{suffix}")),
            })
            .collect()
    };
    let operations = all("many");
    let begun: Vec<_> = operations.iter().map(|asked| store.begin(asked)).collect();
    let permits: Vec<_> = begun
        .into_iter()
        .map(|begin| match begin.wait().unwrap() {
            Outcome::Execute(permit) => permit,
            other => panic!("not to be executed: {other:?}"),
        })
        .collect();
    let completed: Vec<_> =
        permits.into_iter().map(|permit| permit.complete(&response(name))).collect();
    for record in completed {
        record.wait().unwrap();
    }
    let begun: Vec<_> = operations.iter().map(|asked| store.begin(asked)).collect();
    for begin in begun {
        assert!(matches!(begin.wait().unwrap(), Outcome::Replay(_)));
    }
    for asked in all("one").iter().take(8) {
        execute(store, asked).complete(&response(name)).wait().unwrap();
        assert!(matches!(store.begin(asked).wait().unwrap(), Outcome::Replay(_)));
        store.get(asked.scope(), asked.key()).wait().unwrap().unwrap();
    }
    let asked = operation(&format!("{name}_released"));
    execute(store, &asked).release().wait().unwrap();
    let asked = operation(&format!("{name}_interrupted"));
    execute(store, &asked).interrupt().wait().unwrap();
    let Outcome::Interrupted(attempt) = store.begin(&asked).wait().unwrap() else {
        panic!("not interrupted")
    };
    let mut permit = attempt.retry().wait().unwrap();
    permit.checkpoint("half").wait().unwrap();
    permit.complete(&response(name)).wait().unwrap();
    store.forget(asked.scope(), asked.key()).wait().unwrap();
}

/// The rows of the store's tables that were read without an index so far. A connection reports
/// what it has read when it ends, at the latest.
fn read(room: &Room) -> i64 {
    room.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'SCHEMA'",
    );
    room.ask(
        "SELECT coalesce(sum(seq_tup_read), 0)::int8 FROM pg_stat_user_tables \
         WHERE schemaname = 'SCHEMA' AND relname NOT IN ('session', 'duty', 'meta')",
    )
}
