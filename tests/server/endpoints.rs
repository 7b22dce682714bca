//! A key that was used at another endpoint, told from one that was used with other parameters.

use axum::Router;
use axum::routing::post;
use http::{Method, StatusCode};
use refrain::server::{IdempotencyLayer, OnInterrupted, Stripe, Verdict};
use refrain::{Fingerprint, Store};
use tower::ServiceExt;

use crate::kit::*;

const PARAMETERS: &str = "Keys for idempotent requests can only be used with the same parameters \
                          they were first used with. Try using a key other than 'a' if you meant to \
                          execute a different request.";
/// Stripe's, without the two paths.
const ENDPOINT: &str = "Keys for idempotent requests can only be used for the same endpoint they \
                        were first used for. Try using a key other than 'a' if you meant to execute \
                        a different request.";

/// Two endpoints behind one layer.
fn app(layer: IdempotencyLayer) -> Router {
    let charge = async |body: String| match &*body {
        "amount=0" => (Verdict::Interrupt, StatusCode::BAD_GATEWAY),
        _ => (Verdict::Complete, StatusCode::CREATED),
    };
    let routes = Router::new().route("/charges", post(charge).put(charge));
    let api = Router::new().nest("/v1", routes.route("/refunds", post(async || "refunded")));
    api.layer(layer.dialect(Stripe))
}

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Store::builder().open_in_memory().unwrap())
}

async fn ask(app: &Router, method: Method, target: &str, body: &'static str) -> Answer {
    let mut asked = request("a", body);
    *asked.method_mut() = method;
    *asked.uri_mut() = target.parse().unwrap();
    Answer::read(app.clone().oneshot(asked).await.unwrap()).await.unwrap()
}

/// The status, the message and the type of an error.
fn said(answer: &Answer) -> (u16, String, String) {
    let error = &answer.json()["error"];
    let [message, kind] = ["message", "type"].map(|name| error[name].as_str().unwrap().to_owned());
    (answer.status.as_u16(), message, kind)
}

fn conflict(message: &str) -> (u16, String, String) {
    (400, message.to_owned(), "idempotency_error".to_owned())
}

/// Every conflict was worded as one of parameters.
#[tokio::test]
async fn stripe_tells_a_key_of_another_endpoint_from_one_with_other_parameters() {
    // The first run is interrupted, or done.
    for first in ["amount=0", "amount=1"] {
        let app = app(layer().on_interrupted(OnInterrupted::Refuse));
        ask(&app, Method::POST, "/v1/charges", first).await;
        for (method, target, body, message) in [
            (Method::POST, "/v1/charges", "amount=2", PARAMETERS),
            (Method::POST, "/v1/charges?expand=all", first, PARAMETERS),
            (Method::POST, "/v1/refunds", first, ENDPOINT),
            (Method::POST, "/v1/refunds", "amount=2", ENDPOINT),
            (Method::PUT, "/v1/charges", first, ENDPOINT),
        ] {
            let told = ask(&app, method, target, body).await;
            assert_eq!(said(&told), conflict(message), "{target} {body}");
            assert_eq!(told.header("stripe-should-retry"), Some("false"));
        }
    }
}

#[tokio::test]
async fn who_waits_for_a_request_to_another_endpoint_is_told_so_when_it_is_done() {
    let gate = Gate::default();
    let held = gate.clone();
    let store = Store::builder().open_in_memory().unwrap();
    let charge = post(async move || held.pass().await);
    let app = Router::new().route("/charges", charge).route("/refunds", post(async || {}));
    let app = app.layer(IdempotencyLayer::new(store.clone()).dialect(Stripe));
    let ask = |target| {
        let app = app.clone();
        tokio::spawn(async move { ask(&app, Method::POST, target, "").await })
    };
    let running = ask("/charges");
    gate.entered().await;
    let waiting = ask("/refunds");
    while store.stats().in_flight < 2 {
        tokio::task::yield_now().await;
    }
    gate.open(1);
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(said(&waiting.await.unwrap()), conflict(ENDPOINT));
}

#[tokio::test]
async fn a_function_that_computes_fingerprints_says_nothing_of_endpoints() {
    let app =
        app(layer()
            .fingerprint_by(|head, body| Fingerprint::of([head.uri.path().as_bytes(), body])));
    ask(&app, Method::POST, "/v1/charges", "amount=1").await;
    let told = ask(&app, Method::POST, "/v1/refunds", "amount=1").await;
    assert_eq!(said(&told), conflict(PARAMETERS));
}

#[tokio::test]
async fn p6_who_may_not_see_an_answer_does_not_hear_of_its_endpoint() {
    let app = app(layer().authorize_replay(async |_, _| false));
    ask(&app, Method::POST, "/v1/charges", "amount=1").await;
    let told = ask(&app, Method::POST, "/v1/charges", "amount=2").await;
    assert_eq!(told.status, 403);
    let elsewhere = ask(&app, Method::POST, "/v1/refunds", "amount=1").await;
    assert_eq!((elsewhere.status, elsewhere.body), (told.status, told.body));
}
