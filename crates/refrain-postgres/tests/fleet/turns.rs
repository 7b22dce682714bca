//! Requests of one key at different servers.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::*;
use crate::server::*;

const UNVERIFIED: &str = r#"{"caller_id": "+19995551234", "destination": "+14155556789"}"#;

#[tokio::test]
async fn p17_three_servers_run_each_key_once() {
    const KEYS: usize = 8;
    const REQUESTS: usize = 12;
    let home = Home::new();
    let fleet = home.start_all(3, &["--latency", "100ms"]);
    let address = fleet.address;
    let mut asking = JoinSet::new();
    for request in 0..KEYS * REQUESTS {
        let key = format!("key-{}", request % KEYS);
        asking.spawn(async move { (send(address, keyed(&key, CALL)).await.unwrap(), key) });
    }
    let mut answers: HashMap<String, Vec<Answer>> = HashMap::new();
    for (answer, key) in within(asking.join_all()).await {
        answers.entry(key).or_default().push(answer);
    }
    assert_eq!(answers.len(), KEYS);
    for (key, answers) in answers {
        assert!(answers.iter().all(|answer| answer.status == 201), "{key}");
        assert!(answers.iter().all(|answer| answer.body == answers[0].body), "{key}");
        let replays = answers.iter().filter(|answer| answer.is_replay()).count();
        assert_eq!(replays, REQUESTS - 1, "{key}");
    }
    assert_eq!(home.journal().len(), KEYS);
}

#[tokio::test]
async fn a_request_waits_for_another_servers_run() {
    let home = Home::new();
    let first = home.node(&["--latency", "3s", "--wait", "1ms"]);
    let second = home.node(&[]);
    let client = first.hold("key", "first-1").await;
    let waited = second.place("key", CALL).await;
    assert!(waited.is_replay());
    let answered = within(client).await.unwrap().unwrap();
    assert_eq!((waited.status, &waited.body), (answered.status, &answered.body));
    let other = second.place("key", OTHER_CALL).await;
    assert_eq!(other.field("conflicts_with").as_deref(), Some("first-1"));
    assert_eq!(home.effects(), ["first-1"]);
}

#[tokio::test]
async fn a_wait_for_another_server_ends_at_its_deadline() {
    const WAIT: Duration = Duration::from_millis(500);
    let home = Home::new();
    let first = home.node(&["--latency", "1h", "--wait", "1ms"]);
    let second = home.node(&["--wait", "500ms"]);
    let _client = first.hold("key", "first-1").await;
    let asked = Instant::now();
    let answer = second.place("key", CALL).await;
    let waited = asked.elapsed();
    assert!((WAIT..WAIT * 10).contains(&waited), "{waited:?}");
    assert_eq!((answer.status.as_u16(), &*answer.code()), (409, "idempotency_in_progress"));
    assert_eq!(answer.field("in_progress_request_id").as_deref(), Some("first-1"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(home.journal().is_empty());
}

#[tokio::test]
async fn a_request_that_waits_for_another_servers_run_runs_once_that_has_failed() {
    let home = Home::new();
    let first = home.node(&["--latency", "3s", "--wait", "1ms"]);
    let second = home.node(&[]);
    let client = first.hold_with("key", "first-1", UNVERIFIED).await;
    let waited = second.place("key", CALL).await;
    assert_eq!(waited.status, 201);
    assert!(!waited.is_replay());
    assert_eq!(within(client).await.unwrap().unwrap().code(), "caller_id_not_verified");
    assert_eq!(home.effects(), ["first-1", waited.request_id()]);
    assert!(first.place("key", CALL).await.is_replay());
}
