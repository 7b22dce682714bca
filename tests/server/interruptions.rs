//! P7: the fate of a key whose run was interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use refrain::server::{
    Execution, IdempotencyLayer, Interruption, OnInterrupted, Recovery, Verdict,
};
use refrain::{Outcome, Store};
use tower::ServiceExt;

use crate::kit::*;

/// An app whose first run panics after a checkpoint.
struct App {
    router: Router,
    runs: Arc<AtomicUsize>,
}

impl App {
    fn new(policy: OnInterrupted) -> Self {
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&runs);
        let handler = post(move |execution: Execution| async move {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            let carrier = execution.downstream_key("carrier").unwrap();
            execution.checkpoint(carrier.as_str().to_owned()).await.unwrap();
            assert_ne!(run, 0, "interrupted");
            let checkpoints = execution.checkpoints().len();
            format!("attempt {} after {checkpoints}: {}", execution.attempt(), carrier.as_str())
        });
        let store = Store::builder().open_in_memory().unwrap();
        let layer = IdempotencyLayer::new(store).durable(true).on_interrupted(policy);
        Self { router: Router::new().route("/", handler).layer(layer), runs }
    }

    async fn ask(&self, key: &str, body: &str) -> Answer {
        let response = self.router.clone().oneshot(request(key, body)).await.unwrap();
        Answer::read(response).await.unwrap()
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn rerun_runs_again_as_the_next_attempt_with_the_same_downstream_key() {
    let app = App::new(OnInterrupted::Rerun);
    assert_eq!(app.ask("a", "{}").await.refusal(), (500, "internal_error".into()));
    let second = app.ask("a", "{}").await;
    let text = String::from_utf8(second.body.to_vec()).unwrap();
    assert!(text.starts_with("attempt 2 after 1: "), "{text}");
    assert!(app.ask("a", "{}").await.is_replay());
    assert_eq!(app.runs(), 2);
}

#[tokio::test]
async fn refuse_says_that_the_outcome_is_unknown_and_runs_nothing() {
    let app = App::new(OnInterrupted::Refuse);
    let first = app.ask("a", "{}").await;
    for _ in 0..2 {
        let refused = app.ask("a", "{}").await;
        assert_eq!(refused.refusal(), (409, "idempotency_interrupted".into()));
        let named = refused.json()["error"]["fields"]["interrupted_request_id"].clone();
        assert_eq!(Some(named.as_str().unwrap()), first.header("x-request-id"));
    }
    assert_eq!(app.ask("a", "[]").await.refusal(), (409, "idempotency_conflict".into()));
    assert_eq!(app.runs(), 1);
}

#[tokio::test]
async fn recovery_sees_the_attempt_and_its_answer_is_sent_and_replayed() {
    let app = App::new(OnInterrupted::recover(async |interruption: Interruption| {
        let found = interruption.checkpoints()[0].clone();
        assert_eq!(found, interruption.downstream_key("carrier").as_str());
        assert_eq!((interruption.attempt(), interruption.key().as_str()), (1, "a"));
        assert_eq!(interruption.request().method, "POST");
        interruption.respond(http::Response::builder().status(201).body(found).unwrap())
    }));
    app.ask("a", "{}").await;
    let found = app.ask("a", "{}").await;
    assert_eq!((found.status.as_u16(), found.is_replay()), (201, false));
    let again = app.ask("a", "{}").await;
    assert_eq!((again.is_replay(), again.body), (true, found.body));
    assert_eq!(app.runs(), 1);
}

#[tokio::test]
async fn recovery_can_run_it_again_or_find_it_done_or_not_know() {
    let rerun =
        App::new(OnInterrupted::recover(async |interruption: Interruption| interruption.rerun()));
    rerun.ask("a", "{}").await;
    assert_eq!(rerun.ask("a", "{}").await.status, 200);
    assert!(rerun.ask("a", "{}").await.is_replay());

    let done =
        App::new(OnInterrupted::recover(async |interruption: Interruption| interruption.done()));
    done.ask("a", "{}").await;
    for _ in 0..2 {
        let refused = done.ask("a", "{}").await.refusal();
        assert_eq!(refused, (409, "idempotency_result_unavailable".into()));
    }

    let unknown =
        App::new(OnInterrupted::recover(async |interruption: Interruption| interruption.refuse()));
    unknown.ask("a", "{}").await;
    for _ in 0..2 {
        let refused = unknown.ask("a", "{}").await.refusal();
        assert_eq!(refused, (409, "idempotency_interrupted".into()));
    }
    assert_eq!((rerun.runs(), done.runs(), unknown.runs()), (2, 1, 1));
}

#[tokio::test]
async fn a_recovery_that_panics_leaves_the_key_interrupted() {
    let app = App::new(OnInterrupted::recover(async |_: Interruption| -> Recovery {
        panic!("the carrier is down")
    }));
    app.ask("a", "{}").await;
    for _ in 0..2 {
        assert_eq!(app.ask("a", "{}").await.refusal(), (500, "internal_error".into()));
    }
    assert_eq!(app.runs(), 1);
}

/// A handler does not know its outcome: the next request is told so, although nothing crashed and
/// the claim was volatile.
#[tokio::test]
async fn p7_an_outcome_that_a_handler_does_not_know_interrupts_the_key() {
    let store = Store::builder().open_in_memory().unwrap();
    let handler = post(async || {
        (Extension(Verdict::Interrupt), http::StatusCode::GATEWAY_TIMEOUT).into_response()
    });
    let layer = IdempotencyLayer::new(store.clone());
    let volatile: Router = Router::new().route("/", handler).layer(layer);
    let response: Response = volatile.oneshot(request("a", "{}")).await.unwrap();
    assert_eq!(response.status(), 504);
    let operation = refrain::Operation::new(
        refrain::Scope::from_api_key("sk_live_51"),
        "a".parse().unwrap(),
        refrain::Fingerprint::of_request("POST", "/", ["{}"]),
    );
    let Ok(Outcome::Interrupted(attempt)) = store.begin(&operation).await else {
        panic!("it is not interrupted")
    };
    assert_eq!(attempt.number(), 1);
    attempt.complete(&http::Response::new(Bytes::from("found"))).await.unwrap();
    assert!(matches!(store.begin(&operation).await, Ok(Outcome::Replay(_))));
}

/// A timeout inside the layer cut a durable run off, and its key was freed as if nothing had
/// happened.
#[tokio::test]
async fn p7_a_durable_run_that_its_service_cuts_off_is_interrupted() {
    #[derive(Debug)]
    struct TimedOut;
    let ran = Arc::new(AtomicUsize::new(0));
    let runs = Arc::clone(&ran);
    let service = tower::service_fn(move |_: http::Request<refrain::server::Body>| {
        runs.fetch_add(1, Ordering::SeqCst);
        async { Err::<http::Response<axum::body::Body>, _>(TimedOut) }
    });
    for (durable, expected) in [(true, 1), (false, 2)] {
        ran.store(0, Ordering::SeqCst);
        let layer = IdempotencyLayer::new(Store::builder().open_in_memory().unwrap());
        let layer = if durable { layer.durable(true) } else { layer };
        let service = tower::Layer::layer(&layer, service.clone());
        assert!(service.clone().oneshot(request("a", "{}")).await.is_err());
        let retry = service.oneshot(request("a", "{}")).await;
        assert_eq!(retry.is_ok(), durable, "it is told, or it runs again");
        assert_eq!(ran.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn what_recovery_answers_is_stored_without_what_is_not_to_be_replayed() {
    let app = App::new(OnInterrupted::recover(async |interruption: Interruption| {
        let found = http::Response::builder()
            .header("set-cookie", "session=1")
            .header("date", "now")
            .header("etag", "1");
        interruption.respond(found.body(Bytes::from("found")).unwrap())
    }));
    app.ask("a", "{}").await;
    assert_eq!(app.ask("a", "{}").await.header("set-cookie"), Some("session=1"));
    let again = app.ask("a", "{}").await;
    assert_eq!((again.is_replay(), again.header("etag")), (true, Some("1")));
    assert_eq!((again.header("set-cookie"), again.header("date")), (None, None));
}

/// One tenant whose requests crash a handler took all durable claims of the store for a day.
#[tokio::test]
async fn p6_interrupted_keys_of_one_scope_leave_the_others_theirs() {
    let store = Store::builder().max_open_claims_per_scope(2).open_in_memory().unwrap();
    let handler = post(async |body: String| assert_eq!(body, "{}", "the carrier"));
    let app: Router =
        Router::new().route("/", handler).layer(IdempotencyLayer::new(store).durable(true));
    let send =
        async |request| Answer::read(app.clone().oneshot(request).await.unwrap()).await.unwrap();
    for key in ["a", "b"] {
        assert_eq!(send(request(key, "crash")).await.status, 500);
    }
    assert_eq!(send(request("c", "{}")).await.refusal(), (429, "too_many_requests".into()));
    let mut elsewhere = request("c", "{}");
    let token = http::HeaderValue::from_static("Bearer sk_live_52");
    elsewhere.headers_mut().insert("authorization", token);
    assert_eq!(send(elsewhere).await.status, 200);
}

/// An app of durable operations whose first run panics after it has acted, and whose other runs get
/// no further than `inner` lets them.
struct Later {
    router: Router,
    keys: Arc<std::sync::Mutex<Vec<String>>>,
    refuses: Arc<std::sync::atomic::AtomicBool>,
}

impl Later {
    fn new(layer: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer) -> Self {
        let keys = Arc::new(std::sync::Mutex::new(Vec::new()));
        let refuses = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (seen, refusing) = (Arc::clone(&keys), Arc::clone(&refuses));
        let handler = post(async move |execution: Execution| {
            if refusing.load(Ordering::SeqCst) {
                let busy = http::StatusCode::SERVICE_UNAVAILABLE;
                return (busy, Verdict::Release, "busy").into_response();
            }
            let carrier = execution.downstream_key("carrier").unwrap();
            seen.lock().unwrap().push(carrier.as_str().to_owned());
            assert_ne!(execution.attempt(), 1, "interrupted");
            http::StatusCode::OK.into_response()
        });
        let store = Store::builder().open_in_memory().unwrap();
        let rerun = IdempotencyLayer::new(store).durable(true).on_interrupted(OnInterrupted::Rerun);
        Self { router: Router::new().route("/", handler).layer(layer(rerun)), keys, refuses }
    }

    async fn ask(&self, key: &str) -> Answer {
        let response = self.router.clone().oneshot(request(key, "{}")).await.unwrap();
        Answer::read(response).await.unwrap()
    }

    fn assert_one_downstream_key(&self) {
        let keys = self.keys.lock().unwrap();
        assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    }
}

/// The refusal freed the key, and the next run acted under another downstream key.
#[tokio::test]
async fn p7_a_later_run_that_is_refused_leaves_the_operation_as_it_was() {
    let later = Later::new(|layer| layer);
    assert_eq!(later.ask("a").await.status, 500);
    later.refuses.store(true, Ordering::SeqCst);
    assert_eq!(later.ask("a").await.status, 503);
    later.refuses.store(false, Ordering::SeqCst);
    assert_eq!(later.ask("a").await.status, 200);
    later.assert_one_downstream_key();
}

#[tokio::test]
async fn p7_a_later_run_that_meets_a_plain_refusal_leaves_the_operation_as_it_was() {
    let refused = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&refused);
    let handler = post(async move |execution: Execution| {
        execution.checkpoint("asked the carrier").await.unwrap();
        assert_ne!(execution.attempt(), 1, "interrupted");
        if asked.swap(false, Ordering::SeqCst) {
            return (http::StatusCode::UNAUTHORIZED, String::new());
        }
        (http::StatusCode::OK, execution.attempt().to_string())
    });
    let store = Store::builder().open_in_memory().unwrap();
    let layer = IdempotencyLayer::new(store).durable(true).on_interrupted(OnInterrupted::Rerun);
    let app: Router = Router::new().route("/", handler).layer(layer);
    let ask = async || {
        Answer::read(app.clone().oneshot(request("a", "{}")).await.unwrap()).await.unwrap()
    };
    assert_eq!(ask().await.status, 500);
    refused.store(true, Ordering::SeqCst);
    assert_eq!(ask().await.status, 401);
    assert_eq!(ask().await.body, "3");
}

#[tokio::test]
async fn p7_a_later_run_without_a_place_leaves_the_operation_as_it_was() {
    let gate = Gate::default();
    let held = gate.clone();
    let store = Store::builder().open_in_memory().unwrap();
    let layer = IdempotencyLayer::new(store).durable(true).max_running(1);
    let layer = layer.on_interrupted(OnInterrupted::Rerun).wait(std::time::Duration::ZERO);
    let keys = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&keys);
    let handler = post(async move |execution: Execution, body: String| {
        if body == "slow" {
            held.pass().await;
            return;
        }
        let carrier = execution.downstream_key("carrier").unwrap();
        seen.lock().unwrap().push(carrier.as_str().to_owned());
        assert_ne!(execution.attempt(), 1, "interrupted");
    });
    let app: Router = Router::new().route("/", handler).layer(layer);
    let ask = async |key: &'static str, body: &'static str| {
        let response = app.clone().oneshot(request(key, body)).await.unwrap();
        Answer::read(response).await.unwrap().status.as_u16()
    };
    assert_eq!(ask("a", "{}").await, 500);
    let slow = tokio::spawn(app.clone().oneshot(request("slow", "slow")));
    gate.entered().await;
    assert_eq!(ask("a", "{}").await, 503);
    gate.open(1);
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert_eq!(ask("a", "{}").await, 200);
    let keys = keys.lock().unwrap();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
}
