//! Servers that are killed, stopped and cut off while a handler runs. The journal of effects says
//! what ran.

use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::client::*;
use crate::kit::proxy::Proxy;
use crate::kit::server::Server as Database;
use crate::server::*;

/// The run of a handler that nobody lives to see the end of.
const ENDLESS: [&str; 4] = ["--latency", "1h", "--wait", "1ms"];
/// A run that ends well after its lease, which is 2 s.
const LONG: [&str; 4] = ["--latency", "5s", "--wait", "1ms"];
const STRICT: &str = "--strict";

/// Has a client place a call, and returns once its handler runs, under a claim that all can see.
async fn hold(home: &Home, server: &Door, request_id: &str) -> JoinHandle<Option<Answer>> {
    let client = server.hold("key", request_id).await;
    home.until_claimed("key").await;
    client
}

fn assert_interrupted(answer: &Answer, original: &str) {
    assert_eq!((answer.status.as_u16(), &*answer.code()), (409, "idempotency_interrupted"));
    assert_eq!(answer.field("interrupted_request_id").as_deref(), Some(original));
}

/// A client whose server's record was refused, because another server has the key: it is told to
/// come again, and has the other's answer.
fn assert_taken_over(answer: &Answer, ran: &Answer) {
    assert_eq!((answer.status, answer.is_replay()), (ran.status, true));
    assert_eq!(answer.body, ran.body);
}

#[tokio::test]
async fn a_killed_servers_key_runs_at_one_of_the_others() {
    let home = Home::new();
    let first = home.node(&ENDLESS);
    let (second, third) = (home.node(&[]), home.node(&[]));
    let client = hold(&home, &first, "killed-1").await;
    first.kill();
    assert!(within(client).await.unwrap().is_none(), "it was cut off");

    let retries = tokio::join!(second.place("key", CALL), third.place("key", CALL));
    let (ran, replayed) = match retries {
        (second, third) if second.is_replay() => (third, second),
        (second, third) => (second, third),
    };
    assert_eq!((ran.status.as_u16(), replayed.status.as_u16()), (201, 201));
    assert!(!ran.is_replay() && replayed.is_replay());
    assert_eq!(replayed.body, ran.body);
    assert_eq!(home.effects(), [ran.request_id()]);
}

