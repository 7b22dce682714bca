//! A response that cannot be kept passes through, and its operation never runs again.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::body::Frame;
use refrain::Store;
use refrain::server::IdempotencyLayer;

use crate::kit::*;

/// Asserts that a retry is told that the response was not kept.
async fn assert_unavailable(app: &App, original: &str) {
    let retry = app.ask("a").await;
    assert_eq!(retry.refusal(), (409, "idempotency_result_unavailable".into()));
    let json: serde_json::Value = serde_json::from_slice(&retry.body).unwrap();
    assert_eq!(json["error"]["fields"]["original_request_id"], original);
    assert_eq!(app.runs(), 1);
}

fn request_id(response: &Response<impl Sized>) -> String {
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn events_are_sent_as_they_come_and_recorded_at_once() {
    for content_type in ["text/event-stream; charset=utf-8", "Text/Event-Stream"] {
        let (frames, events) = Trickle::new();
        let head = move || Response::builder().header("content-type", content_type);
        let app = App::new(once(head, events));
        let mut response = app.respond(request("a", "{}")).await;
        // The stream is open still.
        assert_unavailable(&app, &request_id(&response)).await;
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            frames.send(Ok(data(event))).unwrap();
            let frame = response.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), event);
        }
        drop(frames);
        assert!(response.frame().await.is_none());
    }
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_passed_on_from_its_first_byte() {
    let (frames, slow) = Trickle::new();
    frames.send(Ok(data("begun "))).unwrap();
    let layer = |layer: IdempotencyLayer| layer.collect_within(Duration::from_millis(1));
    let app = App::with(Store::builder(), layer, once(Response::builder, slow));
    let response = app.respond(request("a", "{}")).await;
    assert_unavailable(&app, &request_id(&response)).await;
    frames.send(Ok(data("and ended"))).unwrap();
    drop(frames);
    assert_eq!(Answer::read(response).await.unwrap().body, "begun and ended");
}

