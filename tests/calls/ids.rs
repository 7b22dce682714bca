//! Request ids: the client's if it is one, and on every response.

use http::Method;

use crate::client::*;
use crate::server::*;

#[tokio::test]
async fn a_well_formed_request_id_is_taken_and_echoed() {
    let home = Home::new();
    let server = home.start(&[]);
    for id in ["mine-1", "A.b_c-9", &"r".repeat(128)] {
        let mut placed = keyed(&format!("key-{}", id.len()), CALL);
        placed.headers_mut().insert("x-request-id", id.parse().unwrap());
        let answer = server.send(placed).await;
        assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1);
        assert_eq!(answer.request_id(), id);
        assert_eq!(home.journal().last().unwrap()["request_id"], id);
    }
}

#[tokio::test]
async fn a_malformed_or_repeated_request_id_is_replaced() {
    let home = Home::new();
    let server = home.start(&[]);
    let too_long = "r".repeat(129);
    for ids in [&["not one"][..], &["a/b"], &[""], &[too_long.as_str()], &["mine-1", "mine-2"]] {
        let mut listing = request(Method::GET, "/v1/calls");
        for id in ids {
            listing = listing.header("x-request-id", *id);
        }
        let answer = server.send(listing.body(whole("")).unwrap()).await;
        assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1, "{ids:?}");
        assert!(!ids.contains(&answer.request_id()), "{ids:?}");
        assert!(answer.request_id().starts_with("req_"), "{ids:?}");
    }
}

#[tokio::test]
async fn a_replay_and_a_conflict_name_their_own_request() {
    let home = Home::new();
    let server = home.start(&[]);
    let named = |id: &str, body: &str| {
        let mut placed = keyed("key", body);
        placed.headers_mut().insert("x-request-id", id.parse().unwrap());
        server.send(placed)
    };
    assert_eq!(named("first", CALL).await.request_id(), "first");
    assert_eq!(named("second", CALL).await.request_id(), "second");
    let conflict = named("third", OTHER_CALL).await;
    assert_eq!(conflict.request_id(), "third");
    assert_eq!(conflict.field("conflicts_with").as_deref(), Some("first"));
}

#[tokio::test]
async fn errors_of_every_layer_carry_the_request_id() {
    let home = Home::new();
    let server = home.start(&[]);
    let unauthorized = anonymous(Method::POST, "/v1/calls");
    let bad_key = request(Method::POST, "/v1/calls").header("idempotency-key", "not a key");
    let bad_body = request(Method::POST, "/v1/calls");
    let no_call = request(Method::GET, "/v1/calls/call_0");
    let no_method = request(Method::PUT, "/v1/calls");
    let no_route = request(Method::GET, "/v1/nowhere");
    let outside = request(Method::GET, "/");
    for (request, status) in [
        (unauthorized, 401),
        (bad_key, 400),
        (bad_body, 400),
        (no_call, 404),
        (no_method, 405),
        (no_route, 404),
        (outside, 404),
    ] {
        let request = request.header("x-request-id", "mine-1").body(whole("{}")).unwrap();
        let answer = server.send(request).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.request_id(), "mine-1");
        assert_ne!(answer.code(), "none");
    }
}