#[tokio::test]
async fn a_killed_servers_key_is_in_progress_for_as_long_as_its_lease() {
    let home = Home::new();
    let first = home.node(&[&ENDLESS[..], &["--lease", "1h"]].concat());
    let second = home.node(&["--wait", "1ms"]);
    let _client = hold(&home, &first, "killed-1").await;
    first.kill();
    let retry = second.place("key", CALL).await;
    assert_eq!((retry.status.as_u16(), &*retry.code()), (409, "idempotency_in_progress"));
    assert_eq!(retry.field("in_progress_request_id").as_deref(), Some("killed-1"));
    assert_eq!(retry.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn in_the_strict_mode_a_killed_servers_key_is_interrupted_at_all_others() {
    let home = Home::new();
    let first = home.node(&[&ENDLESS[..], &[STRICT]].concat());
    let others = [home.node(&[STRICT]), home.node(&[STRICT])];
    let _client = hold(&home, &first, "killed-1").await;
    first.kill();
    for _ in 0..2 {
        for other in &others {
            assert_interrupted(&other.place("key", CALL).await, "killed-1");
            let conflict = other.place("key", OTHER_CALL).await;
            assert_eq!(conflict.field("conflicts_with").as_deref(), Some("killed-1"));
        }
    }
    assert!(home.journal().is_empty());
    // A server that runs again what was interrupted.
    let retry = home.node(&[]).place("key", CALL).await;
    assert_eq!(retry.status, 201);
    assert!(others[0].place("key", CALL).await.is_replay());
    assert_eq!(home.effects(), [retry.request_id()]);
}

/// Has a server act, and kills it before the database hears of it.
async fn act_and_be_killed(home: &Home, mode: &[&str]) {
    let network = Proxy::to(Database::shared().port);
    let first = home.node_behind(&network, &[&LONG[..], mode].concat());
    let client = hold(home, &first, "killed-1").await;
    network.cut();
    within(async {
        while home.journal().is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    first.kill();
    assert!(within(client).await.unwrap().is_none(), "it was cut off");
}

#[tokio::test]
async fn an_effect_that_was_not_recorded_is_repeated() {
    let home = Home::new();
    let second = home.node(&[]);
    act_and_be_killed(&home, &[]).await;
    let retry = second.place("key", CALL).await;
    assert_eq!(retry.status, 201);
    assert!(!retry.is_replay());
    assert_eq!(home.effects(), ["killed-1", retry.request_id()]);
}

#[tokio::test]
async fn in_the_strict_mode_an_effect_that_was_not_recorded_is_not_repeated() {
    let home = Home::new();
    let second = home.node(&[STRICT]);
    act_and_be_killed(&home, &[STRICT]).await;
    assert_interrupted(&second.place("key", CALL).await, "killed-1");
    assert_eq!(home.effects(), ["killed-1"]);
}

#[tokio::test]
async fn p17_a_stopped_server_cannot_record_what_another_has_taken_over() {
    let home = Home::new();
    let (first, second) = (home.node(&LONG), home.node(&[]));
    let client = hold(&home, &first, "stopped-1").await;
    first.signal(Signal::STOP);
    let ran = second.place("key", CALL).await;
    assert_eq!(ran.status, 201);
    assert!(!ran.is_replay());
    first.signal(Signal::CONT);

    assert_taken_over(&within(client).await.unwrap().unwrap(), &ran);
    assert_eq!(home.effects(), [ran.request_id(), "stopped-1"]);
    for server in [&first, &second] {
        let retry = server.place("key", CALL).await;
        assert!(retry.is_replay());
        assert_eq!(retry.body, ran.body);
    }
    assert_eq!(first.place("another-key", CALL).await.status, 201, "it serves again");
}

#[tokio::test]
async fn in_the_strict_mode_a_stopped_servers_key_stays_interrupted() {
    let home = Home::new();
    let (first, second) = (home.node(&[&LONG[..], &[STRICT]].concat()), home.node(&[STRICT]));
    let client = hold(&home, &first, "stopped-1").await;
    first.signal(Signal::STOP);
    assert_interrupted(&second.place("key", CALL).await, "stopped-1");
    first.signal(Signal::CONT);

    assert_interrupted(&within(client).await.unwrap().unwrap(), "stopped-1");
    for server in [&first, &second] {
        // Each request takes the key in order to judge it, and gives it back.
        let again = send_patiently(server.address, keyed("key", CALL));
        assert_interrupted(&within(again).await.unwrap(), "stopped-1");
    }
    assert_eq!(home.effects(), ["stopped-1"]);
}

#[tokio::test]
async fn a_stopped_server_records_what_nobody_has_taken_over() {
    let home = Home::new();
    let first = home.node(&LONG);
    let client = hold(&home, &first, "stopped-1").await;
    first.signal(Signal::STOP);
    within(until_lapsed(&home)).await;
    first.signal(Signal::CONT);
    let answer = within(client).await.unwrap().unwrap();
    assert_eq!(answer.status, 201);
    let again = home.node(&[]).place("key", CALL).await;
    assert!(again.is_replay());
    assert_eq!(again.body, answer.body);
    assert_eq!(home.effects(), ["stopped-1"]);
}

#[tokio::test]
async fn p17_a_server_that_is_cut_off_loses_its_keys_and_runs_nothing() {
    let home = Home::new();
    let network = Proxy::to(Database::shared().port);
    let first = home.node_behind(&network, &LONG);
    let second = home.node(&[]);
    let client = hold(&home, &first, "cut-off-1").await;
    network.cut();
    let refused = first.place("another-key", CALL).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (503, "idempotency_unavailable"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let ran = second.place("key", CALL).await;
    assert_eq!(ran.status, 201);
    assert!(!ran.is_replay());
    network.mend();

    assert_taken_over(&within(client).await.unwrap().unwrap(), &ran);
    let mut effects = home.effects();
    effects.sort_unstable();
    assert_eq!(effects, ["cut-off-1", ran.request_id()]);
    let retry = within(send_until_served(first.address, "key")).await;
    assert!(retry.is_replay());
    assert_eq!(retry.body, ran.body);
}

/// Sends the example's call until the server's database is reached.
async fn send_until_served(address: std::net::SocketAddr, key: &str) -> Answer {
    loop {
        let answer = send(address, keyed(key, CALL)).await.unwrap();
        if answer.code() != "idempotency_unavailable" {
            return answer;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_leaves_no_key_behind() {
    let home = Home::new();
    let (first, second) = (home.node(&LONG), home.node(&["--wait", "1ms"]));
    let client = hold(&home, &first, "stopped-1").await;
    first.signal(Signal::TERM);
    let answer = within(client).await.unwrap().unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(first.exit().await.code(), Some(0));
    assert_eq!(second.place("key", CALL).await.body, answer.body);
    assert_eq!(home.effects(), ["stopped-1"]);
}

#[tokio::test]
async fn a_server_that_stood_still_takes_nothing_over_at_once() {
    let home = Home::new();
    let (first, second) = (home.node(&LONG), home.node(&["--wait", "1ms"]));
    let client = hold(&home, &first, "stopped-1").await;
    // As when the machine of both is suspended.
    first.signal(Signal::STOP);
    second.signal(Signal::STOP);
    within(until_lapsed(&home)).await;
    second.signal(Signal::CONT);
    let retry = second.place("key", CALL).await;
    assert_eq!(retry.code(), "idempotency_in_progress");
    first.signal(Signal::CONT);
    let answer = within(client).await.unwrap().unwrap();
    assert_eq!(answer.status, 201);
    assert_eq!(second.place("key", CALL).await.body, answer.body);
    assert_eq!(home.effects(), ["stopped-1"]);
}

/// Waits until the lease of every server has lapsed.
async fn until_lapsed(home: &Home) {
    let is_lapsed =
        format!("SELECT bool_and(lease_until < clock_timestamp()) FROM {}.session", home.schema());
    while !Database::shared().tells(&is_lapsed) {
        tokio::time::sleep(PAUSE).await;
    }
}
