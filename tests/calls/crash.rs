//! The server is killed while a handler runs.

use crate::client::*;
use crate::server::*;

/// Kills a server in mid-handler.
async fn kill_in_mid_handler(home: &Home, mode: &[&str]) {
    let server = home.start(&[&["--latency", "1h", "--wait", "1ms"], mode].concat());
    let client = server.hold("key", "killed-1").await;
    home.until_claimed("key").await;
    server.kill();
    assert!(within(client).await.unwrap().is_none(), "it was cut off");
}

#[tokio::test]
async fn by_default_the_retry_runs() {
    let home = Home::new();
    kill_in_mid_handler(&home, &[]).await;
    assert!(home.journal().is_empty());

    let server = home.start(&[]);
    let retry = server.place("key", CALL).await;
    assert_eq!(retry.status, 201);
    assert!(!retry.is_replay());
    assert!(server.place("key", CALL).await.is_replay());
    assert_eq!(home.journal().len(), 1);
}

#[tokio::test]
async fn in_the_strict_mode_the_retry_is_told_that_the_outcome_is_unknown() {
    let home = Home::new();
    kill_in_mid_handler(&home, &["--strict"]).await;

    // Each time, and after another restart too.
    for _ in 0..2 {
        let server = home.start(&["--strict"]);
        for _ in 0..2 {
            let retry = server.place("key", CALL).await;
            assert_eq!((retry.status.as_u16(), &*retry.code()), (409, "idempotency_interrupted"));
            assert_eq!(retry.field("interrupted_request_id").as_deref(), Some("killed-1"));
        }
        let other = server.place("key", OTHER_CALL).await;
        assert_eq!(other.code(), "idempotency_conflict");
        assert_eq!(other.field("conflicts_with").as_deref(), Some("killed-1"));
        server.kill();
    }
    assert!(home.journal().is_empty());
}

#[tokio::test]
async fn what_the_strict_mode_left_open_runs_once_the_server_is_not_strict() {
    let home = Home::new();
    kill_in_mid_handler(&home, &["--strict"]).await;
    let server = home.start(&[]);
    assert_eq!(server.place("key", CALL).await.status, 201);
    assert!(server.place("key", CALL).await.is_replay());
    assert_eq!(home.journal().len(), 1);
}

#[tokio::test]
async fn the_strict_mode_replays_what_was_answered() {
    let home = Home::new();
    let server = home.start(&["--strict"]);
    let first = server.place("key", CALL).await;
    assert!(server.place("key", CALL).await.is_replay());
    server.kill();
    let server = home.start(&["--strict"]);
    assert_eq!(server.place("key", CALL).await.body, first.body);
    assert_eq!(home.journal().len(), 1);
}