#[tokio::test]
async fn a_body_of_unknown_length_that_is_too_long_is_passed_on_with_its_trailers() {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    let frames = [data("ten bytes."), data("and more"), Frame::trailers(trailers.clone())];
    let body = Trickle::ended(frames);
    let layer = |layer: IdempotencyLayer| layer.max_response_bytes(10);
    let app = App::with(Store::builder(), layer, once(Response::builder, body));
    let response = app.respond(request("a", "{}")).await;
    let id = request_id(&response);
    let answer = Answer::read(response).await.unwrap();
    assert_eq!((&answer.body[..], answer.trailers), (&b"ten bytes.and more"[..], Some(trailers)));
    assert_unavailable(&app, &id).await;
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_replayed() {
    let layer = |layer: IdempotencyLayer| layer.max_response_bytes(10);
    let app = App::with(Store::builder(), layer, |_| Response::new(Body::from("ten bytes.")));
    app.ask("a").await;
    let again = app.ask("a").await;
    assert_eq!((again.is_replay(), &again.body[..]), (true, &b"ten bytes."[..]));
}

#[tokio::test]
async fn a_body_that_breaks_off_does_so_for_the_client_too() {
    let (frames, broken) = Trickle::new();
    frames.send(Ok(data("half"))).unwrap();
    frames.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
    let app = App::new(once(Response::builder, broken));
    let mut response = app.respond(request("a", "{}")).await;
    assert_unavailable(&app, &request_id(&response)).await;
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    assert!(response.frame().await.unwrap().is_err());
}

/// It was recorded with its own length, which the server trusted: the rest of the announced one was
/// the beginning of the next answer on the connection, in each replay too.
#[tokio::test]
async fn a_body_of_another_length_than_it_says_breaks_off_and_is_not_kept() {
    struct Sized(Trickle, u64);

    impl hyper::body::Body for Sized {
        type Data = bytes::Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<bytes::Bytes>, io::Error>>> {
            std::pin::Pin::new(&mut self.0).poll_frame(cx)
        }

        fn size_hint(&self) -> hyper::body::SizeHint {
            hyper::body::SizeHint::with_exact(self.1)
        }
    }

    for length in [3, 60] {
        let body = || Trickle::ended([data("abc"), data("def")]);
        let announced = move || Response::builder().header("content-length", length);
        let app = App::new(once(announced, body()));
        let sized = std::sync::Arc::new(std::sync::Mutex::new(Some(Sized(body(), length))));
        let lying =
            App::new(move |_| Response::new(Body::new(sized.lock().unwrap().take().unwrap())));
        for app in [app, lying] {
            let mut response = app.respond(request("a", "{}")).await;
            let id = request_id(&response);
            assert_eq!(response.body().size_hint().exact(), None, "{length}");
            let mut sent = Vec::new();
            while let Ok(frame) = response.frame().await.expect("it ends by an error") {
                sent.extend(frame.into_data().unwrap());
            }
            assert_eq!(sent, b"abcdef", "{length}");
            assert_unavailable(&app, &id).await;
        }
    }
}

#[tokio::test]
async fn a_response_over_the_stores_limits_is_sent_and_not_kept() {
    let long_body = |_| Response::new(Body::from("more than ten bytes"));
    let long_body = App::with(Store::builder().max_response_bytes(10), |layer| layer, long_body);
    let many_headers = App::new(|_| {
        let head = (0..=refrain::Record::MAX_HEADERS)
            .fold(Response::builder(), |head, n| head.header("x-many", n));
        head.body(Body::from("many headers")).unwrap()
    });
    for (app, body) in [(long_body, "more than ten bytes"), (many_headers, "many headers")] {
        let response = app.respond(request("a", "{}")).await;
        let id = request_id(&response);
        assert_eq!(Answer::read(response).await.unwrap().body, body);
        assert_unavailable(&app, &id).await;
    }
}

#[tokio::test]
async fn another_request_under_the_key_of_a_stream_is_a_conflict() {
    let (_frames, events) = Trickle::new();
    let head = || Response::builder().header("content-type", "text/event-stream");
    let app = App::new(once(head, events));
    let _stream = app.respond(request("a", "{}")).await;
    let other = Answer::read(app.respond(request("a", "[]")).await).await.unwrap();
    assert_eq!(other.refusal(), (409, "idempotency_conflict".into()));
}

/// Answers that were collected took memory without a limit.
#[tokio::test(start_paused = true)]
async fn p14_answers_wait_for_memory_and_are_kept() {
    let layer = |layer: IdempotencyLayer| layer.max_buffered_bytes(8 * 10);
    let (first, body) = Trickle::new();
    let (second, later) = Trickle::new();
    let bodies = std::sync::Mutex::new(vec![later, body]);
    let bodies = std::sync::Arc::new(bodies);
    let app = App::with(Store::builder(), layer, move |_| {
        Response::new(Body::new(bodies.lock().unwrap().pop().unwrap()))
    });
    let app = std::sync::Arc::new(app);
    let ask = |key: &'static str| {
        let app = std::sync::Arc::clone(&app);
        tokio::spawn(async move { app.ask(key).await })
    };
    first.send(Ok(data("ten bytes."))).unwrap();
    let holder = ask("a");
    tokio::task::yield_now().await;
    second.send(Ok(data("8 bytes."))).unwrap();
    drop(second);
    let waiter = ask("b");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiter.is_finished(), "there is no memory for it");
    drop(first);
    assert_eq!(holder.await.unwrap().body, "ten bytes.");
    assert_eq!(waiter.await.unwrap().body, "8 bytes.");
    for (key, body) in [("a", "ten bytes."), ("b", "8 bytes.")] {
        let again = app.ask(key).await;
        assert_eq!((again.is_replay(), &again.body[..]), (true, body.as_bytes()));
    }
}

fn grpc_message(text: &str) -> Frame<bytes::Bytes> {
    let mut message = vec![0];
    message.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    message.extend(text.bytes());
    Frame::data(message.into())
}

/// It was held back until `collect_within` was over.
#[tokio::test(start_paused = true)]
async fn a_grpc_stream_is_passed_on_with_its_second_message_or_without_its_status() {
    let head = || Response::builder().header("content-type", "application/grpc+proto");
    for messages in [&["one", "two"][..], &["one"]] {
        let (frames, body) = Trickle::new();
        messages.iter().for_each(|text| frames.send(Ok(grpc_message(text))).unwrap());
        let app = App::new(once(head, body));
        let started = tokio::time::Instant::now();
        let mut response = app.respond(request("a", "{}")).await;
        assert!(started.elapsed() <= Duration::from_millis(100), "{:?}", started.elapsed());
        for text in messages {
            let expected = grpc_message(text).into_data().unwrap();
            let frame = response.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, expected);
        }
        assert_unavailable(&app, &request_id(&response)).await;
    }
}
