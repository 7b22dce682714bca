//! The layer among others: what stands outside it is done for each request, replays included; what
//! stands inside is part of the run.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use http::{HeaderValue, Method, StatusCode};
use refrain::server::{Execution, IdempotencyLayer, Verdict};
use refrain::{Scope, Store};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::timeout::TimeoutLayer;

use crate::kit::*;

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
}

async fn send(app: &Router, request: http::Request<Body>) -> Answer {
    Answer::read(app.clone().oneshot(request).await.unwrap()).await.unwrap()
}

async fn ask(app: &Router, key: &str) -> Answer {
    send(app, request(key, "{}")).await
}

#[tokio::test]
async fn authentication_outside_is_asked_before_a_replay() {
    let revoked = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&revoked);
    let authenticate = from_fn(move |request: Request, next: Next| {
        let revoked = asked.load(Ordering::SeqCst);
        async move {
            if revoked {
                let mut refused = Response::new(Body::empty());
                *refused.status_mut() = StatusCode::UNAUTHORIZED;
                return refused;
            }
            next.run(request).await
        }
    });
    let app =
        Router::new().route("/", post(|| async { "secret" })).layer(layer()).layer(authenticate);
    assert_eq!(ask(&app, "a").await.body, "secret");
    revoked.store(true, Ordering::SeqCst);
    let refused = ask(&app, "a").await;
    assert_eq!((refused.status.as_u16(), &refused.body[..]), (401, &b""[..]));
}

#[tokio::test]
async fn the_scope_can_be_the_account_that_authentication_found() {
    let authenticate = from_fn(|mut request: Request, next: Next| {
        request.extensions_mut().insert(Scope::new("account-7"));
        next.run(request)
    });
    let app = Router::new()
        .route("/", post(|| async { "placed" }))
        .layer(layer().scope(refrain::server::scope::extension))
        .layer(authenticate);
    ask(&app, "a").await;
    let mut refreshed = request("a", "{}");
    let token = HeaderValue::from_static("Bearer another");
    refreshed.headers_mut().insert("authorization", token);
    assert!(send(&app, refreshed).await.is_replay(), "a refreshed token keeps its keys");
}

#[tokio::test]
async fn who_may_no_longer_see_an_answer_is_refused_its_replay() {
    let allowed = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&allowed);
    let layer = layer().authorize_replay(move |request, earlier| {
        let response = earlier.record.as_ref().and_then(|record| record.response());
        assert_eq!((request.uri.path(), response.is_some()), ("/", true));
        let allowed = asked.load(Ordering::SeqCst);
        async move { allowed }
    });
    let app = Router::new().route("/", post(|| async { "secret" })).layer(layer);
    ask(&app, "a").await;
    assert!(ask(&app, "a").await.is_replay());
    allowed.store(false, Ordering::SeqCst);
    assert_eq!(ask(&app, "a").await.refusal(), (403, "forbidden".into()));
}

#[tokio::test]
async fn a_limit_outside_counts_replays_and_one_inside_counts_runs() {
    let gate = Gate::default();
    let held = gate.clone();
    let handler = post(async move |body: String| {
        if body == "slow" {
            held.pass().await;
        }
        "placed"
    });
    let limit = || {
        tower::ServiceBuilder::new()
            .layer(axum::error_handling::HandleErrorLayer::new(|_| async {
                StatusCode::SERVICE_UNAVAILABLE
            }))
            .layer(LoadShedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(1))
    };
    let inside = Router::new().route("/", handler.clone()).layer(limit()).layer(layer());
    let outside = Router::new().route("/", handler).layer(layer()).layer(limit());
    for (app, replay, new) in [(inside, 200, 503), (outside, 503, 503)] {
        ask(&app, "done").await;
        let slow = tokio::spawn({
            let app = app.clone();
            async move { send(&app, request("slow", "slow")).await }
        });
        gate.entered().await;
        assert_eq!(ask(&app, "done").await.status, replay);
        assert_eq!(ask(&app, "new").await.status, new);
        gate.open(1);
        assert_eq!(slow.await.unwrap().status, 200);
        // What was shed was not run, and its key is free.
        assert!(!ask(&app, "new").await.is_replay());
    }
}

