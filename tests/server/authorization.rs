//! Who may hear of an earlier request with the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::post;
use http::HeaderValue;
use refrain::server::{IdempotencyLayer, OnInterrupted};
use refrain::{Scope, Store};
use tower::ServiceExt;

use crate::kit::*;

/// An account that Ann and Eve share, whose answers are Ann's.
fn layer(store: &Store) -> IdempotencyLayer {
    IdempotencyLayer::new(store.clone())
        .scope(|_| Some(Scope::new("account")))
        .wait(std::time::Duration::ZERO)
        .authorize_replay(async |request, earlier| {
            assert!(earlier.request_id.is_some());
            request.headers.get("user").is_some_and(|user| user == "ann")
        })
}

async fn send(app: &Router, user: &'static str, body: &str) -> Answer {
    let mut request = request("invoice-42", body);
    request.headers_mut().insert("user", HeaderValue::from_static(user));
    Answer::read(app.clone().oneshot(request).await.unwrap()).await.unwrap()
}

/// A conflict told Eve that her guess of the body was wrong.
#[tokio::test]
async fn p6_who_may_not_see_an_answer_learns_nothing_about_its_request() {
    let store = Store::builder().open_in_memory().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let handler = post(async move |body: String| {
        counter.fetch_add(1, Ordering::SeqCst);
        assert_ne!(body, "crash", "the carrier");
        "secret"
    });
    let app: Router = Router::new().route("/", handler).layer(layer(&store));
    send(&app, "ann", "5200").await;
    let answers = [send(&app, "eve", "5100").await, send(&app, "eve", "5200").await];
    for answer in &answers {
        assert_eq!(answer.refusal(), (403, "forbidden".into()));
        assert_eq!(answer.body, answers[0].body);
    }
    assert_eq!(send(&app, "ann", "5100").await.refusal(), (409, "idempotency_conflict".into()));
    assert!(send(&app, "ann", "5200").await.is_replay());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn p6_who_may_not_see_an_answer_does_not_hear_of_a_run() {
    let store = Store::builder().open_in_memory().unwrap();
    let gate = Gate::default();
    let held = gate.clone();
    let handler = post(async move || {
        held.pass().await;
    });
    let app: Router = Router::new().route("/", handler).layer(layer(&store));
    let running = tokio::spawn({
        let app = app.clone();
        async move { send(&app, "ann", "{}").await }
    });
    gate.entered().await;
    assert_eq!(send(&app, "eve", "{}").await.refusal(), (403, "forbidden".into()));
    assert_eq!(send(&app, "ann", "{}").await.refusal(), (409, "idempotency_in_progress".into()));
    gate.open(1);
    assert_eq!(running.await.unwrap().status, 200);
}

#[tokio::test]
async fn p6_who_may_not_see_an_answer_does_not_hear_of_an_interruption() {
    let handler = post(async || assert_eq!(1, 2, "the carrier"));
    for policy in [OnInterrupted::Refuse, OnInterrupted::recover(async |found| found.done())] {
        let store = Store::builder().open_in_memory().unwrap();
        let layer = layer(&store).on_interrupted(policy);
        let app: Router = Router::new().route("/", handler.clone()).layer(layer);
        assert_eq!(send(&app, "ann", "{}").await.status, 500);
        assert_eq!(send(&app, "eve", "{}").await.refusal(), (403, "forbidden".into()));
        assert_eq!(send(&app, "ann", "{}").await.status, 409);
    }
}
