//! Refusals, of requests that the store cannot take, and of responses that it cannot record.

use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::post;
use refrain::server::IdempotencyLayer;
use refrain::{Fingerprint, Operation, Scope, Store};
use tower::ServiceExt;

use crate::kit::*;

fn operation(key: &str) -> Operation {
    let scope = Scope::from_api_key("sk_live_51");
    Operation::new(scope, key.parse().unwrap(), Fingerprint::of(["another request"]))
}

#[tokio::test]
async fn p14_a_store_at_its_limit_refuses_at_once() {
    let builder = Store::builder().max_in_flight(1);
    let app = App::with(builder, |layer| layer, |_| Response::default());
    let held = app.store.begin(&operation("other")).await.unwrap();
    let refused = app.ask("a").await;
    assert_eq!(refused.refusal(), (503, "idempotency_unavailable".into()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(app.runs(), 0);
    drop(held);
    assert_eq!(app.ask("a").await.status, 200);
}

#[tokio::test]
async fn p14_a_key_with_too_many_waiters_refuses_at_once() {
    let builder = Store::builder().max_waiters_per_key(0);
    let app = App::with(builder, |layer| layer, |_| Response::default());
    let _held = app.store.begin(&operation("a")).await.unwrap();
    let refused = app.ask("a").await;
    assert_eq!(refused.refusal(), (429, "too_many_requests".into()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(app.ask("b").await.status, 200);
}

#[tokio::test]
async fn p2_a_response_that_could_not_be_recorded_is_not_sent() {
    let store = Store::builder().open_in_memory().unwrap();
    let closing = store.clone();
    let handler = post(move || async move {
        closing.close(Duration::ZERO).wait().unwrap();
        "done"
    });
    let app = Router::new().route("/", handler).layer(IdempotencyLayer::new(store));
    let response = app.oneshot(request("a", "{}")).await.unwrap();
    let refused = Answer::read(response).await.unwrap();
    assert_eq!(refused.refusal(), (503, "idempotency_outcome_unknown".into()));
}

#[tokio::test]
async fn a_wait_ends_when_the_store_closes() {
    let app = App::new(|_| Response::default());
    let _held = app.store.begin(&operation("a")).await.unwrap();
    let asking = tokio::spawn(app.router.clone().oneshot(request("a", "{}")));
    while app.store.stats().in_flight < 2 {
        tokio::task::yield_now().await;
    }
    app.store.close(Duration::ZERO).wait().unwrap();
    let refused = Answer::read(asking.await.unwrap().unwrap()).await.unwrap();
    assert_eq!(refused.refusal(), (503, "idempotency_unavailable".into()));
    assert_eq!(app.runs(), 0);
}
