//! P14: the memory that the bodies of requests may take, before anything is claimed.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hyper::body::Frame;
use refrain::Store;
use refrain::server::IdempotencyLayer;

use crate::kit::*;

#[tokio::test]
async fn p14_a_body_over_the_limit_is_refused_before_anything_is_claimed() {
    let limited = || {
        App::with(Store::builder(), |layer| layer.max_request_bytes(10), |_| Response::default())
    };
    let app = limited();
    let (declared, chunked) = (request("a", "eleven byte"), {
        let body = Trickle::ended([data("eleven "), data("byte")]);
        request("a", "").map(|_| Body::new(body))
    });
    for refused in [declared, chunked] {
        assert_eq!(app.send(refused).await.refusal(), (413, "body_too_large".into()));
    }
    assert_eq!((app.runs(), app.store.stats().in_flight), (0, 0));
    assert_eq!(app.send(request("a", "ten bytes.")).await.status, 200);
}

#[tokio::test]
async fn a_refused_body_is_read_on_so_that_its_sender_gets_to_the_answer() {
    let app =
        App::with(Store::builder(), |layer| layer.max_request_bytes(1), |_| Response::default());
    let (frames, body) = Trickle::new();
    frames.send(Ok(data("more than one byte"))).unwrap();
    let refused = app.send(request("a", "").map(|_| Body::new(body))).await;
    assert_eq!(refused.status, 413);
    frames.send(Ok(data("and more"))).unwrap();
    // Its receiver is still there, and goes when the body ends.
    let closed = frames.clone();
    drop(frames);
    closed.send(Ok(data("still read"))).unwrap();
}

#[tokio::test]
async fn p14_a_body_that_takes_too_long_is_refused() {
    let limit = Duration::ZERO;
    let app =
        App::with(Store::builder(), |layer| layer.read_within(limit), |_| Response::default());
    let (frames, body) = Trickle::new();
    frames.send(Ok(data("begun"))).unwrap();
    let refused = app.send(request("a", "").map(|_| Body::new(body))).await;
    assert_eq!(refused.refusal(), (408, "body_too_slow".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!((app.runs(), app.store.stats().in_flight), (0, 0));
    assert_eq!(app.ask("a").await.status, 200);
}

#[tokio::test]
async fn p14_bodies_take_bounded_memory_in_all_and_p6_for_each_scope() {
    let limited = |layer: IdempotencyLayer| layer.max_buffered_bytes(80);
    let app = App::with(Store::builder(), limited, |_| Response::default());
    let (frames, slow) = Trickle::new();
    frames.send(Ok(data("8 bytes."))).unwrap();
    let mut slow = pin!(app.respond(request("slow", "").map(|_| Body::new(slow))));
    let first_poll = poll_fn(|cx| Poll::Ready(slow.as_mut().poll(cx))).await;
    assert!(first_poll.is_pending());
    // Its scope has an eighth of all, and the others have the rest.
    assert_eq!(app.send(request("a", "3 b")).await.refusal(), (429, "too_many_requests".into()));
    assert_eq!(app.send(request("b", "2b")).await.status, 200);
    let mut elsewhere = request("a", "10 bytes..");
    let token = http::HeaderValue::from_static("Bearer sk_live_52");
    elsewhere.headers_mut().insert("authorization", token);
    assert_eq!(app.send(elsewhere).await.status, 200);
    drop(frames);
    assert_eq!(slow.await.status(), 200);
    assert_eq!(app.send(request("c", "10 bytes..")).await.status, 200);
}

/// Each chunk was kept as it came, so that small chunks took many times the memory that was
/// counted for them.
#[tokio::test]
async fn p14_a_body_in_tiny_chunks_takes_what_is_counted() {
    let limited = |layer: IdempotencyLayer| layer.max_buffered_bytes(8 * 4096);
    let app = App::with(Store::builder(), limited, |_| Response::default());
    let chunks = |n: usize| {
        let body = Trickle::ended((0..n).map(|_| data("x")));
        request("a", "").map(|_| Body::new(body))
    };
    assert_eq!(app.send(chunks(5000)).await.refusal(), (429, "too_many_requests".into()));
    assert_eq!(app.send(chunks(2000)).await.status, 200);
    // However it is cut, it is the same body.
    assert!(app.send(request("a", &"x".repeat(2000))).await.is_replay());
}

/// A body one byte short of its end took twice its length, and kept it for as long as it liked.
#[tokio::test]
async fn p14_a_body_takes_no_more_than_its_limit_and_what_it_has_announced() {
    const LENGTH: usize = 65_536;
    let limited =
        |layer: IdempotencyLayer| layer.max_request_bytes(LENGTH).max_buffered_bytes(8 * LENGTH);
    let app = App::with(Store::builder(), limited, |_| Response::default());
    let chunks = (0..LENGTH / 8).map(|_| data("8 bytes."));
    let whole = request("a", "").map(|_| Body::new(Trickle::ended(chunks)));
    assert_eq!(app.send(whole).await.status, 200);
}

#[tokio::test]
async fn a_time_limit_without_an_end_is_one() {
    let limited = |layer: IdempotencyLayer| {
        layer.read_within(Duration::MAX).collect_within(Duration::MAX).wait(Duration::MAX)
    };
    let app = App::with(Store::builder(), limited, |_| Response::default());
    assert_eq!(app.ask("a").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn p14_a_body_that_brings_next_to_nothing_is_refused_before_its_time_is_over() {
    let limited = |layer: IdempotencyLayer| layer.read_within(Duration::from_secs(30));
    let app = App::with(Store::builder(), limited, |_| Response::default());
    for (bytes, seconds) in [(1, 10), (4096, 20)] {
        let (frames, body) = Trickle::new();
        frames.send(Ok(Frame::data(vec![b'x'; bytes].into()))).unwrap();
        let started = tokio::time::Instant::now();
        let refused = app.send(request("a", "").map(|_| Body::new(body))).await;
        assert_eq!(refused.refusal(), (408, "body_too_slow".into()));
        assert_eq!(started.elapsed().as_secs(), seconds);
    }
}

#[tokio::test]
async fn a_request_body_that_breaks_off_claims_nothing() {
    let app = App::new(|_| Response::default());
    let (frames, body) = Trickle::new();
    frames.send(Ok(data("half"))).unwrap();
    frames.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
    let refused = app.send(request("a", "").map(|_| Body::new(body))).await;
    assert_eq!(refused.refusal(), (400, "body_unreadable".into()));
    assert_eq!((app.runs(), app.store.stats().in_flight), (0, 0));
}
