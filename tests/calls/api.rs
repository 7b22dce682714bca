//! The API itself: a call's life, and errors in the one envelope.

use http::Method;

use crate::client::*;
use crate::server::*;

#[tokio::test]
async fn a_call_is_placed_read_changed_and_hung_up() {
    let home = Home::new();
    let server = home.start(&[]);
    let call = server.place("key", CALL).await;
    let path = format!("/v1/calls/{}", call.call_id());
    assert_eq!(call.header("location"), Some(&*path));
    let ask = |method, body: &str| server.send(request(method, &path).body(whole(body)).unwrap());

    assert_eq!(ask(Method::GET, "").await.json(), call.json());
    let amended = ask(Method::PATCH, r#"{"destination": "+33123456789"}"#).await.json();
    assert_eq!(amended["destination"], "+33123456789");
    assert_eq!(amended["caller_id"], "+14155551234");
    let replaced = ask(Method::PUT, OTHER_CALL).await.json();
    assert_eq!(replaced["destination"], "+442079460000");
    assert_eq!(replaced["created_at"], call.json()["created_at"]);
    assert_eq!(ask(Method::GET, "").await.json(), replaced);
    assert_eq!(ask(Method::DELETE, "").await.status, 204);
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
        let gone = ask(method.clone(), CALL).await;
        assert_eq!((gone.status.as_u16(), &*gone.code()), (404, "not_found"), "{method}");
    }
    assert_eq!(home.journal().len(), 4, "what is gone is not asked of the carrier");
}

#[tokio::test]
async fn a_token_sees_its_own_calls_only() {
    let home = Home::new();
    let server = home.start(&[]);
    let call = server.place("key", CALL).await;
    let path = format!("/v1/calls/{}", call.call_id());
    let as_other = |method, path: &str| {
        let request = anonymous(method, path).header("authorization", "Bearer OTHER");
        server.send(request.body(whole(CALL)).unwrap())
    };
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
        assert_eq!(as_other(method.clone(), &path).await.code(), "not_found", "{method}");
    }
    assert_eq!(as_other(Method::GET, "/v1/calls").await.json()["calls"], serde_json::json!([]));
    let own = server.send(request(Method::GET, "/v1/calls").body(whole("")).unwrap()).await;
    assert_eq!(own.json()["calls"], serde_json::json!([call.json()]));
}

#[tokio::test]
async fn every_mutating_method_is_replayed() {
    let home = Home::new();
    let server = home.start(&[]);
    let call = format!("/v1/calls/{}", server.place("placed", CALL).await.call_id());
    let keyed = |method: &Method| {
        let request = request(method.clone(), &call).header("idempotency-key", method.as_str());
        request.body(whole(OTHER_CALL)).unwrap()
    };
    for (method, status) in [(Method::PUT, 200), (Method::PATCH, 200), (Method::DELETE, 204)] {
        let first = server.send(keyed(&method)).await;
        assert_eq!(first.status, status, "{method}");
        assert!(!first.is_replay(), "{method}");
        let again = server.send(keyed(&method)).await;
        assert!(again.is_replay(), "{method}");
        assert_eq!(again.status, status, "{method}");
        assert_eq!(again.body, first.body, "{method}");
        assert_eq!(again.lasting_headers(), first.lasting_headers(), "{method}");
    }
    assert_eq!(home.journal().len(), 4);
}

#[tokio::test]
async fn what_is_no_call_is_refused_in_the_envelope() {
    let home = Home::new();
    let server = home.start(&[]);
    for (body, field) in [
        ("", "body"),
        ("{", "body"),
        ("[]", "body"),
        (r#"{"caller_id": 14155551234}"#, "body"),
        ("{}", "caller_id"),
        (r#"{"caller_id": "+1", "destination": "+14155556789"}"#, "caller_id"),
        (r#"{"caller_id": "+1234567890123456", "destination": "+12"}"#, "caller_id"),
        (r#"{"caller_id": "+04155551234", "destination": "+12"}"#, "caller_id"),
        (r#"{"caller_id": "+14155551234"}"#, "destination"),
        (r#"{"caller_id": "+14155551234", "destination": "415-555-6789"}"#, "destination"),
    ] {
        let answer = server.place("key", body).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (400, "validation_error"), "{body}");
        assert!(answer.field(field).is_some(), "{body}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert!(home.journal().is_empty());
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let home = Home::new();
    let server = home.start(&[]);
    let mut text = keyed("key", CALL);
    text.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let answer = server.send(text).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (415, "unsupported_media_type"));
    assert!(home.journal().is_empty());
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    let home = Home::new();
    let server = home.start(&[]);
    let answer = server.send(request(Method::DELETE, "/v1/calls").body(whole("")).unwrap()).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (405, "method_not_allowed"));
    let allowed: Vec<_> = answer.header("allow").unwrap().split(',').collect();
    assert_eq!(allowed, ["POST", "GET", "HEAD"]);
}

/// A load balancer has no token.
#[tokio::test]
async fn a_server_says_that_it_is_ready() {
    let home = Home::new();
    let server = home.start(&[]);
    let probe = anonymous(Method::GET, "/readyz").body(whole("")).unwrap();
    let answer = server.send(probe).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok\n"[..]));
}
