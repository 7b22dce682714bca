//! Servers whose clocks are wrong, where faketime is installed: leases and records end by the
//! database's clock.

use std::path::PathBuf;

use crate::client::CALL;
use crate::kit::server::Server as Database;
use crate::load::{Load, assert_exact};
use crate::node::{PAUSE, Server, within};
use crate::server::Home;

/// A response is kept for so long, by the database's clock.
const KEPT: &str = "5s";

/// A server whose wall clock is so far off; None where that cannot be had.
#[allow(clippy::print_stderr, reason = "what is skipped is said")]
fn node_off_by(home: &Home, offset: &str, arguments: &[&str]) -> Option<Server> {
    let Some(library) = faketime() else {
        eprintln!("skipped: faketime is not installed");
        return None;
    };
    let mut command = home.command(arguments);
    command.env("LD_PRELOAD", library).env("FAKETIME", offset);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Some(Server::start(command))
}

/// The library, which its program would load into a child of its own.
fn faketime() -> Option<PathBuf> {
    let systems = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let libraries = systems.map(|system| system.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

fn date(answer: &crate::client::Answer) -> jiff::Timestamp {
    let text = answer.header("date").unwrap();
    jiff::fmt::rfc2822::parse(text).unwrap().timestamp()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_wrong_clocks_agree_on_every_key() {
    let home = Home::new();
    let Some(fast) = node_off_by(&home, "+2h", &[]) else { return };
    let slow = node_off_by(&home, "-2h", &[]).unwrap();
    let servers = [fast, slow, home.node(&[])];
    let [ahead, behind] = [&servers[0], &servers[1]].map(|server| server.place("key", CALL));
    let (ahead, behind) = (ahead.await, behind.await);
    assert!(behind.is_replay());
    assert_eq!(behind.body, ahead.body);
    let apart = date(&ahead).duration_since(date(&behind));
    assert!(apart.as_hours() >= 3, "their clocks are apart: {apart}");

    let mut load = Load::on(&servers, 16);
    load.until_placed(200).await;
    let placed = load.stop().await;
    assert_exact(&home, Database::shared().port, &servers, &placed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_ends_at_the_same_time_at_servers_with_wrong_clocks() {
    let home = Home::new();
    let arguments = ["--ttl", KEPT];
    let Some(fast) = node_off_by(&home, "+2h", &arguments) else { return };
    let slow = node_off_by(&home, "-2h", &arguments).unwrap();
    let servers = [fast, slow];
    for (first, second) in [(0, 1), (1, 0)] {
        let key = format!("from-{first}");
        let answer = servers[first].place(&key, CALL).await;
        assert!(servers[second].place(&key, CALL).await.is_replay());
        let again = within(async {
            loop {
                let again = servers[second].place(&key, CALL).await;
                let is_over = Database::shared().tells(&format!(
                    "SELECT NOT EXISTS (SELECT 1 FROM {}.key \
                     WHERE request_id = '{}' AND expires_at > clock_timestamp())",
                    home.schema(),
                    answer.request_id(),
                ));
                match again.is_replay() {
                    true => tokio::time::sleep(PAUSE).await,
                    // Never before its end.
                    false if is_over => break again,
                    false => panic!("it had not expired: {again:?}"),
                }
            }
        })
        .await;
        assert_eq!(again.status, 201);
        assert!(servers[first].place(&key, CALL).await.is_replay());
        assert_eq!(home.effects().len(), 2 * (first.min(1) + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_wrong_clock_takes_over_when_the_lease_is_over_and_not_before() {
    let home = Home::new();
    let latency = ["--latency", "6s", "--wait", "1ms"];
    let Some(fast) = node_off_by(&home, "+2h", &["--wait", "1s"]) else { return };
    // Its lease of 2 s is renewed, whatever a fast clock says of it.
    let first = home.node(&latency);
    let client = first.hold("living", "first-1").await;
    let retry = fast.place("living", CALL).await;
    assert_eq!(retry.code(), "idempotency_in_progress");
    assert_eq!(within(client).await.unwrap().unwrap().status, 201);
    assert!(fast.place("living", CALL).await.is_replay());

    let second = node_off_by(&home, "-2h", &["--latency", "1h", "--wait", "1ms"]).unwrap();
    let client = second.hold("dead", "second-1").await;
    second.kill();
    assert!(within(client).await.unwrap().is_none());
    let taken_over = within(async {
        loop {
            let answer = fast.place("dead", CALL).await;
            if answer.code() != "idempotency_in_progress" {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(taken_over.status, 201);
    assert_eq!(home.effects(), ["first-1", taken_over.request_id()]);
}
