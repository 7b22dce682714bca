//! The time between a commit on one node and the answer to a request that waits on another.

use std::net::TcpListener;
use std::time::Duration;

use refrain::{Operation, Outcome, Store};
use tokio::time::Instant;

use crate::kit::proxy::Proxy;
use crate::kit::room::{Room, execute, operation, response, until};
use crate::kit::server::{Server, address, runtime};

const ROUNDS: usize = 100;
/// The longest wait of a round. The pauses between two looks at a key grow with it.
const LONGEST: Duration = Duration::from_millis(500);
const MEDIAN_WITHIN: Duration = Duration::from_millis(25);
/// Less than a connection may take.
const SOON: Duration = Duration::from_secs(3);

/// Nobody looked at the key while the node connected in order to listen: for five seconds, time and
/// again.
#[test]
fn a_key_is_looked_at_though_its_node_cannot_listen() {
    let room = Room::new();
    let holder = room.open("holder");
    let asked = operation("listened");
    let permit = execute(&holder, &asked);
    // The store opens, and asks, through a connection each. The third is to listen.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, nobody) = (Server::shared().port, deaf.local_addr().unwrap().port());
    let network = Proxy::in_turn(vec![server, server, nobody, server, server]);
    let builder = room.builder().node("other").lease(Duration::from_secs(60));
    let other = runtime().block_on(builder.connect(&address(network.port))).unwrap();
    let began = Instant::now();
    let waiting = other.begin(&asked);
    until("somebody waits", || room.ask("SELECT bool_and(waited) FROM SCHEMA.key"));
    permit.complete(&response("done")).wait().unwrap();
    assert!(matches!(waiting.wait().unwrap(), Outcome::Replay(_)));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
#[ignore = "measures; `cargo test --release -p refrain-postgres --test network -- --ignored --nocapture`"]
fn a_waiter_on_another_node_has_its_answer_soon_after_the_commit() {
    let room = Room::new();
    let (holder, other) = (room.open("holder"), room.open("other"));
    let mut delays: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            let wait = LONGEST * u32::try_from(round).unwrap() / u32::try_from(ROUNDS).unwrap();
            delay(&holder, &other, &operation(&format!("round-{round}")), wait)
        })
        .collect();
    delays.sort_unstable();
    let (median, slow) = (delays[ROUNDS / 2], delays[ROUNDS * 99 / 100]);
    println!(
        "a waiter on another node has its answer after the commit: median {:.1} ms, p99 {:.1} ms, \
         latest {:.1} ms, of {ROUNDS}",
        median.as_secs_f64() * 1000.0,
        slow.as_secs_f64() * 1000.0,
        delays[ROUNDS - 1].as_secs_f64() * 1000.0
    );
    assert!(median <= MEDIAN_WITHIN, "{median:?}");
}

/// Has a request wait on the other node, completes the run, and returns the time from there to the
/// answer.
fn delay(holder: &Store, other: &Store, asked: &Operation, wait: Duration) -> Duration {
    let permit = execute(holder, asked);
    let waiting = {
        let (other, asked) = (other.clone(), asked.clone());
        runtime().spawn(async move {
            let outcome = other.begin(&asked).await.unwrap();
            assert!(matches!(outcome, Outcome::Replay(_)), "{outcome:?}");
            Instant::now()
        })
    };
    runtime().block_on(async move {
        tokio::time::sleep(wait).await;
        permit.complete(&response("done")).await.unwrap();
        let committed = Instant::now();
        waiting.await.unwrap().saturating_duration_since(committed)
    })
}
