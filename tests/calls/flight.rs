//! A key in flight: one request runs, and the others wait for its answer.

use tokio::task::JoinSet;

use crate::client::*;
use crate::server::*;

#[tokio::test]
async fn p1_two_hundred_concurrent_requests_place_one_call() {
    const REQUESTS: usize = 200;
    let home = Home::new();
    let server = home.start(&["--latency", "300ms"]);
    let address = server.address;
    let mut asking = JoinSet::new();
    for _ in 0..REQUESTS {
        asking.spawn(async move { send(address, keyed("key", CALL)).await.unwrap() });
    }
    let answers = within(asking.join_all()).await;
    assert_eq!(answers.len(), REQUESTS);
    assert!(answers.iter().all(|answer| answer.status == 201));
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    assert_eq!(answers.iter().filter(|answer| answer.is_replay()).count(), REQUESTS - 1);
    assert_eq!(home.journal().len(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_nothing() {
    let home = Home::new();
    // The wait is shorter than the latency, so that a request that gave up tells that the handler
    // runs.
    let server = home.start(&["--latency", "5s", "--wait", "2s"]);
    let client = server.hold("key", "hung-up-1").await;
    client.abort();
    assert!(client.await.is_err(), "it hung up in mid-handler");

    let again = within(send_patiently(server.address, keyed("key", CALL))).await.unwrap();
    assert!(again.is_replay());
    assert_eq!(again.status, 201);
    assert_eq!(home.journal().len(), 1);
}

#[tokio::test]
async fn a_wait_that_ends_first_is_told_which_request_holds_the_key() {
    let home = Home::new();
    let server = home.start(&["--latency", "1h", "--wait", "1ms"]);
    let _client = server.hold("key", "holder-1").await;
    for body in [CALL, OTHER_CALL] {
        let answer = server.place("key", body).await;
        assert_eq!(answer.status, 409);
        assert_eq!(answer.code(), "idempotency_in_progress");
        assert_eq!(answer.field("in_progress_request_id").as_deref(), Some("holder-1"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert!(home.journal().is_empty());
}
