//! The grammar of a request: keys, tokens and sizes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method};
use hyper::body::{Body, Frame};

use crate::client::*;
use crate::server::*;

/// The layer's limit for a request with a key.
const MAX_BODY_BYTES: usize = 1024 * 1024;

#[tokio::test]
async fn a_key_outside_the_grammar_is_refused() {
    let home = Home::new();
    let server = home.start(&[]);
    let too_long = "k".repeat(256);
    let quoted_too_long = format!("\"{too_long}\"");
    for key in [
        "",
        &too_long,
        &quoted_too_long,
        "two words",
        "clé",
        "\"",
        "\"\"",
        "\"open",
        "\"closed\" too early",
        "\"parameters\";a=1",
        "\"bad \\escape\"",
        "\"two words\"",
    ] {
        let key = HeaderValue::from_bytes(key.as_bytes()).unwrap();
        let keyed = request(Method::POST, "/v1/calls").header("idempotency-key", &key);
        let answer = server.send(keyed.body(whole(CALL)).unwrap()).await;
        assert_eq!(answer.status, 400, "{key:?}");
        assert_eq!(answer.code(), "idempotency_key_invalid", "{key:?}");
    }
    assert!(home.journal().is_empty());
}

#[tokio::test]
async fn a_key_given_twice_is_refused() {
    let home = Home::new();
    let server = home.start(&[]);
    let twice = request(Method::POST, "/v1/calls")
        .header("idempotency-key", "key")
        .header("idempotency-key", "key");
    let answer = server.send(twice.body(whole(CALL)).unwrap()).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (400, "idempotency_key_invalid"));
    assert!(home.journal().is_empty());
}

#[tokio::test]
async fn the_longest_key_and_every_visible_character_are_taken() {
    let home = Home::new();
    let server = home.start(&[]);
    let visible: String = ('!'..='~').filter(|character| *character != '"').collect();
    let keys = ["k".repeat(255), visible, "a".into(), "quote\"inside".into()];
    for key in &keys {
        assert_eq!(server.place(key, CALL).await.status, 201, "{key}");
        assert!(server.place(key, CALL).await.is_replay(), "{key}");
    }
    assert_eq!(home.journal().len(), keys.len());
}

#[tokio::test]
async fn the_quoted_and_the_bare_form_are_one_key() {
    let home = Home::new();
    let server = home.start(&[]);
    for (bare, quoted) in [("key", r#""key""#), (r#"a"b\c"#, r#""a\"b\\c""#)] {
        let first = server.place(bare, CALL).await;
        let again = server.place(quoted, CALL).await;
        assert!(again.is_replay(), "{quoted}");
        assert_eq!(again.body, first.body);
    }
    let keys: Vec<_> = home.journal().iter().map(|line| line["key"].clone()).collect();
    assert_eq!(keys, ["key", r#"a"b\c"#]);
}

#[tokio::test]
async fn keys_differ_by_case() {
    let home = Home::new();
    let server = home.start(&[]);
    server.place("key", CALL).await;
    assert!(!server.place("Key", CALL).await.is_replay());
    assert_eq!(home.journal().len(), 2);
}

#[tokio::test]
async fn a_get_ignores_the_key() {
    let home = Home::new();
    let server = home.start(&[]);
    server.place("key", CALL).await;
    for key in ["key", "not a key"] {
        let listing = request(Method::GET, "/v1/calls").header("idempotency-key", key);
        let listing = server.send(listing.body(whole("")).unwrap()).await;
        assert_eq!(listing.status, 200, "{key}");
        assert!(!listing.is_replay(), "{key}");
        assert_eq!(listing.json()["calls"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_request_without_one_bearer_token_is_unauthorized() {
    let home = Home::new();
    let server = home.start(&[]);
    for tokens in [
        &[][..],
        &[""],
        &["Bearer"],
        &["YOUR_API_KEY"],
        &["Basic YOUR_API_KEY"],
        &["BearerYOUR_API_KEY"],
        &["Bearer YOUR_API_KEY", "Bearer YOUR_API_KEY"],
    ] {
        for (method, path) in [(Method::POST, "/v1/calls"), (Method::GET, "/v1/nowhere")] {
            let mut request = anonymous(method.clone(), path).header("idempotency-key", "key");
            for token in tokens {
                request = request.header("authorization", *token);
            }
            let answer = server.send(request.body(whole(CALL)).unwrap()).await;
            assert_eq!(answer.status, 401, "{tokens:?} {method}");
            assert_eq!(answer.code(), "unauthorized", "{tokens:?} {method}");
        }
    }
    assert!(home.journal().is_empty());
}

#[tokio::test]
async fn the_scheme_of_a_token_has_no_case_and_any_number_of_spaces() {
    let home = Home::new();
    let server = home.start(&[]);
    let first = server.place("key", CALL).await;
    for token in ["bearer YOUR_API_KEY", "BEARER   YOUR_API_KEY"] {
        let again = anonymous(Method::POST, "/v1/calls").header("authorization", token);
        let again = again.header("idempotency-key", "key").body(whole(CALL)).unwrap();
        let again = server.send(again).await;
        assert!(again.is_replay(), "{token}");
        assert_eq!(again.body, first.body);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_the_rest_of_it_arrives() {
    let home = Home::new();
    let server = home.start(&[]);
    let declared = request(Method::POST, "/v1/calls")
        .header("idempotency-key", "key")
        .header("content-length", MAX_BODY_BYTES + 1)
        .body(Unfinished::new(0))
        .unwrap();
    let chunked = request(Method::POST, "/v1/calls")
        .header("idempotency-key", "key")
        .body(Unfinished::new(MAX_BODY_BYTES + 1))
        .unwrap();
    for refused in [declared, chunked] {
        let answer = server.send(refused).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (413, "body_too_large"));
    }
    assert!(home.journal().is_empty());
    assert_eq!(server.place("key", CALL).await.status, 201, "nothing was claimed");
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let home = Home::new();
    let server = home.start(&[]);
    let padded = format!("{CALL}{}", " ".repeat(MAX_BODY_BYTES - CALL.len()));
    assert_eq!(server.place("key", &padded).await.status, 201);
    assert!(server.place("key", &padded).await.is_replay());
    assert_eq!(home.journal().len(), 1);
}

/// A body whose end never comes.
struct Unfinished(Option<Bytes>);

impl Unfinished {
    fn new(bytes: usize) -> Self {
        Self(Some(Bytes::from(vec![b' '; bytes])).filter(|begun| !begun.is_empty()))
    }
}

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(begun) => Poll::Ready(Some(Ok(Frame::data(begun)))),
            None => Poll::Pending,
        }
    }
}
