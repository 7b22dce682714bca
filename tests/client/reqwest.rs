//! Through reqwest's client, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use refrain::client::{Failure, Reqwest, Stop};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

use crate::client::{CALL, request};
use crate::kit::*;
use crate::server::Home;

fn order(server: &str, key: &str) -> Request<Full<Bytes>> {
    let request = request(http::Method::POST, &format!("http://{server}/v1/calls"));
    request.header("idempotency-key", key).body(Full::new(Bytes::from(CALL))).unwrap()
}

fn through_reqwest() -> Reqwest {
    Reqwest::new(reqwest::Client::builder()).unwrap()
}

/// A server that redirects what it is sent, from `/` on; it keeps what arrives.
#[derive(Clone)]
struct Post {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<(Parts, Bytes)>>>,
}

impl Post {
    async fn open(
        redirect: impl Fn() -> Option<(u16, String)> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let post = Self { address: listener.local_addr().unwrap(), arrived: Arc::default() };
        let arrived = Arc::clone(&post.arrived);
        let answer = move |request: Request<axum::body::Body>| {
            let (arrived, redirect) = (Arc::clone(&arrived), redirect.clone());
            async move {
                let (parts, body) = request.into_parts();
                let is_first = parts.uri.path() == "/";
                let body = body.collect().await.unwrap().to_bytes();
                arrived.lock().push((parts, body));
                match redirect().filter(|_| is_first) {
                    Some((status, location)) => redirected(status, &location),
                    None => "arrived".into_response(),
                }
            }
        };
        let app = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        post
    }

    fn uri(&self) -> String {
        format!("http://{}/", self.address)
    }
}

fn redirected(status: u16, location: &str) -> Response {
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    response.headers_mut().insert("location", HeaderValue::from_str(location).unwrap());
    response
}

#[tokio::test]
async fn no_redirect_takes_an_order_to_another_origin_or_makes_a_get_of_it() {
    let other = Post::open(|| None).await;
    for status in [301, 302, 303, 307, 308] {
        let to = other.uri();
        let first = Post::open(move || Some((status, to.clone()))).await;
        let request = Request::post(first.uri()).body(Full::new(Bytes::from("order"))).unwrap();
        let error = layer().layer(through_reqwest()).oneshot(request).await.unwrap_err();
        assert!(
            matches!(error.failure(), Failure::Redirected { status: told, .. } if told.as_u16() == status)
        );
        assert_eq!((error.stop(), first.arrived.lock().len()), (Stop::Final, 1));
        assert!(other.arrived.lock().is_empty(), "{status}");
    }
}

#[tokio::test]
async fn an_order_is_sent_on_within_its_origin_as_it_was() {
    for status in [307, 308] {
        let post = Post::open(move || Some((status, "/next".into()))).await;
        let request = Request::post(post.uri()).header("authorization", "Bearer t");
        let request = request.body(Full::new(Bytes::from("order"))).unwrap();
        let response = layer().layer(through_reqwest()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let arrived = post.arrived.lock();
        let paths: Vec<_> = arrived.iter().map(|(parts, _)| parts.uri.path()).collect();
        assert_eq!(paths, ["/", "/next"]);
        for (parts, body) in arrived.iter() {
            assert_eq!((&parts.method, &body[..]), (&Method::POST, &b"order"[..]));
            assert_eq!(parts.headers["authorization"], "Bearer t");
            assert_eq!(parts.headers["idempotency-key"], arrived[0].0.headers["idempotency-key"]);
        }
    }
}

#[tokio::test]
async fn a_get_is_followed_as_reqwest_does_unless_it_has_a_key() {
    let other = Post::open(|| None).await;
    let to = other.uri();
    let first = Post::open(move || Some((302, to.clone()))).await;
    let client = layer().layer(through_reqwest());
    let get = || Request::get(first.uri());
    let response = client.clone().oneshot(get().body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(other.arrived.lock().len(), 1);
    let get = get().header("idempotency-key", "mine").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(client.oneshot(get).await.unwrap().status(), 302);
    assert_eq!(other.arrived.lock().len(), 1);
}

/// A body over the limit for buffers was sent in chunks, which some servers refuse with 411.
#[tokio::test]
async fn a_body_of_known_length_is_sent_with_it_whether_it_is_held_or_not() {
    let post = Post::open(|| None).await;
    let client = layer().max_request_bytes(1000).layer(through_reqwest());
    for len in [0, 1000, 100_000] {
        let body = Full::new(Bytes::from(vec![b'x'; len]));
        client.clone().oneshot(Request::post(post.uri()).body(body).unwrap()).await.unwrap();
        let (parts, body) = post.arrived.lock().pop().unwrap();
        assert_eq!(parts.headers["content-length"], len.to_string());
        assert_eq!(body.len(), len);
        assert!(!parts.headers.contains_key("transfer-encoding"), "{len}");
    }
    // Of unknown length.
    let pieces = ["a", "b"].map(|piece| Ok::<_, BoxError>(http_body::Frame::data(piece.into())));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
    client.oneshot(Request::post(post.uri()).body(body).unwrap()).await.unwrap();
    let (parts, body) = post.arrived.lock().pop().unwrap();
    assert_eq!(parts.headers["transfer-encoding"], "chunked");
    assert_eq!(body, "ab");
}

#[tokio::test]
async fn a_call_is_placed_and_replayed() {
    let home = Home::new();
    let server = home.start(&[]);
    let client = layer().layer(through_reqwest());
    let address = server.address.to_string();
    let mut bodies = Vec::new();
    for replayed in [false, true] {
        let response = client.clone().oneshot(order(&address, "key")).await.unwrap();
        assert_eq!((response.status().as_u16(), call_of(&response).is_replay()), (201, replayed));
        bodies.push(response.into_body().collect().await.unwrap().to_bytes());
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(home.journal().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_away_is_said_with_its_cause() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = layer().max_attempts(2).layer(through_reqwest());
    let error = client.oneshot(order(&address, "key")).await.unwrap_err();
    assert_eq!((error.call().attempts(), error.stop()), (2, Stop::Attempts));
    assert!(matches!(error.failure(), Failure::Transport(_)));
    let mut causes =
        std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    assert!(causes.any(|cause| cause.to_string().contains("refused")), "{error:?}");
}
