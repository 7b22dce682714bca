//! The layer over real sockets, in HTTP/1.1 and HTTP/2: the things that clients do to a connection,
//! and the bytes that are on it in the end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use refrain::Store;
use refrain::server::IdempotencyLayer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::{Layer, service_fn};

use crate::kit::*;

/// The time that anything may take before the test has failed.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http1,
    Http2,
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// A bare hyper server whose handler counts its runs, and which can be held in the middle of one.
struct Server {
    address: SocketAddr,
    store: Store,
    runs: Arc<AtomicUsize>,
    entered: Arc<Semaphore>,
    leave: Arc<Semaphore>,
}

impl Server {
    /// A server whose handler answers at once.
    async fn new(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        let server = Self::held(answer).await;
        server.leave.add_permits(Semaphore::MAX_PERMITS / 2);
        server
    }

    /// A server whose handler waits to be let go.
    async fn held(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        let store = Store::builder().open_in_memory().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let (entered, leave) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (runs, entered, leave) = (runs.clone(), entered.clone(), leave.clone());
            service_fn(move |request: Request<refrain::server::Body>| {
                let (runs, entered, leave) = (runs.clone(), entered.clone(), leave.clone());
                let answer = answer.clone();
                async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    Answer::read(Response::new(request.into_body())).await.unwrap();
                    entered.add_permits(1);
                    leave.acquire().await.unwrap().forget();
                    Ok::<_, std::convert::Infallible>(answer())
                }
            })
        };
        let layer = IdempotencyLayer::new(store.clone()).wait(LIMIT).max_request_bytes(100_000);
        let service = TowerToHyperService::new(layer.layer(handler));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // What becomes of a connection is the client's business.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, store, runs, entered, leave }
    }

    async fn connect(&self, protocol: Protocol) -> Client {
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.unwrap();
                let connection = tokio::spawn(async { drop(connection.await) });
                Client { sender: Sender::Http1(sender), connection }
            }
            Protocol::Http2 => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.unwrap();
                let connection = tokio::spawn(async { drop(connection.await) });
                Client { sender: Sender::Http2(sender), connection }
            }
        }
    }

    /// Sends a request on a connection of its own.
    async fn ask(&self, protocol: Protocol, key: &str) -> Answer {
        self.connect(protocol).await.send(keyed(protocol, key, "{}")).await.unwrap()
    }

    async fn enter(&self) {
        within(self.entered.acquire()).await.unwrap().forget();
    }

    async fn until_idle(&self) {
        within(async {
            while self.store.stats().in_flight > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

/// A connection. Dropped, it is closed.
struct Client {
    sender: Sender,
    connection: tokio::task::JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    async fn send(&mut self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => within(sender.send_request(request)).await?,
            Sender::Http2(sender) => within(sender.send_request(request)).await?,
        };
        within(Answer::read(response)).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it does not take so long")
}

fn keyed(protocol: Protocol, key: &str, body: &str) -> Request<Body> {
    let mut request = request(key, body);
    match protocol {
        Protocol::Http1 => {
            request.headers_mut().insert("host", HeaderValue::from_static("calls.test"));
        }
        Protocol::Http2 => *request.uri_mut() = "http://calls.test/".parse().unwrap(),
    }
    request
}

/// All headers in their order, but for those that name this answer rather than the response.
fn lasting(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    let own = ["date", "x-request-id", "idempotency-replay"];
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    headers.filter(|(name, _)| !own.contains(name)).collect()
}

#[tokio::test]
async fn p3_a_replay_on_the_wire_is_the_first_answer_but_for_its_mark() {
    let trailers = || HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), 1.into())]);
    let answers: [fn() -> http::response::Builder; 5] = [
        || Response::builder().status(201).header("link", "<1>").header("link", "<2>"),
        || Response::builder().status(204),
        || Response::builder().status(304).header("etag", "\"1\""),
        || Response::builder().status(205),
        || Response::builder().header("trailer", "x-sum"),
    ];
    for protocol in PROTOCOLS {
        for (n, head) in answers.into_iter().enumerate() {
            let server = Server::new(move || match n {
                0 => head().body(Body::from("placed")).unwrap(),
                4 => {
                    let frames = [data("placed"), Frame::trailers(trailers())];
                    head().body(Body::new(Trickle::ended(frames))).unwrap()
                }
                _ => head().body(Body::empty()).unwrap(),
            })
            .await;
            let mut client = server.connect(protocol).await;
            let mut answers = Vec::new();
            for _ in 0..2 {
                let mut request = keyed(protocol, "a", "{}");
                request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
                answers.push(client.send(request).await.unwrap());
            }
            let [first, again] = &answers[..] else { unreachable!() };
            assert!(again.is_replay() && !first.is_replay(), "{protocol:?} {n}");
            assert_eq!(again.status, first.status);
            let expected = (n == 4).then(trailers);
            assert_eq!((&first.trailers, &again.trailers), (&expected, &expected));
            assert_eq!(again.body, first.body);
            assert_eq!(lasting(&again.headers), lasting(&first.headers), "{protocol:?} {n}");
            assert_eq!(server.runs(), 1);
        }
    }
}

