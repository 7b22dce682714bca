//! Nodes of one version over the schema of the next.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use refrain::{Outcome, Store};
use refrain_postgres::Error;
use tokio::time::Instant;

use crate::kit::room::{Room, address, client, execute, operation, replayed, response, until};
use crate::kit::server::{Server, runtime};
use crate::{connect, migrate};

/// A version 2 that only adds: a column to every table, and a table.
fn grow(room: &Room) {
    let bodies = (0..12).map(|slot| format!("body_{slot:02}"));
    let tables = ["meta", "session", "duty", "key"].map(str::to_owned).into_iter().chain(bodies);
    let added: String = tables
        .map(|table| {
            format!("ALTER TABLE SCHEMA.{table} ADD COLUMN added int4 NOT NULL DEFAULT 7; ")
        })
        .collect();
    let migration = format!(
        "BEGIN; SET LOCAL lock_timeout = '100ms'; {added} \
         CREATE TABLE SCHEMA.tenant (id uuid PRIMARY KEY); \
         UPDATE SCHEMA.meta SET version = 2; COMMIT"
    );
    until("the tables are free for a moment", || {
        let client = crate::kit::room::client();
        runtime().block_on(client.batch_execute(&room.sql(&migration))).is_ok()
    });
}

/// Claims, checkpoints, completes, replays, releases and interrupts.
fn serve(store: &Store, name: &str) {
    let key = |kind: &str| operation(&format!("{name}_{kind}"));
    execute(store, &key("volatile")).complete(&response("volatile")).wait().unwrap();
    let mut permit = execute(store, &key("durable").durable());
    permit.checkpoint("half").wait().unwrap();
    permit.complete(&response("durable")).wait().unwrap();
    execute(store, &key("released")).release().wait().unwrap();
    execute(store, &key("interrupted").durable()).interrupt().wait().unwrap();
    let Outcome::Interrupted(attempt) = store.begin(&key("interrupted").durable()).wait().unwrap()
    else {
        panic!("not interrupted");
    };
    attempt.retry().wait().unwrap().complete(&response("interrupted")).wait().unwrap();
    for kind in ["volatile", "durable", "interrupted"] {
        assert_eq!(replayed(store, &key(kind)), kind);
    }
}

#[test]
fn nodes_serve_on_while_the_next_version_adds_to_their_schema() {
    const ROUNDS: usize = 20;
    let room = Room::new();
    let nodes = [room.open("this"), room.open("other")];
    let (rounds, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let serving: Vec<_> = ["this", "other"]
            .iter()
            .zip(&nodes)
            .map(|(name, node)| {
                let (rounds, is_over) = (&rounds, &is_over);
                scope.spawn(move || {
                    for round in 0.. {
                        serve(node, &format!("{name}_{round}"));
                        rounds.fetch_add(1, Ordering::Relaxed);
                        if is_over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                })
            })
            .collect();
        let served = |more: usize| {
            let until_now = rounds.load(Ordering::Relaxed);
            until("the nodes serve", || {
                rounds.load(Ordering::Relaxed) >= until_now + more
                    || serving.iter().any(|node| node.is_finished())
            });
        };
        served(ROUNDS);
        grow(&room);
        served(ROUNDS);
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(rounds.load(Ordering::Relaxed) >= 2 * ROUNDS);
    // What was recorded before is replayed, by a node that starts afterwards too.
    let late = connect(&room).unwrap();
    for node in nodes.iter().chain([&late]) {
        assert_eq!(replayed(node, &operation("this_0_volatile")), "volatile");
    }
    serve(&late, "late");
    late.reap().unwrap();
    late.forget(crate::kit::room::scope(), operation("late_durable").key()).wait().unwrap();
    // The node of version 1 has nothing to migrate.
    migrate(&room).unwrap();
    assert_eq!(room.ask::<i32>("SELECT version FROM SCHEMA.meta"), 2);
}

#[test]
fn a_schema_that_no_longer_serves_this_version_is_refused() {
    let room = Room::new();
    // Whatever else becomes of the row.
    room.run(
        "ALTER TABLE SCHEMA.meta DROP COLUMN slot_ms; \
         UPDATE SCHEMA.meta SET version = 3, oldest_reader = 2",
    );
    for refused in [connect(&room).map(drop), migrate(&room)] {
        let error = refused.unwrap_err();
        let Error::Version { found, oldest_reader, supported, .. } = error else {
            panic!("not for its version: {error:?}");
        };
        assert_eq!((found, oldest_reader, supported), (3, 2, 1));
        let told = error.to_string();
        assert!(told.contains("version 2 to 3") && told.contains("is 1"), "{told}");
    }
}

/// It would have gone on with tables that are not its own any more, until it was started again.
#[test]
fn a_node_that_runs_takes_no_new_keys_once_the_schema_no_longer_serves_it() {
    let room = Room::new();
    let lease = Duration::from_millis(600);
    let address = format!("{}&application_name={}", address(), room.schema);
    let store = runtime().block_on(room.builder().lease(lease).connect(&address)).unwrap();
    let permit = execute(&store, &operation("running"));
    Server::shared().run(&room.sql("UPDATE SCHEMA.meta SET version = 2, oldest_reader = 2"));
    let mut tried = 0;
    until("no key is given any more", || {
        tried += 1;
        match store.begin(&operation(&format!("new_{tried}"))).wait() {
            Ok(Outcome::Execute(permit)) => {
                drop(permit);
                false
            }
            Err(refrain::Error::Unavailable { .. }) => true,
            other => panic!("neither given nor refused: {other:?}"),
        }
    });
    // Its session opened a new connection with every try to renew it.
    let client = client();
    let connections = room.sql(
        "SELECT coalesce(array_agg(pid ORDER BY pid), '{}') FROM pg_stat_activity \
         WHERE application_name = 'SCHEMA'",
    );
    let connected =
        || -> Vec<i32> { runtime().block_on(client.query_one(&connections, &[])).unwrap().get(0) };
    let (before, since) = (connected(), Instant::now());
    until("the session is renewed several times", || {
        assert_eq!(connected(), before);
        since.elapsed() > 2 * lease
    });
    // A run that began before may still record, because nobody has taken its key over.
    permit.complete(&response("running")).wait().unwrap();
}

/// A node of before, whose addresses are others, ran every key that a node of after had run.
#[test]
fn a_node_runs_nothing_in_a_schema_that_was_set_up_again() {
    let room = Room::new();
    let old = runtime()
        .block_on(room.builder().lease(Duration::from_millis(600)).connect(&address()))
        .unwrap();
    execute(&old, &operation("a")).complete(&response("before")).wait().unwrap();
    room.run("DROP schema SCHEMA CASCADE");
    runtime().block_on(room.builder().migrate(&address())).unwrap();
    let new = room.open("new");
    execute(&new, &operation("a")).complete(&response("after")).wait().unwrap();
    until("the node of before knows", || {
        old.stats().last_trouble.is_some_and(|trouble| trouble.contains("no longer this node's"))
    });
    for name in ["a", "b"] {
        let told = old.begin(&operation(name)).wait();
        assert!(matches!(told, Err(refrain::Error::Unavailable { .. })), "{told:?}");
    }
    assert_eq!(replayed(&new, &operation("a")), "after");
}
