//! The time between a commit on one node and the answer to a request that waits on another.

use std::time::Duration;

use refrain::{Operation, Outcome, Store};
use tokio::time::Instant;

use crate::kit::room::{Room, execute, operation, response};
use crate::kit::server::runtime;

const ROUNDS: usize = 100;
/// The longest wait of a round. The pauses between two looks at a key grow with it.
const LONGEST: Duration = Duration::from_millis(500);
const MEDIAN_WITHIN: Duration = Duration::from_millis(25);

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
