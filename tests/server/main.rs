//! The HTTP layer on an in-memory store, where the reference server cannot show it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bodies;
mod flight;
mod kit;
mod limits;
mod options;
mod readiness;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::post;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use refrain::server::IdempotencyLayer;
use refrain::{Builder, Store};
use tower::ServiceExt;

/// An app whose handler counts its runs.
struct App {
    router: Router,
    runs: Arc<AtomicUsize>,
    store: Store,
}

impl App {
    fn new(answer: impl Fn(usize) -> Response + Clone + Send + Sync + 'static) -> Self {
        Self::with(Store::builder(), |layer| layer, answer)
    }

    fn with(
        builder: Builder,
        configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
        answer: impl Fn(usize) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let store = builder.open_in_memory().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&runs);
        let handler = post(move |_body: String| {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            let response = answer(run);
            async move { response }
        });
        let layer = configure(IdempotencyLayer::new(store.clone()));
        Self { router: Router::new().route("/", handler).layer(layer), runs, store }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
        (parts.status, parts.headers, body)
    }

    async fn respond(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, key: &str) -> kit::Answer {
        kit::Answer::read(self.respond(request(key, "{}")).await).await.unwrap()
    }

    async fn post(&self, key: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
        self.send(request(key, "{}")).await
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

fn request(key: &str, body: &str) -> Request<Body> {
    Request::post("/")
        .header("authorization", "Bearer sk_live_51")
        .header("idempotency-key", key)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[tokio::test]
async fn p15_a_panic_answers_internal_error_and_frees_the_key() {
    let app = App::new(|run| if run == 0 { panic!("the carrier") } else { Response::default() });
    let (status, _, body) = app.post("a").await;
    assert_eq!(status, 500);
    assert!(text(&body).contains("internal_error"), "{}", text(&body));
    assert_eq!(app.post("a").await.0, 200);
    assert_eq!(app.runs(), 2);
}

#[tokio::test]
async fn a_failure_frees_the_key_and_a_success_keeps_it() {
    for failure in [400, 422, 500, 503] {
        let app = App::new(move |run| {
            let status = if run == 0 { failure } else { 201 };
            Response::builder().status(status).body(Body::empty()).unwrap()
        });
        assert_eq!(app.post("a").await.0, failure);
        assert_eq!(app.post("a").await.0, 201);
        let (status, headers, _) = app.post("a").await;
        assert_eq!(
            (status.as_u16(), headers["idempotency-replay"].as_bytes()),
            (201, &b"true"[..])
        );
        assert_eq!(app.runs(), 2);
    }
}

#[tokio::test]
async fn p3_only_the_headers_of_one_connection_or_moment_are_not_replayed() {
    for cookies in [false, true] {
        let configure = |layer: IdempotencyLayer| {
            if cookies { layer.replay_set_cookie() } else { layer }
        };
        let app = App::with(Store::builder(), configure, |_| {
            Response::builder()
                .header("connection", "close, X-Hop")
                .header("x-hop", "1")
                .header("date", "now")
                .header("server", "us")
                .header("set-cookie", "a=1")
                .header("link", "<1>")
                .header("link", "<2>")
                .header("x-raw", HeaderValue::from_bytes(b"\xfe\xff").unwrap())
                .body(Body::from("x"))
                .unwrap()
        });
        assert!(app.post("a").await.1.contains_key("x-hop"));
        let (_, headers, body) = app.post("a").await;
        for gone in ["connection", "x-hop", "date", "server"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers.contains_key("set-cookie"), cookies);
        let links: Vec<_> = headers.get_all("link").iter().collect();
        assert_eq!(links, ["<1>", "<2>"]);
        assert_eq!((headers["x-raw"].as_bytes(), &body[..]), (&b"\xfe\xff"[..], &b"x"[..]));
    }
}

#[tokio::test]
async fn a_response_that_is_streamed_or_too_long_passes_and_never_runs_again() {
    let long = App::with(
        Store::builder(),
        |layer| layer.max_response_bytes(10),
        |_| Response::new(Body::from("more than ten bytes")),
    );
    let events = App::new(|_| {
        let response = Response::builder().header("content-type", "text/event-stream");
        response.body(Body::from("data: x\n\n")).unwrap()
    });
    for (app, expected) in [(long, "more than ten bytes"), (events, "data: x\n\n")] {
        assert_eq!(text(&app.post("a").await.2), expected);
        let (status, _, body) = app.post("a").await;
        assert_eq!(status, 409);
        assert!(text(&body).contains("idempotency_result_unavailable"), "{}", text(&body));
        assert_eq!(app.runs(), 1);
    }
}

#[tokio::test]
async fn p14_a_body_over_the_limit_is_refused_before_anything_is_claimed() {
    let app =
        App::with(Store::builder(), |layer| layer.max_request_bytes(10), |_| Response::default());
    let (status, _, body) = app.send(request("a", "more than ten bytes")).await;
    assert_eq!(status, 413);
    assert!(text(&body).contains("body_too_large"), "{}", text(&body));
    assert_eq!((app.runs(), app.store.stats().entries), (0, 0));
    assert_eq!(app.post("a").await.0, 200);
}

#[tokio::test]
async fn keys_outside_the_grammar_and_missing_scopes_are_refused() {
    let app = App::new(|_| Response::default());
    let long = "k".repeat(256);
    for key in ["", "a b", "\"open", &long] {
        let (status, _, body) = app.post(key).await;
        assert_eq!(status, 400, "{key:?}");
        assert!(text(&body).contains("idempotency_key_invalid"), "{}", text(&body));
    }
    let mut twice = request("a", "{}");
    twice.headers_mut().append("idempotency-key", HeaderValue::from_static("a"));
    assert_eq!(app.send(twice).await.0, 400);
    let mut nobody = request("a", "{}");
    nobody.headers_mut().remove("authorization");
    let (status, _, body) = app.send(nobody).await;
    assert_eq!(status, 401);
    assert!(text(&body).contains("unauthorized"), "{}", text(&body));
    assert_eq!(app.runs(), 0);
    // The quoted and the bare form are one key.
    app.post("b").await;
    assert!(app.post("\"b\"").await.1.contains_key("idempotency-replay"));
}

#[tokio::test]
async fn without_a_key_a_request_passes_and_every_answer_has_a_request_id() {
    let app = App::new(|_| Response::default());
    for _ in 0..2 {
        let mut plain = request("a", "{}");
        plain.headers_mut().remove("idempotency-key");
        plain.headers_mut().insert("x-request-id", HeaderValue::from_static("mine-1"));
        let (status, headers, _) = app.send(plain).await;
        assert_eq!((status.as_u16(), headers["x-request-id"].as_bytes()), (200, &b"mine-1"[..]));
    }
    assert_eq!(app.runs(), 2);
    let first = app.post("a").await.1["x-request-id"].clone();
    let conflict = app.send(request("a", "[]")).await;
    assert_eq!(conflict.0, 409);
    let named = format!(r#""conflicts_with":"{}""#, first.to_str().unwrap());
    assert!(text(&conflict.2).contains(&named), "{}", text(&conflict.2));
    assert_ne!(conflict.1["x-request-id"], first);
}

#[tokio::test]
async fn a_closed_store_refuses_before_the_handler_runs() {
    let app = App::new(|_| Response::default());
    app.store.close(Duration::ZERO).unwrap();
    let (status, headers, body) = app.post("a").await;
    assert_eq!(status, 503);
    assert!(text(&body).contains("idempotency_unavailable"), "{}", text(&body));
    assert!(headers.contains_key("retry-after"));
    assert_eq!(app.runs(), 0);
}

#[tokio::test]
async fn p6_a_scope_at_its_limit_is_told_at_once_and_others_are_served() {
    let app = App::with(
        Store::builder().max_in_flight_per_scope(1),
        |layer| layer,
        |_| Response::default(),
    );
    let operation = refrain::Operation::new(
        refrain::Scope::from_api_key("sk_live_51"),
        "other".parse().unwrap(),
        refrain::Fingerprint::of(["x"]),
    );
    let held = app.store.begin(&operation).await.unwrap();
    let (status, headers, body) = app.post("a").await;
    assert_eq!(status, 429);
    assert!(text(&body).contains("too_many_requests"), "{}", text(&body));
    assert!(headers.contains_key("retry-after"));
    let mut elsewhere = request("a", "{}");
    let token = HeaderValue::from_static("Bearer sk_live_52");
    elsewhere.headers_mut().insert("authorization", token);
    assert_eq!(app.send(elsewhere).await.0, 200);
    drop(held);
    assert_eq!(app.post("a").await.0, 200);
}

#[tokio::test]
async fn a_wait_that_ends_first_is_told_who_runs() {
    let app =
        App::with(Store::builder(), |layer| layer.wait(Duration::ZERO), |_| Response::default());
    let operation = refrain::Operation::new(
        refrain::Scope::from_api_key("sk_live_51"),
        "a".parse().unwrap(),
        refrain::Fingerprint::of(["x"]),
    );
    let _held = app.store.begin(&operation).await.unwrap();
    let (status, headers, body) = app.post("a").await;
    assert_eq!(status, 409);
    assert!(text(&body).contains("idempotency_in_progress"), "{}", text(&body));
    assert!(text(&body).contains(operation_id(&body)) && headers.contains_key("retry-after"));
}

/// The request id that an `in_progress` answer names.
fn operation_id(body: &[u8]) -> &str {
    text(body).split("\"in_progress_request_id\":\"").nth(1).unwrap().split('"').next().unwrap()
}