tokio::task_local! {
    static USER: &'static str;
}

/// Requests with a key ran in a task of their own, without what the tasks outside had set.
#[tokio::test]
async fn what_a_task_outside_has_set_reaches_the_handler() {
    let app = Router::new()
        .route("/", post(|| async { USER.with(|user| *user) }))
        .layer(layer())
        .layer(from_fn(|request: Request, next: Next| USER.scope("ann", next.run(request))));
    assert_eq!(ask(&app, "a").await.body, "ann");
}

/// What was shed had not run, and its durable key was interrupted all the same.
#[tokio::test]
async fn p7_what_is_shed_inside_a_durable_layer_is_free() {
    let gate = Gate::default();
    let held = gate.clone();
    let handler = tower::service_fn(move |_: http::Request<Body>| {
        let held = held.clone();
        async move {
            held.pass().await;
            Ok::<_, tower::BoxError>(Response::new(Body::from("placed")))
        }
    });
    let service = tower::ServiceBuilder::new()
        .layer(layer().durable(true))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .service(handler);
    let slow = tokio::spawn(service.clone().oneshot(request("slow", "{}")));
    gate.entered().await;
    let shed = service.clone().oneshot(request("a", "{}")).await.unwrap_err();
    assert!(shed.is::<tower::load_shed::error::Overloaded>(), "{shed}");
    gate.open(2);
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert_eq!(service.oneshot(request("a", "{}")).await.unwrap().status(), 200);
}

/// A handler that had acted returned the error of a service that it had called.
#[tokio::test]
async fn p7_a_handler_that_passes_on_that_another_service_is_busy_has_run() {
    let service = tower::service_fn(async |request: http::Request<Body>| {
        let execution: Option<&Execution> = request.extensions().get();
        execution.unwrap().downstream_key("carrier").unwrap();
        Err::<Response, tower::BoxError>(tower::load_shed::error::Overloaded::new().into())
    });
    let layer = layer().durable(true);
    let service = tower::Layer::layer(&layer, service);
    assert!(service.clone().oneshot(request("a", "{}")).await.is_err());
    let retry = Answer::read(service.oneshot(request("a", "{}")).await.unwrap()).await.unwrap();
    assert_eq!(retry.refusal(), (409, "idempotency_interrupted".into()));
}

/// A retry inside had sent the request once before the second try was shed.
#[tokio::test]
async fn p7_what_is_shed_after_a_wait_has_run() {
    let service = tower::service_fn(async |_: http::Request<Body>| {
        tokio::task::yield_now().await;
        Err::<Response, tower::BoxError>(tower::load_shed::error::Overloaded::new().into())
    });
    let service = tower::Layer::layer(&layer().durable(true), service);
    assert!(service.clone().oneshot(request("a", "{}")).await.is_err());
    let retry = Answer::read(service.oneshot(request("a", "{}")).await.unwrap()).await.unwrap();
    assert_eq!(retry.refusal(), (409, "idempotency_interrupted".into()));
}

/// The answer of a layer that turns errors into responses has the verdict of that layer.
#[tokio::test]
async fn p7_an_answer_about_a_shed_request_can_say_that_nothing_ran() {
    let shed = axum::error_handling::HandleErrorLayer::new(|_| async {
        (StatusCode::SERVICE_UNAVAILABLE, Verdict::Release, "busy")
    });
    let limit = tower::ServiceBuilder::new()
        .layer(layer().durable(true))
        .layer(shed)
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(1));
    let gate = Gate::default();
    let held = gate.clone();
    let handler = post(async move || {
        held.pass().await;
        "placed"
    });
    let app = Router::new().route("/", handler).layer(limit);
    let slow = tokio::spawn({
        let app = app.clone();
        async move { ask(&app, "slow").await }
    });
    gate.entered().await;
    assert_eq!(ask(&app, "a").await.status, 503);
    gate.open(2);
    assert_eq!(slow.await.unwrap().status, 200);
    assert_eq!(ask(&app, "a").await.body, "placed");
}