#[tokio::test]
async fn p15_a_client_that_disconnects_does_not_cancel_its_request() {
    for protocol in PROTOCOLS {
        let server = Server::held(|| Response::new(Body::from("placed"))).await;
        let mut client = server.connect(protocol).await;
        let asking =
            tokio::spawn(async move { client.send(keyed(protocol, "a", "{}")).await.is_ok() });
        server.enter().await;
        // The stream is reset in HTTP/2, and the connection is closed in both.
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        server.leave.add_permits(1);
        let retry = server.ask(protocol, "a").await;
        assert_eq!((retry.is_replay(), &retry.body[..], server.runs()), (true, &b"placed"[..], 1));
    }
}

#[tokio::test]
async fn p15_a_stream_that_is_reset_leaves_its_connection_and_its_request_alone() {
    let server = Server::held(|| Response::new(Body::from("placed"))).await;
    let mut client = server.connect(Protocol::Http2).await;
    let Sender::Http2(sender) = &mut client.sender else { unreachable!() };
    let mut reset = sender.clone();
    let asking =
        tokio::spawn(
            async move { reset.send_request(keyed(Protocol::Http2, "a", "{}")).await.is_ok() },
        );
    server.enter().await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    server.leave.add_permits(1);
    let retry = client.send(keyed(Protocol::Http2, "a", "{}")).await.unwrap();
    assert_eq!((retry.is_replay(), server.runs()), (true, 1));
}

#[tokio::test]
async fn p15_a_client_that_closes_its_half_of_the_connection_is_run_once() {
    let server = Server::held(|| Response::new(Body::from("placed"))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: calls.test\r\nauthorization: Bearer sk_live_51\r\n\
                idempotency-key: a\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(head.as_bytes()).await.unwrap();
    server.enter().await;
    stream.shutdown().await.unwrap();
    server.leave.add_permits(1);
    // Whether the server goes on to answer is its own business.
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    let retry = server.ask(Protocol::Http1, "a").await;
    assert_eq!((retry.is_replay(), server.runs()), (true, 1));
}

#[tokio::test]
async fn p15_a_client_that_goes_in_the_middle_of_its_body_claims_nothing() {
    let server = Server::new(|| Response::new(Body::from("placed"))).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: calls.test\r\nauthorization: Bearer sk_live_51\r\n\
                idempotency-key: a\r\ncontent-length: 2\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    let retry = server.ask(Protocol::Http1, "a").await;
    assert_eq!((retry.is_replay(), server.runs()), (false, 1));
}

#[tokio::test]
async fn p15_a_client_that_goes_while_it_waits_for_another_leaves_its_place() {
    for protocol in PROTOCOLS {
        let server = Server::held(|| Response::new(Body::from("placed"))).await;
        let mut client = server.connect(protocol).await;
        let first =
            tokio::spawn(async move { client.send(keyed(protocol, "a", "{}")).await.unwrap() });
        server.enter().await;
        let mut client = server.connect(protocol).await;
        let waiting =
            tokio::spawn(async move { client.send(keyed(protocol, "a", "{}")).await.is_ok() });
        within(async {
            while server.store.stats().in_flight < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        server.leave.add_permits(1);
        assert!(!first.await.unwrap().is_replay());
        server.until_idle().await;
        assert!(server.ask(protocol, "a").await.is_replay());
        assert_eq!(server.runs(), 1);
    }
}

#[tokio::test]
async fn p8_many_requests_with_one_key_on_one_connection_run_once() {
    const REQUESTS: usize = 100;
    let server = Server::held(|| Response::new(Body::from("placed"))).await;
    let client = server.connect(Protocol::Http2).await;
    let Sender::Http2(sender) = &client.sender else { unreachable!() };
    let asking: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let response = sender.send_request(keyed(Protocol::Http2, "a", "{}")).await;
                Answer::read(response.unwrap()).await.unwrap()
            })
        })
        .collect();
    server.enter().await;
    server.leave.add_permits(1);
    let mut replays = 0;
    for answer in asking {
        let answer = within(answer).await.unwrap();
        assert_eq!(answer.body, "placed");
        replays += usize::from(answer.is_replay());
    }
    assert_eq!((replays, server.runs()), (REQUESTS - 1, 1));
}

