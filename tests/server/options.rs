//! The options of the layer, and what the layer tells handlers.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::post;
use http::StatusCode;
use refrain::clock::SimulatedClock;
use refrain::server::{Execution, IdempotencyLayer, Verdict};
use refrain::{RequestId, Store};
use tower::ServiceExt;

use crate::kit::*;

#[tokio::test]
async fn p7_a_panic_in_the_durable_mode_leaves_the_key_interrupted() {
    let app = App::with(Store::builder(), |layer| layer.durable(true), |_| panic!("the carrier"));
    let failed = app.ask("a").await;
    assert_eq!(failed.refusal(), (500, "internal_error".into()));
    for _ in 0..2 {
        let retry = app.ask("a").await;
        assert_eq!(retry.refusal(), (409, "idempotency_interrupted".into()));
    }
    assert_eq!(app.runs(), 1);
}

/// An app with durable claims whose first run answers with a status and perhaps a verdict.
fn durable(status: u16, verdict: Option<Verdict>) -> App {
    App::with(
        Store::builder(),
        |layer| layer.durable(true),
        move |run| {
            let mut response = Response::new(Body::empty());
            if run == 0 {
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                verdict.map(|verdict| response.extensions_mut().insert(verdict));
            }
            response
        },
    )
}

#[tokio::test]
async fn a_refusal_of_the_handler_frees_the_key_in_the_durable_mode_too() {
    for (status, verdict) in [(422, None), (429, None), (503, Some(Verdict::Release))] {
        let app = durable(status, verdict);
        assert_eq!(app.ask("a").await.status, status);
        assert_eq!(app.store.stats().open_claims, 0);
        assert_eq!(app.ask("a").await.status, 200);
        assert!(app.ask("a").await.is_replay());
    }
}

/// A handler that was cut off after it had acted had its key freed, and ran again.
#[tokio::test]
async fn p7_a_failure_without_a_verdict_leaves_a_durable_key_interrupted() {
    for status in [500, 502, 503, 504, 408] {
        let app = durable(status, None);
        assert_eq!(app.ask("a").await.status, status);
        assert_eq!(app.ask("a").await.refusal(), (409, "idempotency_interrupted".into()));
        assert_eq!(app.runs(), 1);
    }
}

#[tokio::test]
async fn p9_the_layers_ttl_is_shorter_than_the_stores() {
    const TTL: Duration = Duration::from_secs(60);
    let clock = SimulatedClock::new();
    let layer = |layer: IdempotencyLayer| layer.ttl(TTL);
    let app = App::with(Store::builder().clock(clock.clone()), layer, |_| Response::default());
    app.ask("a").await;
    clock.advance(TTL - Duration::from_millis(1));
    assert!(app.ask("a").await.is_replay());
    clock.advance(Duration::from_millis(1));
    assert!(!app.ask("a").await.is_replay());
    assert_eq!(app.runs(), 2);
}

#[tokio::test]
async fn a_clients_request_id_can_be_distrusted() {
    let layer = |layer: IdempotencyLayer| layer.trust_request_ids(false);
    let app = App::with(Store::builder(), layer, |_| Response::default());
    let mut named = request("a", "{}");
    named.headers_mut().insert("x-request-id", "mine-1".parse().unwrap());
    let answer = app.send(named).await;
    assert_ne!(answer.headers["x-request-id"], "mine-1");
}

#[tokio::test]
async fn a_handlers_request_id_gives_way_to_the_layers() {
    let app = App::new(|_| {
        Response::builder().header("x-request-id", "handlers").body(Body::empty()).unwrap()
    });
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = app.ask("a").await;
        let given: Vec<_> = answer.headers.get_all("x-request-id").into_iter().cloned().collect();
        assert_eq!(given.len(), 1);
        ids.extend(given);
    }
    assert_ne!(ids[0], "handlers");
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn handlers_are_given_the_whole_request_its_id_and_its_key() {
    let store = Store::builder().open_in_memory().unwrap();
    let handler = post(|request: Request| async move {
        let id = request.extensions().get::<RequestId>().unwrap().to_string();
        let key = request.extensions().get::<Execution>().unwrap().key().as_str().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let asked = Answer::read(Response::new(request.into_body())).await.unwrap();
        let trailers = asked.trailers.map_or(0, |trailers| trailers.len());
        format!("{id} {key:?} {query} {} {trailers}", String::from_utf8_lossy(&asked.body))
    });
    let app = Router::new().route("/", handler).layer(IdempotencyLayer::new(store));
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    let frames = [data("in "), data("frames"), hyper::body::Frame::trailers(trailers)];
    let mut asked = request("\"quoted\"", "").map(|_| Body::new(Trickle::ended(frames)));
    *asked.uri_mut() = "/?dry=1".parse().unwrap();
    asked.headers_mut().insert("x-request-id", "mine-1".parse().unwrap());
    let answer = Answer::read(app.clone().oneshot(asked).await.unwrap()).await.unwrap();
    assert_eq!(answer.body, "mine-1 \"quoted\" dry=1 in frames 1");

    // However a body is cut, it is the same body.
    let mut whole = request("quoted", "in frames");
    *whole.uri_mut() = "/?dry=1".parse().unwrap();
    let again = Answer::read(app.oneshot(whole).await.unwrap()).await.unwrap();
    assert!(again.is_replay());
    assert_eq!(again.body, answer.body);
}
