//! Bodies of requests and answers: limits, streams, and those that break off.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BodyStream, MessageBody, SizedStream};
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use actix_web::{App as ActixApp, HttpResponse, web};
use bytes::Bytes;
use futures_util::{Stream, stream};
use refrain::Store;
use refrain::server::IdempotencyLayer;
use refrain::server::actix::Idempotency;

use crate::kit::*;

type Pieces = Vec<Result<&'static str, &'static str>>;

/// A body of unknown length.
fn pieces(pieces: Pieces) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let pieces = pieces.into_iter();
    stream::iter(pieces.map(|piece| piece.map(Bytes::from).map_err(std::io::Error::other)))
}

fn streams(given: Pieces) -> impl Fn(usize) -> HttpResponse + Clone + 'static {
    move |_| HttpResponse::Ok().streaming(pieces(given.clone()))
}

#[test]
fn a_body_over_the_limit_is_refused_before_anything_is_claimed() {
    on_worker(async {
        let app =
            App::with(|layer| layer.max_request_bytes(4), |_| HttpResponse::Ok().into()).await;
        let refused = app.send(request("a", "12345")).await;
        assert_eq!(refused.refusal(), (413, "body_too_large".into()));
        let declared = request("a", "12345").insert_header(("content-length", "5"));
        assert_eq!(app.send(declared).await.refusal(), (413, "body_too_large".into()));
        assert_eq!((app.runs(), app.store.stats().in_flight), (0, 0));
        assert_eq!(app.send(request("a", "1234")).await.status, 200);
    });
}

#[test]
fn a_handler_reads_the_collected_body_by_any_extractor() {
    async fn echo(body: web::Json<Vec<u32>>) -> String {
        format!("{:?}", body.0)
    }
    async fn raw(body: web::Payload) -> String {
        String::from_utf8(body.to_bytes().await.unwrap().to_vec()).unwrap()
    }
    async fn none(body: Bytes) -> String {
        body.len().to_string()
    }
    on_worker(async {
        let layer = IdempotencyLayer::new(Store::builder().open_in_memory().unwrap());
        let app = serve!(
            ActixApp::new()
                .wrap(Idempotency::new(layer))
                .route("/", web::post().to(echo))
                .route("/raw", web::post().to(raw))
                .route("/none", web::post().to(none))
        );
        let json = request("a", "[1, 2]").insert_header((CONTENT_TYPE, "application/json"));
        assert_eq!(app.send(json).await.text(), "[1, 2]");
        assert_eq!(app.send(request("b", "piece").uri("/raw")).await.text(), "piece");
        assert_eq!(app.send(request("c", "").uri("/none")).await.text(), "0");
    });
}

/// It came in pieces from an outer middleware, and broke off.
#[test]
fn a_payload_that_breaks_off_is_refused_and_claims_nothing() {
    on_worker(async {
        let layer = IdempotencyLayer::new(Store::builder().open_in_memory().unwrap());
        let app = ActixApp::new()
            .wrap(Idempotency::new(layer))
            .wrap_fn(|mut request, service| {
                let broken = request.headers().contains_key("x-broken");
                let last =
                    if broken { Err(PayloadError::Incomplete(None)) } else { Ok("34".into()) };
                let pieces = [Ok(Bytes::from("12")), last];
                let payload: Pin<Box<dyn Stream<Item = _>>> = Box::pin(stream::iter(pieces));
                request.set_payload(payload.into());
                actix_web::dev::Service::call(service, request)
            })
            .route("/", web::post().to(|body: String| async { body }));
        let app = serve!(app);
        let broken = app.send(request("a", "").insert_header(("x-broken", "1"))).await;
        assert_eq!(broken.refusal(), (400, "body_unreadable".into()));
        assert_eq!(app.ask("a").await.text(), "1234");
        assert!(app.ask("a").await.is_replay());
    });
}

#[test]
fn a_payload_over_the_limit_of_an_outer_middleware_is_too_large() {
    on_worker(async {
        let layer = IdempotencyLayer::new(Store::builder().open_in_memory().unwrap());
        let app = ActixApp::new()
            .wrap(Idempotency::new(layer))
            .wrap_fn(|mut request, service| {
                let pieces = [Ok(Bytes::from("12")), Err(PayloadError::Overflow)];
                let payload: Pin<Box<dyn Stream<Item = _>>> = Box::pin(stream::iter(pieces));
                request.set_payload(payload.into());
                actix_web::dev::Service::call(service, request)
            })
            .route("/", web::post().to(|body: String| async { body }));
        assert_eq!(serve!(app).ask("a").await.refusal(), (413, "body_too_large".into()));
    });
}

#[test]
fn a_short_stream_is_collected_and_replayed() {
    on_worker(async {
        let app = App::new(streams(vec![Ok("one "), Ok(""), Ok("two")])).await;
        assert_eq!(app.ask("a").await.text(), "one two");
        let again = app.ask("a").await;
        assert_eq!((again.text(), again.is_replay(), app.runs()), ("one two", true, 1));
    });
}

