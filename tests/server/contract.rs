//! The rows of the contract, in its order.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Method};
use refrain::clock::SimulatedClock;
use refrain::server::IdempotencyLayer;
use refrain::{Fingerprint, Operation, Scope, Store};

use crate::kit::*;

fn answers(status: u16) -> impl Fn(usize) -> Response + Clone + Send + Sync + 'static {
    move |run| Response::builder().status(status).body(Body::from(format!("run {run}"))).unwrap()
}

fn operation(key: &str) -> Operation {
    let scope = Scope::from_api_key("sk_live_51");
    Operation::new(scope, key.parse().unwrap(), Fingerprint::of(["another request"]))
}

#[tokio::test]
async fn every_mutation_takes_a_key_and_the_other_methods_ignore_it() {
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let app = App::new(answers(200));
        for is_replay in [false, true] {
            let mut asked = request("a", "{}");
            *asked.method_mut() = method.clone();
            assert_eq!(app.send(asked).await.is_replay(), is_replay, "{method}");
        }
    }
    let app = App::new(answers(200));
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let mut asked = request("not a key", "");
        *asked.method_mut() = method;
        assert_eq!(app.send(asked).await.status, 405);
    }
}

#[tokio::test]
async fn the_same_request_is_replayed_with_its_status_and_the_mark_of_a_replay() {
    let app = App::new(answers(201));
    let first = app.ask("a").await;
    assert_eq!(first.header("idempotency-replay"), None);
    let again = app.ask("a").await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replay")), (201, Some("true")));
    assert_eq!((again.body, app.runs()), (first.body, 1));
}

#[tokio::test]
async fn another_body_method_path_or_query_is_a_conflict_that_names_the_original() {
    let app = App::new(answers(201));
    let original = app.ask("a").await;
    let others = [
        request("a", "[]"),
        request("a", ""),
        request("a", "{} "),
        request("a", "{}").map_method(Method::PUT),
        request("a", "{}").map_target("/?"),
        request("a", "{}").map_target("/?dry=1"),
        request("a", "{}").map_target("/elsewhere"),
    ];
    for other in others {
        let refused = app.send(other).await;
        assert_eq!(refused.refusal(), (409, "idempotency_conflict".into()));
        let named = refused.json()["error"]["fields"]["conflicts_with"].clone();
        assert_eq!(Some(named.as_str().unwrap()), original.header("x-request-id"));
        assert_ne!(refused.header("x-request-id"), original.header("x-request-id"));
    }
    assert_eq!(app.runs(), 1);
}

trait Change {
    fn map_method(self, method: Method) -> Self;
    fn map_target(self, target: &str) -> Self;
}

impl Change for http::Request<Body> {
    fn map_method(mut self, method: Method) -> Self {
        *self.method_mut() = method;
        self
    }

    fn map_target(mut self, target: &str) -> Self {
        *self.uri_mut() = target.parse().unwrap();
        self
    }
}

#[tokio::test]
async fn p9_a_key_is_fresh_24_hours_after_its_first_success() {
    let clock = SimulatedClock::new();
    let builder = Store::builder().clock(clock.clone());
    let app = App::with(builder, |layer| layer, |run| answers([500, 201, 201][run])(run));
    app.ask("a").await;
    clock.advance(Duration::from_hours(23));
    app.ask("a").await;
    clock.advance(Duration::from_hours(24) - Duration::from_secs(1));
    assert!(app.ask("a").await.is_replay());
    clock.advance(Duration::from_secs(1));
    let fresh = app.ask("a").await;
    assert_eq!((fresh.is_replay(), &fresh.body[..]), (false, &b"run 2"[..]));
}

#[tokio::test]
async fn p6_another_token_is_another_key() {
    let app = App::new(answers(201));
    app.ask("a").await;
    let mut elsewhere = request("a", "{}");
    let token = HeaderValue::from_static("Bearer sk_live_52");
    elsewhere.headers_mut().insert("authorization", token);
    assert!(!app.send(elsewhere).await.is_replay());
    assert_eq!(app.runs(), 2);
}

#[tokio::test]
async fn a_failure_frees_the_key_and_a_success_keeps_it() {
    for failure in [400, 422, 500, 503] {
        let app = App::new(move |run| answers(if run == 0 { failure } else { 201 })(run));
        assert_eq!(app.ask("a").await.status, failure);
        assert_eq!(app.ask("a").await.status, 201);
        let again = app.ask("a").await;
        assert_eq!((again.status.as_u16(), again.is_replay()), (201, true));
        assert_eq!(app.runs(), 2);
    }
}

