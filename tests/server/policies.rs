//! The answers that are kept.

use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use hyper::body::Frame;
use refrain::Store;
use refrain::server::{IdempotencyLayer, KeepPolicy, Verdict};

use crate::kit::*;

/// Returns true if the answer to the first of two requests is replayed to the second.
async fn is_kept(
    configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> bool {
    let app = App::with(Store::builder(), configure, move |_| answer());
    let first = app.ask("a").await;
    let again = app.ask("a").await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(app.runs(), if again.is_replay() { 1 } else { 2 });
    again.is_replay()
}

fn status(status: u16) -> impl Fn() -> Response + Clone + Send + Sync + 'static {
    move || Response::builder().status(status).body(Body::from("why")).unwrap()
}

fn grpc(code: &'static str) -> impl Fn() -> Response + Clone + Send + Sync + 'static {
    move || {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static(code),
        )]);
        let body = Trickle::ended([data("message"), Frame::trailers(trailers)]);
        Response::builder()
            .header("content-type", "application/grpc")
            .body(Body::new(body))
            .unwrap()
    }
}

#[tokio::test]
async fn each_policy_keeps_what_it_says() {
    let kept = |policy: &KeepPolicy, code: u16| {
        let policy = policy.clone();
        is_kept(move |layer| layer.keep(policy), status(code))
    };
    let all: Vec<u16> = [200, 303].into_iter().chain(400..=431).chain([451, 500, 503]).collect();
    let deterministic =
        [200, 303, 400, 403, 404, 405, 410, 413, 414, 418, 419, 420, 422, 427, 430, 451];
    for (policy, expected) in [
        (KeepPolicy::Success, &[200, 303][..]),
        (KeepPolicy::Deterministic, &deterministic),
        (KeepPolicy::All, &all),
    ] {
        for &code in &all {
            assert_eq!(kept(&policy, code).await, expected.contains(&code), "{policy:?} {code}");
        }
    }
}

/// A failed precondition was replayed to a retry whose precondition held.
#[tokio::test]
async fn a_deterministic_policy_keeps_no_answer_that_depends_on_a_condition_or_a_time() {
    let deterministic = |layer: IdempotencyLayer| layer.keep(KeepPolicy::Deterministic);
    for code in [304, 412, 416, 428] {
        let app = App::with(Store::builder(), deterministic, move |run| {
            let code = if run == 0 { code } else { 200 };
            Response::builder().status(code).body(Body::empty()).unwrap()
        });
        assert_eq!(app.ask("a").await.status, code);
        let again = app.ask("a").await;
        assert_eq!((again.status.as_u16(), again.is_replay()), (200, false), "{code}");
    }
    let later = || Response::builder().status(403).header("retry-after", "1").body(Body::empty());
    assert!(!is_kept(deterministic, move || later().unwrap()).await);
}

/// Its status is in its body, so that nothing but HTTP's status tells of it, and it was taken for a
/// gRPC answer that was cut off.
#[tokio::test]
async fn a_grpc_web_call_is_plain_http() {
    let app = App::with(
        Store::builder(),
        |layer| layer,
        |_| {
            Response::builder()
                .header("content-type", "application/grpc-web+proto")
                .body(Body::from("message"))
                .unwrap()
        },
    );
    let call = |body: &str| {
        let mut call = request("a", body);
        let web = http::HeaderValue::from_static("application/grpc-web+proto");
        call.headers_mut().insert("content-type", web);
        call
    };
    app.send(call("1")).await;
    let again = app.send(call("1")).await;
    assert_eq!((again.is_replay(), &again.body[..]), (true, &b"message"[..]));
    assert_eq!(app.send(call("2")).await.refusal(), (409, "idempotency_conflict".into()));
}

#[tokio::test]
async fn each_policy_keeps_grpc_by_its_status() {
    let all = ["0", "1", "2", "3", "5", "6", "7", "9", "11", "12", "13", "14", "16"];
    for (policy, expected) in [
        (KeepPolicy::Success, &["0"][..]),
        (KeepPolicy::Deterministic, &["0", "3", "5", "6", "7", "12"]),
        (KeepPolicy::All, &all),
    ] {
        for code in all {
            let policy = policy.clone();
            let name = format!("{policy:?} {code}");
            let kept = is_kept(move |layer| layer.keep(policy), grpc(code)).await;
            assert_eq!(kept, expected.contains(&code), "{name}");
        }
    }
}

#[tokio::test]
async fn a_function_of_status_and_headers_decides() {
    let teapots = |layer: IdempotencyLayer| {
        layer.keep_if(|parts| parts.status == 418 && !parts.headers.contains_key("retry-after"))
    };
    assert!(is_kept(teapots, status(418)).await);
    assert!(!is_kept(teapots, status(200)).await);
    let hot = || Response::builder().status(418).header("retry-after", "1").body(Body::empty());
    assert!(!is_kept(teapots, move || hot().unwrap()).await);
}

#[tokio::test]
async fn a_handlers_word_overrides_the_policy_and_is_not_sent() {
    let with = |code: u16, verdict: Verdict| {
        move || {
            let mut response = status(code)();
            response.extensions_mut().insert(verdict);
            response
        }
    };
    assert!(is_kept(|layer| layer, with(500, Verdict::Complete)).await);
    assert!(!is_kept(|layer| layer, with(200, Verdict::Release)).await);
    let app = App::new(move |_| with(201, Verdict::CompleteWithoutResponse)());
    let sent = app.respond(request("a", "{}")).await;
    assert_eq!((sent.status().as_u16(), sent.extensions().get::<Verdict>()), (201, None));
    assert_eq!(app.ask("a").await.refusal(), (409, "idempotency_result_unavailable".into()));
}

#[tokio::test]
async fn a_failed_grpc_call_that_its_handler_wants_kept_is_kept() {
    let app = App::new(|_| {
        let mut response = grpc("13")();
        response.extensions_mut().insert(Verdict::Complete);
        response
    });
    let first = app.ask("a").await;
    let again = app.ask("a").await;
    assert_eq!((again.is_replay(), again.trailers), (true, first.trailers));
}

#[tokio::test]
async fn a_verdict_is_a_part_of_axums_responses_by_itself_and_as_an_extension() {
    let bare = || (StatusCode::BAD_GATEWAY, Verdict::Complete, "why").into_response();
    let extension =
        || (StatusCode::BAD_GATEWAY, Extension(Verdict::Complete), "why").into_response();
    assert!(is_kept(|layer| layer, bare).await);
    assert!(is_kept(|layer| layer, extension).await);
    assert!(!is_kept(|layer| layer, || (Verdict::Release, "why").into_response()).await);
    assert!(!is_kept(|layer| layer, || (Verdict::Release, StatusCode::OK).into_response()).await);
}
