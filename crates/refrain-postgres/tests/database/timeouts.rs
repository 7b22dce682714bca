//! A `statement_timeout` that somebody has set for the servers' role, and transactions that keep
//! them waiting.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::client::CALL;
use crate::kit::server::{Server as Database, connect};
use crate::load::{assert_outcome_unknown, assert_tables_hold, assert_unavailable};
use crate::node::{PAUSE, within};
use crate::server::Home;

fn home(role: &str) -> Home {
    let database = Database::shared();
    database.run(&format!("CREATE ROLE {role} LOGIN SUPERUSER"));
    Home::over(database.address().replace("refrain@", &format!("{role}@")))
}

/// Sets the timeout once the servers are there, since a schema takes its time.
fn make_hasty(role: &str) {
    let database = Database::shared();
    database.run(&format!("ALTER ROLE {role} SET statement_timeout = '200ms'"));
    database.run(&format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{role}'"
    ));
}

/// Has a transaction of somebody else's keep what a statement names, until the client is dropped.
async fn keep(home: &Home, statement: &str) -> Client {
    let client = connect(Database::shared().port).await.unwrap();
    let statement = statement.replace("SCHEMA", &home.schema());
    client.batch_execute(&format!("BEGIN; {statement}")).await.unwrap();
    client
}

/// Waits until the handler has done its work.
async fn until_acted(home: &Home) {
    within(async {
        while home.effects().is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
}

/// Waits until a statement of a role waits for a lock, after another of its statements has timed
/// out.
async fn until_kept_waiting(role: &str) {
    let waits = format!(
        "SELECT min(query_start)::text FROM pg_stat_activity \
         WHERE usename = '{role}' AND wait_event_type = 'Lock'"
    );
    let client = connect(Database::shared().port).await.unwrap();
    let mut seen = BTreeSet::new();
    within(async {
        while seen.len() < 2 {
            let row = client.query_one(&waits, &[]).await.unwrap();
            seen.extend(row.get::<_, Option<String>>(0));
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
}

/// The run of a handler that is seen to run.
const LONG: [&str; 4] = ["--latency", "1s", "--wait", "1ms"];

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_times_out_is_tried_again_until_its_row_is_free() {
    let home = home("hasty_record");
    let (first, second) = (home.node(&LONG), home.node(&[]));
    make_hasty("hasty_record");
    let client = first.hold("key", "first-1").await;
    let kept = keep(&home, "SELECT FROM SCHEMA.key FOR UPDATE").await;
    until_acted(&home).await;
    until_kept_waiting("hasty_record").await;
    drop(kept);
    let answer = within(client).await.unwrap().unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(second.place("key", CALL).await.body, answer.body);
    assert_eq!(home.effects(), ["first-1"]);
    assert_tables_hold(&home, Database::shared().port, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_times_out_for_long_is_unknown_and_recorded_in_the_end() {
    let home = home("hasty_answer");
    let (first, second) = (home.node(&LONG), home.node(&[]));
    make_hasty("hasty_answer");
    let client = first.hold("key", "first-1").await;
    let kept = keep(&home, "SELECT FROM SCHEMA.key FOR UPDATE").await;
    assert_outcome_unknown(&within(client).await.unwrap().unwrap());
    drop(kept);
    let retries = [second.place("key", CALL).await, first.place("key", CALL).await];
    assert!(retries.iter().all(|retry| retry.is_replay()), "{retries:?}");
    assert_eq!(retries[0].body, retries[1].body);
    assert_eq!(home.effects(), ["first-1"]);
    assert_tables_hold(&home, Database::shared().port, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_times_out_runs_nothing_and_leaves_nothing() {
    let home = home("hasty_claim");
    let servers = [home.node(&[]), home.node(&[])];
    make_hasty("hasty_claim");
    let kept = keep(&home, "LOCK TABLE SCHEMA.key IN SHARE MODE").await;
    for answer in crate::load::place_at_all(&servers, "key").await {
        assert_unavailable(&answer);
    }
    drop(kept);
    let answer = servers[0].place("key", CALL).await;
    assert_eq!(answer.status, 201);
    assert!(servers[1].place("key", CALL).await.is_replay());
    assert_eq!(home.effects(), [answer.request_id()]);
    assert_tables_hold(&home, Database::shared().port, 1).await;
}