#[test]
fn p13_streams_and_long_answers_are_recorded_without_their_bodies() {
    let unavailable = || (409, "idempotency_result_unavailable".to_owned());
    on_worker(async {
        let given = || vec![Ok("one "), Ok("two "), Ok("three")];
        let sized = move |_| HttpResponse::Ok().body(SizedStream::new(13, pieces(given())));
        let limited = |layer: IdempotencyLayer| layer.max_response_bytes(4);
        let long = App::with(limited, streams(given())).await;
        let sized = App::with(limited, sized).await;
        for app in [&long, &sized] {
            assert_eq!(app.ask("a").await.text(), "one two three");
            assert_eq!(app.ask("a").await.refusal(), unavailable());
        }

        let events = App::new(|_| {
            let events = pieces(vec![Ok("data: 1\n\n"), Ok("data: 2\n\n")]);
            HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/event-stream")).streaming(events)
        })
        .await;
        assert_eq!(events.ask("a").await.text(), "data: 1\n\ndata: 2\n\n");
        assert_eq!(events.ask("a").await.refusal(), unavailable());
        assert_eq!((long.runs(), events.runs()), (1, 1));
    });
}

#[test]
fn p1_an_answer_that_breaks_off_is_recorded_without_its_body() {
    let panics = |_| {
        let body = stream::poll_fn(|_| -> Poll<Option<Result<Bytes, PayloadError>>> {
            panic!("the body")
        });
        HttpResponse::Ok().streaming(body)
    };
    on_worker(async {
        let broken = App::new(streams(vec![Ok("one "), Err("the disk")])).await;
        let panicked = App::new(panics).await;
        for app in [broken, panicked] {
            assert_eq!(app.ask("a").await.body, None);
            let refused = app.ask("a").await.refusal();
            assert_eq!(refused, (409, "idempotency_result_unavailable".into()));
            assert_eq!(app.runs(), 1);
        }
    });
}

/// The handler has succeeded, whatever a middleware has made of its body.
#[test]
fn p15_an_answer_whose_body_panics_before_it_is_read_is_not_run_again() {
    struct Broken;

    impl MessageBody for Broken {
        type Error = std::convert::Infallible;

        fn size(&self) -> BodySize {
            panic!("the size")
        }

        fn poll_next(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Bytes, Self::Error>>> {
            Poll::Ready(None)
        }
    }

    on_worker(async {
        let layer = IdempotencyLayer::new(Store::builder().open_in_memory().unwrap());
        let app = ActixApp::new()
            .route("/", web::post().to(HttpResponse::Ok))
            .wrap_fn(|request, service| {
                let answering = actix_web::dev::Service::call(service, request);
                async { Ok(answering.await?.map_body(|_, _| Broken)) }
            })
            .wrap(Idempotency::new(layer));
        let app = serve!(app);
        assert_eq!(app.ask("a").await.body, None);
        let refused = app.ask("a").await.refusal();
        assert_eq!(refused, (409, "idempotency_result_unavailable".into()));
    });
}

/// Actix sends its own length, or chunks, whatever the header says. The answer was broken off for a
/// header that no client sees, such as the one that is left by a middleware which packs the body.
#[test]
fn a_length_that_actix_does_not_send_is_not_held_against_the_answer() {
    let saying_nine = |mut response: HttpResponse| {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("9"));
        response
    };
    let packed = || HttpResponse::Ok().streaming(pieces(vec![Ok("one "), Ok("two")]));
    on_worker(async {
        for app in [
            App::new(move |_| saying_nine(HttpResponse::Ok().body("one two"))).await,
            App::new(move |_| saying_nine(packed())).await,
        ] {
            assert_eq!(app.ask("a").await.text(), "one two");
            let again = app.ask("a").await;
            assert_eq!((again.text(), again.is_replay()), ("one two", true));
        }
        let empty = App::new(move |_| saying_nine(HttpResponse::NoContent().finish())).await;
        assert_eq!(empty.ask("a").await.status, 204);
        assert!(empty.ask("a").await.is_replay());
    });
}

#[test]
fn p1_an_answer_that_is_not_of_the_length_that_it_says_breaks_off_and_is_not_kept() {
    let body = || pieces(vec![Ok("one "), Ok("two")]);
    on_worker(async {
        for length in [3, 9] {
            let sized = move |_| HttpResponse::Ok().body(SizedStream::new(length, body()));
            let said =
                move |_| HttpResponse::Ok().no_chunking(length).body(BodyStream::new(body()));
            for app in [App::new(sized).await, App::new(said).await] {
                assert_eq!(app.ask("a").await.body, None);
                let refused = app.ask("a").await.refusal();
                assert_eq!(refused, (409, "idempotency_result_unavailable".into()));
            }
        }
    });
}
