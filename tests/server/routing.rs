//! The layer's place among axum's routers.

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::Request;
use refrain::Store;
use refrain::server::IdempotencyLayer;
use tower::ServiceExt;

use crate::kit::*;

fn request_to(path: &str) -> Request<Body> {
    let mut request = request("a", "{}");
    *request.uri_mut() = path.parse().unwrap();
    request
}

async fn send(router: &Router, path: &str) -> Answer {
    Answer::read(router.clone().oneshot(request_to(path)).await.unwrap()).await.unwrap()
}

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
}

/// Nesting cut the prefix off the path that the layer saw, and a key that was used for
/// `/v1/calls` was replayed for `/v2/calls`.
#[tokio::test]
async fn the_same_path_in_two_nested_routers_is_a_conflict() {
    let layer = layer();
    let calls = Router::new().route("/calls", post(|| async { "placed" })).layer(layer);
    let app = Router::new().nest("/v1", calls.clone()).nest("/v2", calls);
    assert_eq!(send(&app, "/v1/calls").await.status, 200);
    assert!(send(&app, "/v1/calls").await.is_replay());
    assert_eq!(send(&app, "/v2/calls").await.refusal(), (409, "idempotency_conflict".into()));
}

#[tokio::test]
async fn a_route_layer_and_a_layer_do_the_same() {
    let handler = || async { "placed" };
    let layered = Router::new().route("/calls", post(handler)).layer(layer());
    let route_layered = Router::new().route("/calls", post(handler)).route_layer(layer());
    let method_layered = Router::new().route("/calls", post(handler).layer(layer()));
    let merged = Router::new().route("/calls", post(handler)).layer(layer());
    let merged = Router::new().merge(merged).fallback(|| async { "elsewhere" });
    for router in [layered, route_layered, method_layered, merged] {
        assert!(!send(&router, "/calls").await.is_replay());
        let again = send(&router, "/calls").await;
        assert_eq!((again.is_replay(), &again.body[..]), (true, &b"placed"[..]));
        assert_eq!(send(&router, "/calls?dry=1").await.status, 409);
    }
}

#[tokio::test]
async fn options_of_one_route_leave_the_others_alone() {
    let layer = layer();
    let handler = || async { "placed" };
    let strict = layer.clone().require_key(true);
    let app = Router::new()
        .route("/strict", post(handler).layer(strict))
        .route("/calls", post(handler).layer(layer));
    let keyless = |path: &str| {
        let mut request = request_to(path);
        request.headers_mut().remove("idempotency-key");
        request
    };
    let refused = app.clone().oneshot(keyless("/strict")).await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(app.clone().oneshot(keyless("/calls")).await.unwrap().status(), 200);
    // They share a store, and with it the key.
    assert_eq!(send(&app, "/strict").await.status, 200);
    assert_eq!(send(&app, "/calls").await.status, 409);
}

/// The inner layer waited for the key that the outer one held, until the wait ran out.
#[tokio::test]
async fn a_layer_inside_another_lets_its_requests_pass() {
    let layer = layer();
    let calls = Router::new().route("/calls", post(|| async { "placed" })).layer(layer.clone());
    let app = Router::new().nest("/v1", calls).layer(layer);
    assert_eq!(send(&app, "/v1/calls").await.status, 200);
    assert!(send(&app, "/v1/calls").await.is_replay());
}
