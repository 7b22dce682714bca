//! The server's dialects and store policies: `--dialect`, `--store-policy`.

use http::Method;

use crate::client::{CALL, anonymous, keyed, request};
use crate::server::{Home, whole};

const FORM: &str = "caller_id=%2B14155551234&destination=%2B14155556789";

#[tokio::test]
async fn stripes_clients_send_forms_and_get_json_of_a_deletion() {
    let home = Home::new();
    let server = home.start(&["--dialect", "stripe"]);
    let placing = || {
        let mut placing = keyed("key-1", FORM);
        let form = "application/x-www-form-urlencoded".parse().unwrap();
        placing.headers_mut().insert("content-type", form);
        placing
    };
    let placed = server.send(placing()).await;
    assert_eq!(placed.status, 201);
    assert_eq!(placed.json()["caller_id"], "+14155551234");
    let again = server.send(placing()).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &placed.body));
    let mut reordered = placing();
    *reordered.body_mut() = whole("destination=%2B14155556789&caller_id=%2b14155551234");
    assert_eq!(server.send(reordered).await.body, placed.body);

    let path = format!("/v1/calls/{}", placed.call_id());
    let deleted = server.send(request(Method::DELETE, &path).body(whole("")).unwrap()).await;
    assert_eq!((deleted.status.as_u16(), &deleted.json()["deleted"]), (200, &true.into()));
    assert_eq!(home.journal().len(), 2);
}

/// The examples of Stripe's reference are `curl -u sk_test_1:`, and were answered with 401.
#[tokio::test]
async fn stripes_clients_send_an_api_key_as_a_bearer_token_or_as_the_user_of_basic() {
    let home = Home::new();
    let server = home.start(&["--dialect", "stripe"]);
    let placing = |authorization: &'static str| {
        let mut placing = keyed("key-1", CALL);
        let authorization = http::HeaderValue::from_static(authorization);
        placing.headers_mut().insert("authorization", authorization);
        placing
    };
    let placed = server.send(placing("Basic c2tfdGVzdF8xOg==")).await;
    assert_eq!(placed.status, 201);
    let again = server.send(placing("Bearer sk_test_1")).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &placed.body));
    let refused = server.send(placing("Basic c2tfdGVzdF8xOnBhc3N3b3Jk")).await;
    let challenges: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
    assert_eq!((refused.status.as_u16(), challenges.len()), (401, 2));
}

#[tokio::test]
async fn stripes_clients_get_its_errors_and_request_id_from_every_layer() {
    let home = Home::new();
    let server = home.start(&["--dialect", "stripe"]);
    let invalid = r#"{"caller_id": "4155551234", "destination": "+14155556789"}"#;
    let invalid = server.send(keyed("key-1", invalid)).await;
    let error = &invalid.json()["error"];
    assert_eq!(
        (invalid.status.as_u16(), error["type"].as_str(), error["param"].as_str()),
        (400, Some("invalid_request_error"), Some("caller_id"))
    );
    let nobody = server.send(anonymous(Method::GET, "/v1/calls").body(whole("")).unwrap()).await;
    let lost = server.send(request(Method::GET, "/nowhere").body(whole("")).unwrap()).await;
    for (answer, status) in [(nobody, 401), (lost, 404), (invalid, 400)] {
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("request-id"), Some(answer.request_id()));
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn forms_are_for_stripes_clients_only() {
    let home = Home::new();
    let server = home.start(&[]);
    let mut placing = keyed("key-1", FORM);
    let form = "application/x-www-form-urlencoded".parse().unwrap();
    placing.headers_mut().insert("content-type", form);
    assert_eq!(server.send(placing).await.code(), "unsupported_media_type");
}

#[tokio::test]
async fn the_ietfs_clients_quote_keys_and_get_problems() {
    let home = Home::new();
    let server = home.start(&["--dialect", "ietf"]);
    assert_eq!(server.place("bare", CALL).await.status, 400);
    assert_eq!(server.place("\"key-1\"", CALL).await.status, 201);
    assert!(server.place("\"key-1\"", CALL).await.is_replay());
    let reused = server.place("\"key-1\"", "{}").await;
    assert_eq!(
        (reused.status, reused.header("content-type")),
        (422.try_into().unwrap(), Some("application/problem+json"))
    );
    assert_eq!(reused.json()["title"], "Idempotency-Key is already used");
    let invalid = server.place("\"key-2\"", "{}").await;
    assert_eq!(invalid.header("content-type"), Some("application/problem+json"));
    assert_eq!(invalid.json()["title"], "caller_id must be E.164 format");
}

#[tokio::test]
async fn a_store_policy_decides_which_errors_are_replayed() {
    let unverified = r#"{"caller_id": "+19995551234", "destination": "+14155556789"}"#;
    for (policy, replayed) in [("success", false), ("deterministic", true), ("all", true)] {
        let home = Home::new();
        let server = home.start(&["--store-policy", policy]);
        for is_replay in [false, replayed] {
            let refused = server.place("key-1", unverified).await;
            assert_eq!(refused.code(), "caller_id_not_verified");
            assert_eq!(refused.is_replay(), is_replay, "{policy}");
        }
        assert_eq!(home.journal().len(), if replayed { 1 } else { 2 });
    }
}
