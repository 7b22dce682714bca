//! Requests through an axum router, with the layer and without.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::post;
use http::Request;
use http_body_util::BodyExt;
use refrain::server::IdempotencyLayer;
use tower::{Layer, Service, ServiceExt};

const BODY: &str = r#"{"caller_id": "+14155551234", "destination": "+14155556789"}"#;

/// A layer that does nothing, in the way in which layers that box their futures do it.
#[derive(Clone)]
struct Empty;

#[derive(Clone)]
struct Boxed<S>(S);

impl<S> Layer<S> for Empty {
    type Service = Boxed<S>;

    fn layer(&self, inner: S) -> Boxed<S> {
        Boxed(inner)
    }
}

impl<S> Service<Request<Body>> for Boxed<S>
where
    S: Service<Request<Body>, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move {
            inner.oneshot(request.map(Body::new)).await.map(|answer| answer.map(Body::new))
        })
    }
}

pub(crate) fn empty(rounds: u64) {
    ask(&bare().layer(Empty), rounds, |_| None);
}

pub(crate) fn without_a_key(rounds: u64) {
    ask(&layered(), rounds, |_| None);
}

pub(crate) fn fresh(rounds: u64) {
    ask(&layered(), rounds, |n| Some(format!("9b8cfa7a-1c2d-4a88-b3c0-{n:012x}")));
}

pub(crate) fn replayed(rounds: u64) {
    ask(&layered(), rounds, |_| Some("9b8cfa7a-1c2d-4a88-b3c0-000000000000".to_owned()));
}

fn bare() -> Router {
    Router::new().route("/v1/calls", post(|body: String| async move { body }))
}

fn layered() -> Router {
    bare().layer(IdempotencyLayer::new(super::roomy_store(&super::SimulatedClock::new())))
}

fn ask(router: &Router, rounds: u64, key: impl Fn(u64) -> Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("there is memory for it");
    // Otherwise axum makes the layer anew for each request.
    let router: Router = router.clone().with_state(());
    for n in 0..rounds {
        runtime.block_on(send(router.clone(), key(n)));
    }
}

async fn send(router: Router, key: Option<String>) {
    let mut request = Request::post("/v1/calls")
        .header("authorization", "Bearer sk_live_51")
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::from(BODY)).expect("it is valid");
    let response = router.oneshot(request).await.expect("a router does not fail");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("it is whole").to_bytes();
    assert_eq!(body, BODY);
}
