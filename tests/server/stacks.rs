//! The stacks of layers that people build: they compile as one `ServiceBuilder`, under axum and
//! under bare hyper, and keep the contract.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::Limited;
use refrain::Store;
use refrain::server::IdempotencyLayer;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::kit::*;

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(60))
}

async fn authenticate(request: Request, next: Next) -> Response {
    next.run(request).await
}

async fn send(app: &Router, request: http::Request<Body>) -> Answer {
    Answer::read(app.clone().oneshot(request).await.unwrap()).await.unwrap()
}

async fn assert_replays(app: Router) {
    assert_eq!(send(&app, request("a", "{}")).await.body, "placed");
    let again = send(&app, request("a", "{}")).await;
    assert_eq!((again.is_replay(), &again.body[..]), (true, &b"placed"[..]));
}

#[tokio::test]
async fn the_documented_order_is_one_service_builder_in_axum() {
    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CorsLayer::permissive())
        .layer(CompressionLayer::new())
        .layer(timeout())
        .layer(GlobalConcurrencyLimitLayer::new(64))
        .layer(from_fn(authenticate))
        .layer(layer())
        .layer(from_fn(authenticate));
    assert_replays(Router::new().route("/", post(|| async { "placed" })).layer(stack)).await;
}

#[tokio::test]
async fn the_layer_is_an_option_and_a_layer_of_one_route() {
    for on in [true, false] {
        let stack = ServiceBuilder::new().option_layer(on.then(layer));
        let app: Router = Router::new().route("/", post(|| async { "placed" })).layer(stack);
        send(&app, request("a", "{}")).await;
        assert_eq!(send(&app, request("a", "{}")).await.is_replay(), on);
    }
    let route = post(|| async { "placed" }).layer((timeout(), layer()));
    assert_replays(Router::new().route("/", route)).await;
}

#[tokio::test]
async fn the_documented_order_runs_without_axum() {
    let handler = service_fn(async |request: http::Request<Body>| {
        let body = Answer::read(http::Response::new(request.into_body())).await?.body;
        Ok::<_, axum::Error>(http::Response::new(Body::from(body)))
    });
    let service = ServiceBuilder::new()
        .layer(CorsLayer::permissive())
        .layer(timeout())
        .layer(GlobalConcurrencyLimitLayer::new(64))
        .layer(layer())
        .service(handler);
    for is_replay in [false, true] {
        // Its bodies need not be axum's.
        let asked = request("a", "{}").map(|_| http_body_util::Full::new(Bytes::from("{}")));
        let answer = service.clone().oneshot(asked).await.unwrap();
        let answer = Answer::read(answer).await.unwrap();
        assert_eq!((answer.is_replay(), &answer.body[..]), (is_replay, &b"{}"[..]));
    }
}

/// The layer's own error hid the limit's: 400 in place of 413.
#[tokio::test]
async fn a_limit_of_bodies_outside_is_answered_as_without_the_layer() {
    let bare: Router = Router::new().route("/", post(|_: Bytes| async { "placed" }));
    let limited = |key: bool| {
        let mut request = request("a", &"x".repeat(2000));
        if !key {
            request.headers_mut().remove("idempotency-key");
        }
        request.map(|body| Body::new(Limited::new(body, 1000)))
    };
    let expected = send(&bare, limited(false)).await;
    assert_eq!(expected.status, 413);
    let app = bare.layer(layer());
    let keyless = send(&app, limited(false)).await;
    assert_eq!((keyless.status, keyless.body), (expected.status, expected.body));
    let keyed = send(&app, limited(true)).await;
    assert_eq!(keyed.refusal(), (413, "body_too_large".into()));
    assert_eq!(keyed.header("retry-after"), None);
}