/// Clients that write all of their body before they read got a reset connection in place of the
/// answer.
const TOKEN: &str = "authorization: Bearer sk_live_51\r\n";
const KEY: &str = "idempotency-key: a\r\n";
const BAD_KEY: &str = "idempotency-key: a b\r\n";

/// The heads of requests that are refused before their body is read, and their answers.
const UNREAD: [([&str; 3], u16, &str); 4] = [
    ([TOKEN, KEY, ""], 413, "body_too_large"),
    ([TOKEN, BAD_KEY, ""], 400, "idempotency_key_invalid"),
    ([TOKEN, KEY, KEY], 400, "idempotency_key_invalid"),
    (["", KEY, ""], 401, "unauthorized"),
];

fn head(headers: [&str; 3], framing: &str) -> String {
    let headers = headers.concat();
    format!("POST / HTTP/1.1\r\nhost: calls.test\r\n{headers}{framing}\r\n\r\n")
}

/// Only one of the refusals read on; the others reset a connection that was still being written.
#[tokio::test]
async fn a_client_that_sends_much_gets_to_read_why_it_is_refused() {
    const CHUNKS: usize = 8;
    let server = Server::new(|| Response::new(Body::from("placed"))).await;
    let chunk = vec![b'x'; 1024 * 1024];
    for (headers, status, code) in UNREAD {
        let length = format!("content-length: {}", CHUNKS * chunk.len());
        for framing in [length, "transfer-encoding: chunked".into()] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let head = head(headers, &format!("{framing}\r\nconnection: close"));
            stream.write_all(head.as_bytes()).await.unwrap();
            let chunked = framing.ends_with("chunked");
            for _ in 0..CHUNKS {
                if chunked {
                    stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
                }
                within(stream.write_all(&chunk)).await.unwrap();
                if chunked {
                    stream.write_all(b"\r\n").await.unwrap();
                }
            }
            if chunked {
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
            assert_answer(stream, status, code).await;
        }
    }
    assert_eq!(server.runs(), 0);
}

/// Its body was never sent, and the connection was kept for a request that could not follow.
#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_that_the_connection_ends() {
    let server = Server::new(|| Response::new(Body::from("placed"))).await;
    for (headers, status, code) in UNREAD {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = head(headers, "content-length: 100001\r\nexpect: 100-continue");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = assert_answer(stream, status, code).await;
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

async fn assert_answer(mut stream: TcpStream, status: u16, code: &str) -> String {
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let expected = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&expected) && answer.contains(code), "{answer}");
    answer
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    for protocol in PROTOCOLS {
        let (frames, events) = Trickle::new();
        let head = || Response::builder().header("content-type", "text/event-stream");
        let once = once(head, events);
        let server = Server::new(move || once(0)).await;
        let mut client = server.connect(protocol).await;
        let request = keyed(protocol, "a", "{}");
        let mut response = match &mut client.sender {
            Sender::Http1(sender) => within(sender.send_request(request)).await.unwrap(),
            Sender::Http2(sender) => within(sender.send_request(request)).await.unwrap(),
        };
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            frames.send(Ok(data(event))).unwrap();
            let frame = http_body_util::BodyExt::frame(response.body_mut());
            let frame: Frame<Bytes> = within(frame).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), event);
        }
        let retry = server.ask(protocol, "a").await;
        assert_eq!(retry.refusal(), (409, "idempotency_result_unavailable".into()));
    }
}
