//! The requests that are the same: another spelling is one where that is asked for, and another
//! meaning never is.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::post;
use http::{HeaderValue, Request, header};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use refrain::Store;
use refrain::server::IdempotencyLayer;

use crate::kit::*;

fn app(configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer) -> App {
    App::with(Store::builder(), configure, |_| Response::default())
}

fn typed(key: &str, content_type: &str, body: &str) -> Request<Body> {
    let mut request = request(key, body);
    let content_type = HeaderValue::from_str(content_type).unwrap();
    request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    request
}

/// Returns true if the second of two requests gets the answer to the first, and false if they are a
/// conflict.
async fn are_the_same(app: &App, one: Request<Body>, other: Request<Body>) -> bool {
    assert_eq!(app.send(one).await.status, 200);
    let again = app.send(other).await;
    assert_eq!(again.status, if again.is_replay() { 200 } else { 409 });
    again.is_replay()
}

#[cfg(feature = "canonical-json")]
#[tokio::test]
async fn json_in_another_order_is_the_same_request_where_that_is_asked_for() {
    let json = |key, body| typed(key, "application/json", body);
    for asked_for in [false, true] {
        let app = app(|layer| layer.fingerprint_canonical_json(asked_for));
        let spellings = [r#"{"to":"x","n":1}"#, r#"{ "n": 1.0, "to": "\u0078" }"#];
        let [one, other] = spellings.map(|body| json("a", body));
        assert_eq!(are_the_same(&app, one, other).await, asked_for);
    }
}

/// Amounts were compared as doubles, and another one got the answer to the first.
#[cfg(feature = "canonical-json")]
#[tokio::test]
async fn json_with_another_amount_is_another_request_however_close_they_are() {
    let app = app(|layer| layer.fingerprint_canonical_json(true));
    for (n, (one, other)) in [
        ("100.000000000000001", "100.000000000000002"),
        ("1e-400", "0"),
        ("-0", "0"),
        ("4503599627370495.51", "4503599627370495.49"),
        ("9007199254740993", "9007199254740992"),
    ]
    .into_iter()
    .enumerate()
    {
        let [a, b] = [one, other].map(|amount| {
            typed(&n.to_string(), "application/json", &format!(r#"{{"amount":{amount}}}"#))
        });
        assert!(!are_the_same(&app, a, b).await, "{one} {other}");
    }
}

#[cfg(feature = "forms")]
#[tokio::test]
async fn a_form_in_another_order_is_the_same_request_where_that_is_asked_for() {
    let form = |key, body| typed(key, "application/x-www-form-urlencoded", body);
    for asked_for in [false, true] {
        let app = app(|layer| layer.fingerprint_forms(asked_for));
        let [one, other] = ["amount=1&to=%2B1", "to=%2b1&amount=1"].map(|body| form("a", body));
        assert_eq!(are_the_same(&app, one, other).await, asked_for);
        let [one, other] = ["to=1&to=2", "to=2&to=1"].map(|body| form("b", body));
        assert!(!are_the_same(&app, one, other).await, "the order of one name counts");
    }
}

/// Clients choose a boundary at random for each try, so that no retry was the same request.
#[cfg(feature = "forms")]
#[tokio::test]
async fn a_multipart_form_with_another_boundary_is_the_same_request_where_that_is_asked_for() {
    let form = |key: &str, boundary: &str, content: &str| {
        let part = format!("content-disposition: form-data; name=\"to\"\r\n\r\n{content}\r\n");
        let content_type = format!("multipart/form-data; boundary={boundary}");
        typed(key, &content_type, &format!("--{boundary}\r\n{part}--{boundary}--\r\n"))
    };
    for asked_for in [false, true] {
        let app = app(|layer| layer.fingerprint_forms(asked_for));
        let retry = are_the_same(&app, form("a", "AAAA", "1"), form("a", "BBBB", "1")).await;
        assert_eq!(retry, asked_for);
        assert!(!are_the_same(&app, form("b", "AAAA", "1"), form("b", "BBBB", "2")).await);
    }
}

/// A tenant got the answer to another one's request: in HTTP/2 the host is no header.
#[tokio::test]
async fn tenants_are_told_apart_by_their_hosts_in_every_protocol() {
    let store = Store::builder().open_in_memory().unwrap();
    let layer = IdempotencyLayer::new(store);
    let by_option = layer.clone().fingerprint_authority(true);
    let by_header = layer.clone().fingerprint_headers([header::HOST]);
    for (name, layer, told_apart) in
        [("none", layer, false), ("option", by_option, true), ("header", by_header, true)]
    {
        let router = Router::new().route("/", post(|| async {})).layer(layer);
        assert_eq!(ask_http2(&router, name, "a.example").await.status, 200);
        for (host, is_same) in [("b.example", !told_apart), ("A.example:443", true)] {
            let expected = if is_same { 200 } else { 409 };
            let (http1, http2) =
                (ask_http1(&router, name, host).await, ask_http2(&router, name, host).await);
            assert_eq!((http1.status.as_u16(), http2.status.as_u16()), (expected, expected));
            assert_eq!((http1.is_replay(), http2.is_replay()), (is_same, is_same), "{name} {host}");
        }
    }
}

async fn ask_http1(router: &Router, key: &str, host: &str) -> Answer {
    let mut asked = request(key, "{}");
    asked.headers_mut().insert(header::HOST, host.parse().unwrap());
    let (mut sender, connection) = http1::handshake(serve(router)).await.unwrap();
    tokio::spawn(connection);
    Answer::read(sender.send_request(asked).await.unwrap()).await.unwrap()
}

async fn ask_http2(router: &Router, key: &str, host: &str) -> Answer {
    let mut asked = request(key, "{}");
    *asked.uri_mut() = format!("http://{host}/").parse().unwrap();
    let executor = TokioExecutor::new();
    let (mut sender, connection) = http2::handshake(executor, serve(router)).await.unwrap();
    tokio::spawn(connection);
    Answer::read(sender.send_request(asked).await.unwrap()).await.unwrap()
}

/// Returns the client's end of a connection to a server.
fn serve(router: &Router) -> TokioIo<tokio::io::DuplexStream> {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let service = TowerToHyperService::new(router.clone());
    tokio::spawn(async move {
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        // The client ends the connection as it likes.
        let _ = builder.serve_connection(TokioIo::new(server), service).await;
    });
    TokioIo::new(client)
}
