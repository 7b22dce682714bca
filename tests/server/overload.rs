//! A store that is behind: a request waits as long as one whose key is in flight, and is told then.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use refrain::server::IdempotencyLayer;
use refrain::{Error, Fingerprint, Operation, Outcome, Scope, Store};
use tower::ServiceExt;

use crate::kit::*;

#[path = "../engine/gate.rs"]
#[allow(dead_code, reason = "the engine's tests need more of it")]
mod gate;

use gate::{Gate, State};

/// A store that is so far behind that the next key waits.
fn behind() -> (Arc<Gate>, Store) {
    let gate = Arc::new(Gate::default());
    let disk: Arc<Gate> = Arc::clone(&gate);
    let builder = Store::builder().log_bytes(256 * 1024).max_response_bytes(32 * 1024);
    let store = builder.open_on(disk).unwrap();
    gate.set_segments(State::Held);
    for n in 0.. {
        let key = format!("full-{n}").parse().unwrap();
        let operation = Operation::new(Scope::new("noisy"), key, Fingerprint::of(["x"]));
        match store.begin(&operation).wait_timeout(Duration::ZERO) {
            Ok(Outcome::Execute(permit)) => {
                let response = axum::response::Response::new(Bytes::from(vec![7; 30_000]));
                permit.complete(&response).wait().unwrap();
            }
            Err(Error::Behind) => break,
            other => panic!("{other:?}"),
        }
    }
    (gate, store)
}

fn app(store: &Store, wait: Duration) -> Router {
    let layer = IdempotencyLayer::new(store.clone()).wait(wait);
    Router::new().route("/", post(|| async { "done" })).layer(layer)
}

#[tokio::test]
async fn p14_a_request_waits_for_room_and_is_served() {
    let (gate, store) = behind();
    let waited = store.stats().waited_for_room;
    let asking = app(&store, Duration::from_secs(60)).oneshot(request("a", "{}"));
    let asking = tokio::spawn(asking);
    while store.stats().waited_for_room == waited {
        tokio::task::yield_now().await;
    }
    gate.set_segments(State::Open);
    assert_eq!(asking.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn p14_a_request_that_waits_too_long_for_room_is_told_that_nothing_was_run() {
    let (gate, store) = behind();
    let app = app(&store, Duration::from_millis(1));
    let refused = app.clone().oneshot(request("a", "{}")).await.unwrap();
    let refused = Answer::read(refused).await.unwrap();
    assert_eq!(refused.refusal(), (503, "idempotency_unavailable".into()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(store.stats().in_flight, 0);
    gate.set_segments(State::Open);
    store.reap().unwrap();
    assert_eq!(app.oneshot(request("a", "{}")).await.unwrap().status(), 200);
}
