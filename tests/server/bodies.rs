//! P3: what is replayed is what was answered.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use hyper::body::Frame;

use crate::kit::*;

#[tokio::test]
async fn p3_no_content_and_no_body_are_replayed_as_they_are() {
    for status in [200, 204, 303, 304] {
        let app =
            App::new(move |_| Response::builder().status(status).body(Body::empty()).unwrap());
        let first = app.ask("a").await;
        let again = app.ask("a").await;
        assert!(again.is_replay(), "{status}");
        assert_eq!((again.status.as_u16(), &again.body[..]), (status, &b""[..]));
        let lasting = |headers: &HeaderMap| {
            let mut headers = headers.clone();
            headers.remove("idempotency-replay");
            headers.remove("x-request-id");
            headers
        };
        assert_eq!(lasting(&again.headers), lasting(&first.headers), "{status}");
        assert_eq!(app.runs(), 1);
    }
}

#[tokio::test]
async fn p3_every_byte_of_a_body_in_frames_is_replayed() {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
    let frames = bytes.chunks(999).map(|chunk| Frame::data(Bytes::copy_from_slice(chunk)));
    let app = App::new(once(Response::builder, Trickle::ended(frames)));
    assert_eq!(app.ask("a").await.body, bytes);
    let again = app.ask("a").await;
    assert!(again.is_replay());
    assert_eq!(again.body, bytes);
}

#[tokio::test]
async fn p3_trailers_are_replayed_in_their_order() {
    let mut trailers = HeaderMap::new();
    trailers.append("x-checksum", HeaderValue::from_static("1"));
    trailers.append("x-checksum", HeaderValue::from_static("2"));
    trailers.append("x-raw", HeaderValue::from_bytes(b"\xfe\xff").unwrap());
    let body = Trickle::ended([data("one, "), data("two"), Frame::trailers(trailers.clone())]);
    let app = App::new(once(Response::builder, body));
    for is_replay in [false, true] {
        let answer = app.ask("a").await;
        assert_eq!(answer.is_replay(), is_replay);
        assert_eq!(answer.body, "one, two");
        assert_eq!(answer.trailers.as_ref(), Some(&trailers));
    }
}

fn grpc() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc+proto")
}

fn grpc_status(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(status),
    )])
}

#[tokio::test]
async fn a_grpc_error_frees_the_key_and_a_success_keeps_it() {
    let app = App::new(|run| {
        let status = if run == 0 { "13" } else { "0" };
        let trailers = Frame::trailers(grpc_status(status));
        grpc().body(Body::new(Trickle::ended([data("message"), trailers]))).unwrap()
    });
    let failed = app.ask("a").await;
    assert_eq!(failed.trailers, Some(grpc_status("13")));
    let succeeded = app.ask("a").await;
    assert!(!succeeded.is_replay());
    let again = app.ask("a").await;
    assert!(again.is_replay());
    assert_eq!((again.body, again.trailers), (succeeded.body, Some(grpc_status("0"))));
    assert_eq!(app.runs(), 2);
}

#[tokio::test]
async fn a_grpc_error_without_a_message_frees_the_key() {
    let app = App::new(|_| grpc().header("grpc-status", "13").body(Body::empty()).unwrap());
    app.ask("a").await;
    assert!(!app.ask("a").await.is_replay());
    assert_eq!(app.runs(), 2);
}

#[tokio::test]
async fn a_grpc_answer_without_a_status_is_done_and_not_replayed() {
    let app = App::new(|_| grpc().body(Body::from("cut")).unwrap());
    assert_eq!(app.ask("a").await.body, "cut");
    assert_eq!(app.ask("a").await.refusal(), (409, "idempotency_result_unavailable".into()));
    assert_eq!(app.runs(), 1);
}

#[tokio::test]
async fn a_cookie_that_was_stored_is_not_replayed_once_that_is_off() {
    let store = refrain::Store::builder().open_in_memory().unwrap();
    let layer = refrain::server::IdempotencyLayer::new(store);
    let handler = axum::routing::post(|| async { ([("set-cookie", "session=1")], "in") });
    let app = |layer| axum::Router::new().route("/", handler.clone()).layer(layer);
    let (on, off) = (app(layer.clone().replay_set_cookie(true)), app(layer));
    for (app, cookie) in [(&on, Some("session=1")), (&on, Some("session=1")), (&off, None)] {
        let response = tower::ServiceExt::oneshot(app.clone(), request("a", "{}")).await.unwrap();
        assert_eq!(Answer::read(response).await.unwrap().header("set-cookie"), cookie);
    }
}

/// The body panicked after the handler had answered, the key was freed, and the handler ran again.
#[tokio::test]
async fn a_body_that_panics_after_a_success_does_not_run_its_handler_again() {
    struct Panics;

    impl hyper::body::Body for Panics {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            panic!("the body")
        }
    }

    let app = App::new(|_| Response::new(Body::new(Panics)));
    assert_eq!(app.ask("a").await.refusal(), (500, "internal_error".into()));
    assert_eq!(app.ask("a").await.refusal(), (409, "idempotency_result_unavailable".into()));
    assert_eq!(app.runs(), 1);
}

/// A body that is always ready, and never says anything, kept its request busy past every limit.
#[tokio::test]
async fn a_body_of_empty_frames_does_not_outrun_the_limit_of_time() {
    struct Empty;

    impl hyper::body::Body for Empty {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
        }
    }

    let limit = std::time::Duration::from_millis(1);
    let layer =
        |layer: refrain::server::IdempotencyLayer| layer.collect_within(limit).read_within(limit);
    let app = App::with(refrain::Store::builder(), layer, |_| Response::new(Body::new(Empty)));
    let refused = app.send(request("b", "").map(|_| Body::new(Empty))).await;
    assert_eq!(refused.refusal(), (408, "body_too_slow".into()));
    assert_eq!(app.respond(request("a", "{}")).await.status(), 200);
    assert_eq!(app.ask("a").await.refusal(), (409, "idempotency_result_unavailable".into()));
}
