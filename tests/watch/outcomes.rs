//! P16: the outcomes of requests, and what a store does, in metrics and in the log.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::Request;
use refrain::clock::SimulatedClock;
use refrain::server::IdempotencyLayer;
use refrain::{Error, Fingerprint, Operation, Scope, Store};
use tower::ServiceExt;
use tower_http::trace::TraceLayer;

use crate::kit::{TOKEN, Watch};

const KEY: &str = "secret-key-1";

fn request(key: &str, body: &'static str) -> Request<Body> {
    Request::post("/calls")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("idempotency-key", key)
        .header("x-request-id", "mine-1")
        .body(Body::from(body))
        .unwrap()
}

#[tokio::test]
async fn p16_metrics_and_traces_tell_what_happened_and_no_secret() {
    let watch = Watch::begin();
    let clock = SimulatedClock::new();
    let store = Store::builder().clock(clock.clone()).open_in_memory().unwrap();
    let handler = post(|| async {
        tracing::info!("the handler runs");
        "placed"
    });
    let app = Router::new()
        .route("/calls", handler)
        .layer(IdempotencyLayer::new(store.clone()).wait(Duration::ZERO))
        .layer(TraceLayer::new_for_http());
    let send = |request| app.clone().oneshot(request);
    assert_eq!(send(request(KEY, "{}")).await.unwrap().status(), 200);
    assert_eq!(send(request(KEY, "{}")).await.unwrap().status(), 200);
    assert_eq!(send(request(KEY, "[]")).await.unwrap().status(), 409);
    let scope = Scope::from_api_key(TOKEN);
    let held = Operation::new(scope, "held".parse().unwrap(), Fingerprint::of(["x"]));
    let permit = store.begin(&held).await.unwrap();
    assert_eq!(send(request("held", "{}")).await.unwrap().status(), 409);
    drop(permit);
    clock.advance(Duration::from_hours(2));
    store.reap().unwrap();
    clock.advance(Duration::from_hours(24));
    store.reap().unwrap();

    let text = watch.text();
    let handlers = text.lines().find(|line| line.contains("the handler runs")).unwrap();
    assert!(handlers.contains("request{method=POST uri=/calls"), "{handlers}");
    assert!(handlers.contains("idempotency{key=\"") && handlers.contains("mine-1"), "{handlers}");
    for outcome in ["executed", "replayed", "idempotency_conflict", "idempotency_in_progress"] {
        assert!(text.contains(&format!("outcome=\"{outcome}\"")), "{outcome}: {text}");
        let ended = watch.lines(&format!("the request has ended: {outcome}"));
        assert!(ended.len() == 1 && ended[0].contains(" DEBUG "), "{ended:?}");
        assert!(ended[0].contains("idempotency{key=\""), "{ended:?}");
    }
    assert!(text.contains("store is open") && text.contains("dropped what has expired"), "{text}");

    let snapshot = watch.metrics().join("\n");
    for expected in [
        "refrain_begin_total{outcome=in_progress} 1",
        "refrain_begin_total{outcome=mismatch} 1",
        "refrain_begin_total{outcome=new} 2",
        "refrain_begin_total{outcome=replayed} 1",
        "refrain_complete_total{outcome=stored} 1",
        "refrain_refused_total{code=idempotency_conflict} 1",
        "refrain_refused_total{code=idempotency_in_progress} 1",
        "refrain_expired_total 1",
        "refrain_sealed_total 1",
        // All have ended.
        "refrain_in_flight_records Gauge(0.0)",
    ] {
        assert!(snapshot.contains(expected), "{expected}: {snapshot}");
    }
    for name in [
        "refrain_commit_duration_seconds",
        "refrain_commit_batch_records",
        "refrain_wait_duration_seconds",
        "refrain_sweep_duration_seconds",
        "refrain_build_info",
        "refrain_records{state=log}",
        "refrain_records{state=segment}",
    ] {
        assert!(snapshot.contains(name), "{name}: {snapshot}");
    }
    // So is what has no room.
    let small = Store::builder().log_bytes(256 * 1024).max_response_bytes(1024);
    let small = small.max_open_claims(8).open_in_memory().unwrap();
    let mut held = Vec::new();
    let refused = loop {
        let key = format!("held-{}", held.len()).parse().unwrap();
        match small.begin(&Operation::new(scope, key, Fingerprint::of(["x"]))).await {
            Ok(outcome) => held.push(outcome),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Limit { .. }), "{refused:?}");
    let rooms = watch.metrics().join("\n");
    assert!(rooms.contains("refrain_admission_total{outcome=refused} 1"), "{rooms}");
    // A clock that is not believed is told too.
    let home = tempfile::tempdir().unwrap();
    let open = || {
        let builder = Store::builder().log_bytes(1024 * 1024).clock(clock.clone());
        builder.max_response_bytes(1024).open(home.path()).unwrap()
    };
    drop(open());
    clock.reboot(Duration::from_hours(30 * 24));
    open().reap().unwrap();
    assert!(watch.text().contains("the wall clock has jumped"), "{}", watch.text());
    let clocks = watch.metrics().join("\n");
    for expected in
        ["refrain_clock_jump_seconds Gauge(2591999.0)", "refrain_boot_unknown Gauge(0.0)"]
    {
        assert!(clocks.contains(expected), "{expected}: {clocks}");
    }
    for secret in [KEY, TOKEN] {
        assert!(!watch.text().contains(secret) && !snapshot.contains(secret), "p16: {secret}");
    }
}
