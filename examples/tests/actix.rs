//! The actix example runs a call once, and keeps the contract that the layer keeps.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, rt};
use refrain::Store;
use refrain::server::IdempotencyLayer;
use refrain::server::actix::Idempotency;

#[path = "../actix.rs"]
#[allow(dead_code, reason = "its `main` is the example's")]
mod example;

#[test]
fn a_call_is_placed_once_and_replayed_to_its_token_alone() {
    rt::System::new().block_on(async {
        let store = Store::builder().open_in_memory().unwrap();
        let idempotency = Idempotency::new(IdempotencyLayer::new(store));
        let app =
            init_service(App::new().configure(|app| example::routes(app, &idempotency))).await;
        let ask = async |token: &str, body: &str| {
            let request = TestRequest::post()
                .uri("/v1/calls")
                .insert_header(("authorization", token))
                .insert_header(("idempotency-key", "9b8cfa7a"))
                .set_payload(body.to_owned());
            let response = call_service(&app, request.to_request()).await;
            let is_replay = response.headers().contains_key("idempotency-replay");
            let status = response.status().as_u16();
            (status, is_replay, read_body(response).await)
        };
        let queued = r#"{"status":"queued"}"#;
        assert_eq!(ask("Bearer one", "{}").await, (201, false, queued.into()));
        assert_eq!(ask("bearer one", "{}").await, (201, true, queued.into()));
        assert_eq!(ask("Bearer two", "{}").await, (201, false, queued.into()));
        assert_eq!(ask("Bearer one", "[]").await.0, 409);
        assert_eq!(ask("Basic one", "{}").await.0, 401);
        assert_eq!(ask("Bearer one", &"x".repeat(1024 * 1024 + 1)).await.0, 413);
    });
}
