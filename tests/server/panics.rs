//! Panics of the program's code are answered with 500, and what has succeeded does not run again.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use refrain::Store;
use refrain::server::{Dialect, Exchange, IdempotencyLayer, Refusal, Verdict};
use tower::ServiceExt;

use crate::kit::*;

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
}

fn app(layer: IdempotencyLayer) -> Router {
    Router::new().route("/", post(|| async { "placed" })).layer(layer)
}

async fn send(app: &Router, request: http::Request<Body>) -> Answer {
    Answer::read(app.clone().oneshot(request).await.unwrap()).await.unwrap()
}

fn panics() -> StatusCode {
    panic!("the carrier")
}

/// Only handlers of requests with a key were guarded: all else ended in an empty connection.
#[tokio::test]
async fn a_panic_in_any_code_of_the_program_is_answered() {
    let failed = (500, "internal_error".to_owned());
    let panicking = || Router::new().route("/", post(async || panics()).get(async || panics()));
    let app_of = |layer| panicking().layer(layer);
    let mut keyless = request("a", "{}");
    keyless.headers_mut().remove("idempotency-key");
    let mut asked = http::Request::get("/").body(Body::empty()).unwrap();
    for request in [keyless, std::mem::take(&mut asked), request("a", "{}")] {
        let answer = send(&app_of(layer()), request).await;
        assert_eq!(answer.refusal(), failed);
        assert!(answer.header("x-request-id").is_some());
    }
    for layer in [
        layer().scope(|_| -> Option<refrain::Scope> { panic!("the scope") }),
        layer().fingerprint_by(|_, _| panic!("the fingerprint")),
    ] {
        assert_eq!(send(&app(layer), request("a", "{}")).await.refusal(), failed);
    }
    let authorized = app(layer().authorize_replay(|_, _| async { panic!("the authorization") }));
    assert_eq!(send(&authorized, request("a", "{}")).await.status, 200);
    assert_eq!(send(&authorized, request("a", "{}")).await.refusal(), failed);
    let routed: Router = Router::new().route("/", get(async || panics())).layer(layer());
    let asked = http::Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(send(&routed, asked).await.refusal(), failed);
}

#[tokio::test]
async fn a_dialect_that_panics_gives_way_to_the_contracts_own() {
    #[derive(Debug)]
    struct Broken;

    impl Dialect for Broken {
        fn refuse(&self, _refusal: &Refusal) -> http::Response<Bytes> {
            panic!("the dialect")
        }

        fn sign(&self, exchange: &Exchange<'_>, _headers: &mut HeaderMap) {
            assert!(!exchange.is_replay, "the dialect");
        }
    }

    let app = app(layer().dialect(Broken));
    assert_eq!(send(&app, request("two words", "{}")).await.refusal().0, 500);
    assert_eq!(send(&app, request("a", "{}")).await.status, 200);
    assert_eq!(send(&app, request("a", "{}")).await.refusal(), (500, "internal_error".into()));
}

/// The panic freed the key of an operation that was done.
#[tokio::test]
async fn p1_a_function_that_panics_over_a_success_does_not_have_it_run_again() {
    let keep = |layer: IdempotencyLayer| {
        // What users write.
        layer.keep_if(|parts| parts.headers.get("x-kind").unwrap() == "done")
    };
    let placed = |_| Response::builder().status(201).body(Body::from("placed")).unwrap();
    let app = App::with(Store::builder(), keep, placed);
    assert_eq!(app.ask("a").await.refusal(), (500, "internal_error".into()));
    assert_eq!(app.ask("a").await.refusal(), (409, "idempotency_result_unavailable".into()));
    assert_eq!(app.runs(), 1);

    let app = App::with(Store::builder(), keep, |_| {
        let mut answer = Response::new(Body::empty());
        answer.extensions_mut().insert(Verdict::Release);
        answer
    });
    for _ in 0..2 {
        assert_eq!(app.ask("a").await.status, 200, "its handler gave the verdict");
    }
    assert_eq!(app.runs(), 2);
}

#[tokio::test]
async fn a_panic_whose_payload_panics_is_one_panic() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "the payload");
        }
    }

    let handler = || post(async || -> StatusCode { std::panic::panic_any(Bomb) });
    let store = Store::builder().open_in_memory().unwrap();
    let layer = IdempotencyLayer::new(store.clone());
    let app: Router = Router::new().route("/", handler()).layer(layer);
    for _ in 0..2 {
        let answer = send(&app, request("a", "{}")).await;
        assert_eq!(answer.refusal(), (500, "internal_error".into()));
    }
    assert_eq!(store.stats().in_flight, 0);
}
