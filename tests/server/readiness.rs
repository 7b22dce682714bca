//! The inner service's `poll_ready` and `call`: for requests that it executes, and for no others.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use refrain::Store;
use refrain::server::{IdempotencyLayer, Idempotent};
use tower::{Layer, Service, ServiceExt};

use crate::kit::*;

const LIMIT: Duration = Duration::from_secs(10);

/// Counts how often it is made ready, and can be busy or failing.
#[derive(Clone, Default)]
struct Inner(Arc<State>);

#[derive(Default)]
struct State {
    ready: AtomicUsize,
    busy: AtomicBool,
    failing: AtomicBool,
}

#[derive(Debug, PartialEq)]
struct Failed;

impl Service<Request<refrain::server::Body>> for Inner {
    type Response = Response<Full<Bytes>>;
    type Error = Failed;
    type Future = Ready<Result<Self::Response, Failed>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        // Nobody waits for it to be ready, so there is nobody to wake.
        if self.0.busy.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.0.ready.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<refrain::server::Body>) -> Self::Future {
        let failing = self.0.failing.load(Ordering::SeqCst);
        ready(if failing { Err(Failed) } else { Ok(Response::new("done".into())) })
    }
}

struct App {
    inner: Inner,
    service: Idempotent<Inner>,
}

impl App {
    fn new() -> Self {
        let inner = Inner::default();
        let layer = IdempotencyLayer::new(Store::builder().open_in_memory().unwrap());
        Self { service: layer.layer(inner.clone()), inner }
    }

    async fn ask(&self, request: Request<Body>) -> Result<Answer, Failed> {
        let response = self.service.clone().oneshot(request);
        // Who waits for a service that is busy waits for ever.
        let response =
            tokio::time::timeout(LIMIT, response).await.expect("nothing is in its way")?;
        Ok(Answer::read(response).await.unwrap())
    }

    fn made_ready(&self) -> usize {
        self.inner.0.ready.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn the_inner_service_is_made_ready_once_for_each_request_that_it_executes() {
    let app = App::new();
    assert_eq!(app.ask(request("a", "{}")).await.unwrap().status, 200);
    assert_eq!(app.made_ready(), 1);
    assert!(app.ask(request("a", "{}")).await.unwrap().is_replay());
    assert_eq!(app.ask(request("a", "[]")).await.unwrap().status, 409);
    assert_eq!(app.ask(request("no key", "{}")).await.unwrap().status, 400);
    assert_eq!(app.made_ready(), 1);
    assert_eq!(app.ask(request("b", "{}")).await.unwrap().status, 200);
    assert_eq!(app.made_ready(), 2);
    let keyless = Request::post("/").body(Body::empty()).unwrap();
    assert_eq!(app.ask(keyless).await.unwrap().status, 200);
    assert_eq!(app.made_ready(), 3);
}

#[tokio::test]
async fn a_busy_inner_service_does_not_hold_up_replays() {
    let app = App::new();
    app.ask(request("a", "{}")).await.unwrap();
    app.inner.0.busy.store(true, Ordering::SeqCst);
    assert!(app.ask(request("a", "{}")).await.unwrap().is_replay());
}

#[tokio::test]
async fn an_error_of_the_inner_service_is_passed_on_and_frees_the_key() {
    let app = App::new();
    app.inner.0.failing.store(true, Ordering::SeqCst);
    assert_eq!(app.ask(request("a", "{}")).await.unwrap_err(), Failed);
    app.inner.0.failing.store(false, Ordering::SeqCst);
    let retry = app.ask(request("a", "{}")).await.unwrap();
    assert_eq!((retry.status.as_u16(), retry.is_replay()), (200, false));
}
