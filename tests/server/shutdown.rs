//! P15: runtimes that end, and stores that close, in the middle of a handler.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use refrain::server::IdempotencyLayer;
use refrain::{Error, Fingerprint, Operation, Outcome, Scope, Store};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use crate::kit::*;

/// A handler that never ends, on a runtime of its own.
struct Stuck {
    store: Store,
    runtime: Runtime,
}

impl Stuck {
    fn new(configure: fn(IdempotencyLayer) -> IdempotencyLayer) -> Self {
        let store = Store::builder().open_in_memory().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let gate = Gate::default();
        let held = gate.clone();
        let handler = post(async move || held.pass().await);
        let layer = configure(IdempotencyLayer::new(store.clone()));
        let router: Router = Router::new().route("/", handler).layer(layer);
        runtime.block_on(async move {
            tokio::spawn(router.oneshot(request("a", "{}")));
            gate.entered().await;
        });
        Self { store, runtime }
    }
}

fn operation() -> Operation {
    let scope = Scope::from_api_key("sk_live_51");
    let fingerprint = Fingerprint::of_request("POST", "/", ["{}"]);
    Operation::new(scope, "a".parse().unwrap(), fingerprint)
}

#[test]
fn p15_a_handler_that_its_runtime_kills_leaves_its_key_claimed() {
    let Stuck { store, runtime } = Stuck::new(|layer| layer);
    drop(runtime);
    let outcome = store.begin(&operation()).wait_timeout(Duration::ZERO).unwrap();
    assert!(matches!(outcome, Outcome::InFlight { .. }), "{outcome:?}");
    // It does not hold up the closing, since there is nothing to wait for.
    assert_eq!(store.close(Duration::from_secs(60)).wait().unwrap(), 0);
}

#[test]
fn p7_a_durable_handler_that_its_runtime_kills_leaves_its_key_interrupted() {
    let Stuck { store, runtime } = Stuck::new(|layer| layer.durable(true));
    drop(runtime);
    let outcome = store.begin(&operation()).wait().unwrap();
    assert!(matches!(outcome, Outcome::Interrupted(_)), "{outcome:?}");
}

#[test]
fn closing_reports_the_handlers_that_did_not_end_in_time_and_frees_no_key() {
    let Stuck { store, runtime } = Stuck::new(|layer| layer);
    assert_eq!(store.close(Duration::ZERO).wait().unwrap(), 1);
    assert!(matches!(store.begin(&operation()).wait(), Err(Error::Stopped { .. })));
    drop(runtime);
}

#[test]
fn closing_waits_for_a_handler_whose_client_is_gone() {
    let store = Store::builder().open_in_memory().unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let gate = Gate::default();
    let held = gate.clone();
    let handler = post(async move || {
        held.pass().await;
        "placed"
    });
    let layer = IdempotencyLayer::new(store.clone());
    let router: Router = Router::new().route("/", handler).layer(layer);
    runtime.block_on(async {
        let client = tokio::spawn(router.oneshot(request("a", "{}")));
        gate.entered().await;
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
    });
    let closing = store.close(Duration::from_secs(60));
    let refused = store.get(Scope::from_api_key("x"), &"x".parse().unwrap()).wait();
    assert!(matches!(refused, Err(Error::Stopped { .. })), "{refused:?}");
    gate.open(1);
    assert_eq!(closing.wait().unwrap(), 0);
    assert_eq!(store.stats().entries, 1);
}

/// Closing blocked the only thread that the handler could end on.
#[tokio::test]
async fn p15_a_store_that_is_closed_by_a_task_lets_the_other_tasks_end() {
    let store = Store::builder().open_in_memory().unwrap();
    let Ok(Outcome::Execute(permit)) = store.begin(&operation()).await else {
        panic!("the key is new")
    };
    let (leave, left) = tokio::sync::oneshot::channel();
    let handler = tokio::spawn(async move {
        left.await.unwrap();
        permit.complete(&http::Response::new("done".into())).await
    });
    let closing = tokio::spawn(store.close(Duration::from_secs(60)));
    leave.send(()).unwrap();
    assert_eq!(closing.await.unwrap().unwrap(), 0);
    handler.await.unwrap().unwrap();
}

/// A supervisor that starts a runtime again after a panic had the key of a run that was killed.
#[test]
fn p15_a_runtime_that_ends_by_a_panic_frees_no_key() {
    let Stuck { store, runtime } = Stuck::new(|layer| layer);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _runtime = runtime;
        panic!("main");
    }));
    assert!(died.is_err());
    let outcome = store.begin(&operation()).wait_timeout(Duration::ZERO).unwrap();
    assert!(matches!(outcome, Outcome::InFlight { .. }), "{outcome:?}");
}

/// The runtime was looked for where the answer was asked for, and not where it was polled.
#[test]
fn p15_an_answer_that_was_asked_for_outside_a_runtime_goes_on_in_the_one_that_polls_it() {
    let store = Store::builder().open_in_memory().unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let gate = Gate::default();
    let held = gate.clone();
    let handler = tower::service_fn(move |_: http::Request<axum::body::Body>| {
        let held = held.clone();
        async move {
            held.pass().await;
            Ok::<_, std::convert::Infallible>(
                axum::response::Response::<axum::body::Body>::default(),
            )
        }
    });
    let mut service = tower::Layer::layer(&IdempotencyLayer::new(store), handler);
    let answer = tower::Service::call(&mut service, request("a", "{}"));
    runtime.block_on(async {
        let client = tokio::spawn(answer);
        gate.entered().await;
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        gate.open(1);
        let retry = Answer::read(service.oneshot(request("a", "{}")).await.unwrap()).await.unwrap();
        assert!(retry.is_replay());
    });
}
