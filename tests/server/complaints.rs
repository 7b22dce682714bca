//! Common complaints about other such middleware, where no other module has the fact already.
//!
//! The rest, by its usual name: markers that outlive a crash (`calls::crash`), cancelled by a
//! disconnect (`wire`, `flight`), replayed across tenants (`contract::p6_...`), scopes that break
//! when a token is refreshed (`composition::the_scope_can_be_...`), the wrong outcomes stored
//! (`policies`), an ambiguous 409 (`dialects::every_dialect_says_...`), large and streaming bodies
//! (`streams`), unbounded growth (`requests`, `limits`), running unprotected when the store fails
//! (`contract`), a mark of replays that browsers hide (`composition::cors_...`), a retry that is
//! spelled otherwise and taken for another request (`fingerprints`).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::post;
use http::{HeaderName, HeaderValue};
use refrain::server::IdempotencyLayer;
use refrain::{Fingerprint, Store};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::kit::*;

#[tokio::test]
async fn a_key_never_lapses_while_its_handler_is_alive() {
    let (leave, entered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (leaving, entering) = (Arc::clone(&leave), Arc::clone(&entered));
    let handler = post(async move || {
        entering.add_permits(1);
        leaving.acquire().await.unwrap().forget();
        "placed"
    });
    let clock = refrain::clock::SimulatedClock::new();
    let store = Store::builder().clock(clock.clone()).open_in_memory().unwrap();
    let layer = IdempotencyLayer::new(store.clone()).wait(Duration::ZERO);
    let app: Router = Router::new().route("/", handler).layer(layer);
    let ask = || app.clone().oneshot(request("a", "{}"));
    let first = tokio::spawn(ask());
    entered.acquire().await.unwrap().forget();
    for _ in 0..3 {
        clock.advance(Duration::from_hours(25));
        store.reap().unwrap();
        let refused = Answer::read(ask().await.unwrap()).await.unwrap();
        assert_eq!(refused.refusal(), (409, "idempotency_in_progress".into()));
    }
    leave.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert!(Answer::read(ask().await.unwrap()).await.unwrap().is_replay());
}

#[tokio::test]
async fn a_replay_keeps_its_status_location_type_and_each_cookie() {
    let layer = |layer: IdempotencyLayer| layer.replay_set_cookie(true);
    let app = App::with(Store::builder(), layer, |_| {
        Response::builder()
            .status(201)
            .header("location", "/calls/1")
            .header("content-type", "application/vnd.call+json")
            .header("set-cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT")
            .header("set-cookie", "b=2")
            .header("etag", "\"1\"")
            .body(Body::from("{}"))
            .unwrap()
    });
    let (first, again) = (app.ask("a").await, app.ask("a").await);
    assert!(again.is_replay());
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for name in ["location", "content-type", "set-cookie", "etag"] {
        let values = |answer: &Answer| -> Vec<HeaderValue> {
            answer.headers.get_all(name).iter().cloned().collect()
        };
        assert_eq!(values(&again), values(&first), "{name}");
    }
}

#[tokio::test]
async fn a_header_that_changes_what_is_done_can_belong_to_the_request() {
    let version = HeaderName::from_static("api-version");
    let named = version.clone();
    let layer = |layer: IdempotencyLayer| layer.fingerprint_headers([named]);
    let app = App::with(Store::builder(), layer, |_| Response::default());
    let with = |value: &str| {
        let mut request = request("a", "{}");
        request.headers_mut().insert(&version, value.parse().unwrap());
        request
    };
    app.send(with("1")).await;
    assert!(app.send(with("1")).await.is_replay());
    assert_eq!(app.send(with("2")).await.refusal(), (409, "idempotency_conflict".into()));
    assert_eq!(app.ask("a").await.status, 409);
}

#[tokio::test]
async fn what_is_noise_in_a_body_can_be_left_out_of_the_fingerprint() {
    let layer = |layer: IdempotencyLayer| {
        layer.fingerprint_by(|request, body| {
            let sent_at = body.iter().position(|byte| *byte == b'@').unwrap_or(body.len());
            Fingerprint::of([request.uri.path().as_bytes(), &body[..sent_at]])
        })
    };
    let app = App::with(Store::builder(), layer, |_| Response::default());
    app.send(request("a", "call @ 10:00")).await;
    assert!(app.send(request("a", "call @ 10:01")).await.is_replay());
    assert_eq!(app.send(request("a", "hang up @ 10:01")).await.status, 409);
}
