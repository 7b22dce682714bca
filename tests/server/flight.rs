//! P8 and P15: requests that share a key, and clients that are gone.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use axum::Router;
use axum::response::Response;
use axum::routing::post;
use http::StatusCode;
use refrain::Store;
use refrain::server::IdempotencyLayer;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::kit::*;

/// A handler that says when it was entered, and is left when the test says so.
struct Gate {
    router: Router,
    store: Store,
    entered: Arc<Semaphore>,
    leave: Arc<Semaphore>,
    runs: Arc<AtomicUsize>,
}

impl Gate {
    fn new(answers: &'static [StatusCode]) -> Self {
        let store = Store::builder().open_in_memory().unwrap();
        let (entered, leave) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let runs = Arc::new(AtomicUsize::new(0));
        let handler = {
            let (entered, leave, runs) =
                (Arc::clone(&entered), Arc::clone(&leave), Arc::clone(&runs));
            move || async move {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                entered.add_permits(1);
                leave.acquire().await.unwrap().forget();
                (answers[run], format!("run {run}"))
            }
        };
        let layer = IdempotencyLayer::new(store.clone());
        let router = Router::new().route("/", post(handler)).layer(layer);
        Self { router, store, entered, leave, runs }
    }

    fn ask(&self) -> impl Future<Output = Answer> + Send + 'static {
        let router = self.router.clone();
        async move {
            let response: Response = router.oneshot(request("a", "{}")).await.unwrap();
            Answer::read(response).await.unwrap()
        }
    }

    async fn enter(&self) {
        self.entered.acquire().await.unwrap().forget();
    }

    /// Waits until so many requests run or wait.
    async fn until_in_flight(&self, requests: usize) {
        while self.store.stats().in_flight < requests {
            tokio::task::yield_now().await;
        }
    }

    fn leave(&self) {
        self.leave.add_permits(1);
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn p15_a_request_that_is_dropped_runs_on_and_the_retry_waits_for_it() {
    let gate = Gate::new(&[StatusCode::CREATED]);
    let dropped = tokio::spawn(gate.ask());
    gate.enter().await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());

    let mut retry = pin!(gate.ask());
    let first_poll = poll_fn(|cx| Poll::Ready(retry.as_mut().poll(cx))).await;
    assert!(first_poll.is_pending());
    gate.leave();
    let retry = retry.await;
    assert!(retry.is_replay());
    assert_eq!((retry.status.as_u16(), &retry.body[..]), (201, &b"run 0"[..]));
    assert_eq!(gate.runs(), 1);
}

#[tokio::test]
async fn p8_whoever_waited_for_a_failure_runs_in_turn() {
    let gate = Gate::new(&[StatusCode::INTERNAL_SERVER_ERROR, StatusCode::CREATED]);
    let first = tokio::spawn(gate.ask());
    gate.enter().await;
    let second = tokio::spawn(gate.ask());
    gate.until_in_flight(2).await;
    let third = tokio::spawn(gate.ask());
    gate.until_in_flight(3).await;
    gate.leave();
    assert_eq!(first.await.unwrap().status, 500);
    gate.enter().await;
    gate.leave();
    let (second, third) = (second.await.unwrap(), third.await.unwrap());
    assert_eq!((second.is_replay(), &second.body[..]), (false, &b"run 1"[..]));
    assert_eq!((third.is_replay(), &third.body[..]), (true, &b"run 1"[..]));
    assert_eq!(gate.runs(), 2);
}

#[tokio::test]
async fn p15_a_client_that_gives_up_its_wait_leaves_its_place() {
    let gate = Gate::new(&[StatusCode::INTERNAL_SERVER_ERROR, StatusCode::CREATED]);
    let first = tokio::spawn(gate.ask());
    gate.enter().await;
    let dropped = tokio::spawn(gate.ask());
    gate.until_in_flight(2).await;
    let third = tokio::spawn(gate.ask());
    gate.until_in_flight(3).await;
    dropped.abort();
    assert!(dropped.await.is_err());
    gate.leave();
    assert_eq!(first.await.unwrap().status, 500);
    gate.enter().await;
    gate.leave();
    assert_eq!(third.await.unwrap().body, "run 1");
    assert_eq!((gate.runs(), gate.store.stats().in_flight), (2, 0));
}

/// It was promoted just before the store stopped, and ran a handler whose answer could never be
/// recorded.
#[tokio::test]
async fn p10_a_waiter_that_was_promoted_before_the_store_stopped_runs_nothing() {
    let store = Store::builder().open_in_memory().unwrap();
    let scope = refrain::Scope::from_api_key("sk_live_51");
    let operation = |n: &str| {
        let fingerprint = refrain::Fingerprint::of(["x"]);
        refrain::Operation::new(scope, "a".parse().unwrap(), fingerprint)
            .request_id(n.parse().unwrap())
    };
    let Ok(refrain::Outcome::Execute(first)) = store.begin(&operation("1")).await else {
        panic!("it is new")
    };
    let waiting = store.begin(&operation("2"));
    first.release().await.unwrap();
    assert_eq!(store.close(std::time::Duration::ZERO).wait().unwrap(), 1);
    assert!(matches!(waiting.await, Err(refrain::Error::Stopped { .. })));
}