/// Clients that hang up left their handlers to run, however few an outer limit let in.
#[tokio::test]
async fn p14_handlers_whose_clients_are_gone_count_among_those_that_run() {
    let gate = Gate::default();
    let held = gate.clone();
    let handler = post(async move || {
        held.pass().await;
        "placed"
    });
    let store = Store::builder().open_in_memory().unwrap();
    let layer = IdempotencyLayer::new(store.clone()).durable(true).max_running(2);
    let hasty = Router::new().route("/", handler.clone()).layer(layer.clone().wait(Duration::ZERO));
    let app = Router::new().route("/", handler).layer(layer);
    for key in ["a", "b"] {
        let gone = tokio::spawn({
            let app = app.clone();
            async move { ask(&app, key).await }
        });
        gate.entered().await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    assert_eq!(ask(&hasty, "c").await.refusal(), (503, "idempotency_unavailable".into()));
    assert_eq!(gate.unnoticed(), 0);
    // Who has gone before a place was free is not run, and leaves its key.
    let gone = tokio::spawn({
        let app = app.clone();
        async move { ask(&app, "d").await }
    });
    while store.stats().in_flight < 3 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    while store.stats().in_flight > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.stats().open_claims, 2);
    gate.open(4);
    for key in ["a", "b"] {
        assert!(ask(&app, key).await.is_replay());
    }
    for key in ["c", "d"] {
        assert!(!ask(&app, key).await.is_replay());
    }
}

/// The effect was done when the timeout cut it off, and its key was freed.
#[tokio::test]
async fn p7_a_timeout_inside_a_durable_layer_leaves_the_key_interrupted() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let handler = post(async move || {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    });
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(20));
    let app = Router::new().route("/", handler).layer(timeout).layer(layer().durable(true));
    assert_eq!(ask(&app, "a").await.status, 504);
    assert_eq!(ask(&app, "a").await.refusal(), (409, "idempotency_interrupted".into()));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_timeout_outside_ends_the_wait_and_not_the_run() {
    let (leave, runs) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = |leave: &Arc<Semaphore>, runs: &Arc<AtomicUsize>| {
        let (leave, runs) = (Arc::clone(leave), Arc::clone(runs));
        post(async move || {
            runs.fetch_add(1, Ordering::SeqCst);
            leave.acquire().await.unwrap().forget();
            "placed"
        })
    };
    let timeout =
        || TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(20));
    let layer = layer();
    let app = Router::new().route("/", handler(&leave, &runs)).layer(layer.clone());
    let timed = app.clone().layer(timeout());
    assert_eq!(ask(&timed, "a").await.status, 504);
    leave.add_permits(1);
    // Without the timeout, so that this waits for the run however slow the machine is.
    let retry = ask(&app, "a").await;
    assert_eq!((retry.is_replay(), &retry.body[..]), (true, &b"placed"[..]));
    assert_eq!(runs.load(Ordering::SeqCst), 1);

    // Inside, it cuts the run off, which frees the key: the reason for the order.
    let cut = Router::new().route("/", handler(&leave, &runs)).layer(timeout()).layer(layer);
    assert_eq!(ask(&cut, "b").await.status, 504);
    leave.add_permits(1);
    assert!(!ask(&cut, "b").await.is_replay());
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn compression_outside_is_each_clients_own() {
    let text = "placed ".repeat(100);
    let placed = text.clone();
    let app = Router::new()
        .route("/", post(|| async { placed }))
        .layer(layer())
        .layer(CompressionLayer::new());
    let mut asked = request("a", "{}");
    asked.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
    let first = send(&app, asked).await;
    assert_eq!(first.header("content-encoding"), Some("gzip"));
    assert!(first.body.len() < text.len());
    let again = ask(&app, "a").await;
    assert_eq!((again.is_replay(), again.header("content-encoding")), (true, None));
    assert_eq!(again.body, text);
}