#[tokio::test]
async fn a_wait_that_ends_first_is_told_who_runs() {
    let app = App::with(Store::builder(), |layer| layer.wait(Duration::ZERO), answers(200));
    let running = operation("a").request_id("first".parse().unwrap());
    let _held = app.store.begin(&running).await.unwrap();
    let refused = app.ask("a").await;
    assert_eq!(refused.refusal(), (409, "idempotency_in_progress".into()));
    assert_eq!(refused.json()["error"]["fields"]["in_progress_request_id"], "first");
    assert_eq!(refused.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn keys_outside_the_grammar_are_refused_and_the_quoted_form_is_the_same_key() {
    let app = App::new(answers(200));
    let long = "k".repeat(256);
    for key in ["", "a b", "\"open", "\"a\";p=1", &long] {
        assert_eq!(
            app.ask(key).await.refusal(),
            (400, "idempotency_key_invalid".into()),
            "{key:?}"
        );
    }
    let mut bytes = request("a", "{}");
    let value = HeaderValue::from_bytes(b"cl\xc3\xa9").unwrap();
    bytes.headers_mut().insert("idempotency-key", value);
    assert_eq!(app.send(bytes).await.refusal(), (400, "idempotency_key_invalid".into()));
    let mut twice = request("a", "{}");
    twice.headers_mut().append("idempotency-key", HeaderValue::from_static("a"));
    assert_eq!(app.send(twice).await.refusal(), (400, "idempotency_key_invalid".into()));
    assert_eq!(app.runs(), 0);
    app.ask(&long[1..]).await;
    app.ask("b").await;
    assert!(app.ask("\"b\"").await.is_replay());
}

#[tokio::test]
async fn without_a_key_a_request_passes_and_a_route_can_require_one() {
    let keyless = || {
        let mut request = request("a", "{}");
        request.headers_mut().remove("idempotency-key");
        request
    };
    let app = App::new(answers(200));
    app.send(keyless()).await;
    app.send(keyless()).await;
    assert_eq!(app.runs(), 2);
    let app = App::with(Store::builder(), |layer| layer.require_key(true), answers(200));
    assert_eq!(app.send(keyless()).await.refusal(), (400, "idempotency_key_missing".into()));
    let mut read = keyless();
    *read.method_mut() = Method::GET;
    assert_eq!(app.send(read).await.status, 405);
    assert_eq!(app.runs(), 0);
}

#[tokio::test]
async fn without_one_bearer_token_a_key_is_refused() {
    let app = App::new(answers(200));
    let tokens: [&[&str]; 4] = [&[], &["Basic x"], &["Bearer"], &["Bearer a", "Bearer a"]];
    for given in tokens {
        let mut nobody = request("a", "{}");
        nobody.headers_mut().remove("authorization");
        for token in given {
            nobody.headers_mut().append("authorization", token.parse().unwrap());
        }
        let refused = app.send(nobody).await;
        assert_eq!(refused.refusal(), (401, "unauthorized".into()), "{given:?}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(app.runs(), 0);
}

#[tokio::test]
async fn every_answer_names_the_request_at_hand() {
    let app = App::new(answers(200));
    for (key, body, status) in [("a", "{}", 200), ("a", "{}", 200), ("a", "[]", 409), ("", "", 400)]
    {
        let mut named = request(key, body);
        named.headers_mut().insert("x-request-id", HeaderValue::from_static("mine-1"));
        let answer = app.send(named).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-request-id")),
            (status, Some("mine-1"))
        );
        let made = app.send(request(key, body)).await;
        assert!(made.header("x-request-id").unwrap().starts_with("req_"));
    }
}

#[tokio::test]
async fn p15_a_panic_answers_internal_error_and_frees_the_key() {
    let app = App::new(|run| if run == 0 { panic!("the carrier") } else { Response::default() });
    assert_eq!(app.ask("a").await.refusal(), (500, "internal_error".into()));
    assert_eq!(app.ask("a").await.status, 200);
    assert_eq!(app.runs(), 2);
}

#[tokio::test]
async fn a_store_that_cannot_answer_refuses_before_the_handler_runs() {
    let app = App::new(answers(200));
    app.store.close(Duration::ZERO).wait().unwrap();
    let refused = app.ask("a").await;
    assert_eq!(refused.refusal(), (503, "idempotency_unavailable".into()));
    assert_eq!((refused.header("retry-after"), app.runs()), (Some("1"), 0));
}

#[tokio::test]
async fn p6_a_scope_at_its_limit_is_told_at_once_and_others_are_served() {
    let builder = Store::builder().max_in_flight_per_scope(1);
    let app = App::with(builder, |layer| layer, answers(200));
    let held = app.store.begin(&operation("other")).await.unwrap();
    let refused = app.ask("a").await;
    assert_eq!(refused.refusal(), (429, "too_many_requests".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let mut elsewhere = request("a", "{}");
    let token = HeaderValue::from_static("Bearer sk_live_52");
    elsewhere.headers_mut().insert("authorization", token);
    assert_eq!(app.send(elsewhere).await.status, 200);
    drop(held);
    assert_eq!(app.ask("a").await.status, 200);
}

#[tokio::test]
async fn p3_only_the_headers_of_one_connection_or_moment_are_not_replayed() {
    for cookies in [false, true] {
        let configure = |layer: IdempotencyLayer| {
            if cookies { layer.replay_set_cookie(true) } else { layer }
        };
        let app = App::with(Store::builder(), configure, |_| {
            Response::builder()
                .header("connection", "close, X-Hop")
                .header("x-hop", "1")
                .header("date", "now")
                .header("server", "us")
                .header("set-cookie", "a=1")
                .header("link", "<1>")
                .header("link", "<2>")
                .header("x-raw", HeaderValue::from_bytes(b"\xfe\xff").unwrap())
                .body(Body::from("x"))
                .unwrap()
        });
        assert!(app.ask("a").await.headers.contains_key("x-hop"));
        let Answer { headers, body, .. } = app.ask("a").await;
        for gone in ["connection", "x-hop", "date", "server"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers.contains_key("set-cookie"), cookies);
        let links: Vec<_> = headers.get_all("link").iter().collect();
        assert_eq!(links, ["<1>", "<2>"]);
        assert_eq!((headers["x-raw"].as_bytes(), &body[..]), (&b"\xfe\xff"[..], &b"x"[..]));
    }
}
