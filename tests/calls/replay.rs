//! A key that has succeeded: the same request is replayed, and any other is a conflict.

use http::Method;

use crate::client::*;
use crate::server::*;

/// The contract's example, header by header.
fn example(token: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    anonymous(Method::POST, "/v1/calls")
        .header("authorization", format!("Bearer {token}"))
        .header("idempotency-key", "9b8cfa7a-1c2d-4a88-b3c0-1d2e3f4a5b6c")
        .body(whole(CALL))
        .unwrap()
}

#[tokio::test]
async fn the_contracts_example_places_one_call_and_replays_it() {
    let home = Home::new();
    let server = home.start(&[]);
    let first = server.send(example("YOUR_API_KEY")).await;
    assert_eq!(first.status, 201);
    assert!(!first.is_replay());
    let call = first.json();
    assert_eq!(call["caller_id"], "+14155551234");
    assert_eq!(call["destination"], "+14155556789");
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    assert_eq!(call["status"], "queued");
    assert!(call["created_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());

    let again = server.send(example("YOUR_API_KEY")).await;
    assert!(again.is_replay());
    assert_eq!(again.status, 201);
    assert_eq!(again.body, first.body);
    assert_eq!(again.lasting_headers(), first.lasting_headers());
    assert_ne!(again.request_id(), first.request_id());

    let [line] = &home.journal()[..] else { panic!("the handler ran once") };
    assert_eq!(line["request_id"], first.request_id());
    assert_eq!(line["method"], "POST");
    assert_eq!(line["path"], "/v1/calls");
    assert_eq!(line["key"], "9b8cfa7a-1c2d-4a88-b3c0-1d2e3f4a5b6c");
}

#[tokio::test]
async fn another_body_is_a_conflict_that_names_the_original_request() {
    let home = Home::new();
    let server = home.start(&[]);
    let first = server.place("key", CALL).await;
    // The same call in other bytes is another body.
    for body in [OTHER_CALL, &CALL.replace(' ', "")] {
        let other = server.place("key", body).await;
        assert_eq!((other.status.as_u16(), other.code().as_str()), (409, "idempotency_conflict"));
        assert_eq!(other.field("conflicts_with").as_deref(), Some(first.request_id()));
        assert_ne!(other.request_id(), first.request_id());
    }
    assert_eq!(home.journal().len(), 1);
    assert_eq!(server.place("key", CALL).await.body, first.body);
}

#[tokio::test]
async fn another_method_path_or_query_is_a_conflict() {
    let home = Home::new();
    let server = home.start(&[]);
    let first = server.place("key", CALL).await;
    let call = format!("/v1/calls/{}", first.call_id());
    for (method, path) in [
        (Method::POST, "/v1/calls?"),
        (Method::POST, "/v1/calls?dry=1"),
        (Method::POST, "/v1/calls/"),
        (Method::PUT, "/v1/calls"),
        (Method::PUT, &call),
        (Method::PATCH, &call),
        (Method::DELETE, &call),
    ] {
        let keyed = request(method.clone(), path).header("idempotency-key", "key");
        let other = server.send(keyed.body(whole(CALL)).unwrap()).await;
        assert_eq!(other.code(), "idempotency_conflict", "{method} {path}");
        assert_eq!(other.field("conflicts_with").as_deref(), Some(first.request_id()));
    }
    assert_eq!(home.journal().len(), 1);
}

#[tokio::test]
async fn p6_another_token_has_keys_of_its_own() {
    let home = Home::new();
    let server = home.start(&[]);
    let first = server.send(example("one")).await;
    let other = server.send(example("two")).await;
    assert_eq!(other.status, 201);
    assert!(!other.is_replay());
    assert_ne!(other.call_id(), first.call_id());
    assert_eq!(server.send(example("one")).await.body, first.body);
    assert_eq!(server.send(example("two")).await.body, other.body);
    assert_eq!(home.journal().len(), 2);
}

#[tokio::test]
async fn without_a_key_each_request_runs() {
    let home = Home::new();
    let server = home.start(&[]);
    let keyless = || request(Method::POST, "/v1/calls").body(whole(CALL)).unwrap();
    let first = server.send(keyless()).await;
    let second = server.send(keyless()).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201));
    assert_ne!(first.call_id(), second.call_id());
    let keys: Vec<_> = home.journal().iter().map(|line| line["key"].is_null()).collect();
    assert_eq!(keys, [true, true]);
}

#[tokio::test]
async fn a_kill_loses_no_answer() {
    let home = Home::new();
    let server = home.start(&[]);
    let first = server.place("key", CALL).await;
    server.kill();

    let server = home.start(&[]);
    let again = server.place("key", CALL).await;
    assert!(again.is_replay());
    assert_eq!(again.status, first.status);
    assert_eq!(again.body, first.body);
    assert_eq!(again.lasting_headers(), first.lasting_headers());
    let other = server.place("key", OTHER_CALL).await;
    assert_eq!(other.field("conflicts_with").as_deref(), Some(first.request_id()));
    assert_eq!(home.journal().len(), 1);
}

#[tokio::test]
async fn an_expired_key_runs_afresh() {
    let home = Home::new();
    let server = home.start(&["--ttl", "2s"]);
    let first = server.place("key", CALL).await;
    let fresh = within(async {
        loop {
            let answer = server.place("key", CALL).await;
            if !answer.is_replay() {
                return answer;
            }
            assert_eq!(answer.body, first.body);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(fresh.status, 201);
    assert_ne!(fresh.call_id(), first.call_id());
    assert_eq!(home.journal().len(), 2);
    let placed_at = |answer: &Answer| -> jiff::Timestamp {
        answer.json()["created_at"].as_str().unwrap().parse().unwrap()
    };
    let apart = placed_at(&fresh).duration_since(placed_at(&first));
    // Both are cut to the millisecond.
    assert!(apart.as_millis() >= 1999, "it ran after {apart:?}");
}