/// Compressed anew, a body has other bytes, as with another time in gzip's header.
fn gzipped(body: &str, time: u32) -> http::Request<Body> {
    let mut gzip = flate2::GzBuilder::new().mtime(time).write(Vec::new(), Default::default());
    gzip.write_all(body.as_bytes()).unwrap();
    let bytes = gzip.finish().unwrap();
    let mut asked = request("a", "").map(|_| Body::from(bytes));
    asked.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    asked
}

#[tokio::test]
async fn decompression_outside_lets_a_retry_compress_its_body_anew() {
    let routes = || Router::new().route("/", post(|body: String| async { body }));
    let outside = routes().layer(layer()).layer(RequestDecompressionLayer::new());
    let inside = routes().layer(RequestDecompressionLayer::new()).layer(layer());
    for (app, is_same) in [(outside, true), (inside, false)] {
        assert_eq!(send(&app, gzipped("placed", 1)).await.body, "placed");
        let again = send(&app, gzipped("placed", 2)).await;
        assert_eq!((again.is_replay(), again.status == 409), (is_same, !is_same));
        // The bytes as they were are the same request in either order.
        assert!(send(&app, gzipped("placed", 1)).await.is_replay());
        assert_eq!(send(&app, request("a", "placed")).await.is_replay(), is_same);
    }
}

/// A small body can unpack to a large one, which takes memory.
#[tokio::test]
async fn decompression_outside_leaves_the_limit_to_count_what_is_unpacked() {
    let small = layer().max_request_bytes(100);
    let app = Router::new()
        .route("/", post(|body: String| async { body }))
        .layer(small)
        .layer(RequestDecompressionLayer::new());
    let refused = send(&app, gzipped(&"x".repeat(101), 1)).await;
    assert_eq!(refused.refusal(), (413, "body_too_large".into()));
}

#[tokio::test]
async fn cors_outside_answers_preflights_and_marks_replays_for_the_origin_at_hand() {
    let origins = ["https://a.example", "https://b.example"].map(HeaderValue::from_static);
    let cors = CorsLayer::new()
        .allow_origin(origins.clone())
        .allow_methods([Method::POST])
        .allow_headers([http::HeaderName::from_static("idempotency-key")])
        .expose_headers([http::HeaderName::from_static("idempotency-replay")]);
    let app = Router::new().route("/", post(|| async { "placed" })).layer(layer()).layer(cors);
    let preflight = http::Request::options("/")
        .header("origin", &origins[0])
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "idempotency-key")
        .body(Body::empty())
        .unwrap();
    let allowed = send(&app, preflight).await;
    assert_eq!(allowed.header("access-control-allow-headers"), Some("idempotency-key"));
    for (is_replay, origin) in [(false, &origins[0]), (true, &origins[1])] {
        let mut asked = request("a", "{}");
        asked.headers_mut().insert("origin", origin.clone());
        let answer = send(&app, asked).await;
        assert_eq!(answer.is_replay(), is_replay);
        assert_eq!(answer.headers.get("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-expose-headers"), Some("idempotency-replay"));
    }
}

#[tokio::test]
async fn a_panic_that_is_caught_inside_frees_the_key_as_any_failure() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let handler = post(async move || {
        assert_ne!(counter.fetch_add(1, Ordering::SeqCst), 0, "the carrier");
        "placed"
    });
    let app = Router::new().route("/", handler).layer(CatchPanicLayer::new()).layer(layer());
    assert_eq!(ask(&app, "a").await.status, 500);
    assert_eq!(ask(&app, "a").await.status, 200);
    assert!(ask(&app, "a").await.is_replay());
}
