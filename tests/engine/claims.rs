//! P7: durable claims say when nobody knows what happened.

use std::time::Duration;

use refrain::error::Limit;
use refrain::{Error, Fingerprint, Operation, Outcome};

use crate::kit::*;

fn durable(name: &str) -> Operation {
    operation(name).durable()
}

#[test]
fn p7_a_dropped_durable_permit_leaves_the_key_interrupted() {
    let home = Home::new();
    let store = home.open();
    let mut permit = execute(&store, &durable("a"));
    permit.checkpoint("paid").wait().unwrap();
    drop(permit);
    let attempt = interrupted(&store, &durable("a"));
    assert_eq!((attempt.request_id().as_str(), attempt.number()), ("req_a", 1));
    assert_eq!(attempt.checkpoints(), ["paid"]);
}

#[test]
fn p7_a_claim_outlives_restarts_rotation_and_sealing() {
    let home = Home::new();
    let store = home.open();
    let mut permit = execute(&store, &durable("a"));
    permit.checkpoint("one").wait().unwrap();
    let downstream = permit.downstream_key("carrier").unwrap();
    assert_ne!(downstream, permit.downstream_key("other").unwrap());
    drop(permit);
    for round in 0..5 {
        run(&store, &format!("other-{round}"));
        seal(&store, &home);
    }
    drop(store);
    for _ in 0..3 {
        let store = home.open();
        let attempt = interrupted(&store, &durable("a"));
        assert_eq!(attempt.checkpoints(), ["one"]);
        assert_eq!(attempt.downstream_key("carrier"), downstream);
    }
}

#[test]
fn p7_a_retry_is_the_next_attempt_of_the_same_operation() {
    let home = Home::new();
    let store = home.open();
    let mut permit = execute(&store, &durable("a"));
    let downstream = permit.downstream_key("carrier").unwrap();
    permit.checkpoint("one").wait().unwrap();
    drop(permit);
    let mut permit = interrupted(&store, &durable("a")).retry().wait().unwrap();
    assert_eq!((permit.attempt(), permit.checkpoints().len()), (2, 1));
    permit.checkpoint("two").wait().unwrap();
    assert_eq!(permit.downstream_key("carrier").unwrap(), downstream);
    drop((permit, store));
    let store = home.open();
    let attempt = interrupted(&store, &durable("a"));
    assert_eq!((attempt.number(), attempt.checkpoints()), (2, &["one".into(), "two".into()][..]));
    attempt.complete(&response("found out")).wait().unwrap();
    drop(store);
    assert_eq!(replayed(&home.open(), "a").as_deref(), Some("found out"));
}

#[test]
fn a_released_claim_is_gone_for_good() {
    let home = Home::new();
    let store = home.open();
    execute(&store, &durable("a")).release().wait().unwrap();
    drop(execute(&store, &durable("b")));
    interrupted(&store, &durable("b")).release().wait().unwrap();
    drop(store);
    let store = home.open();
    assert_eq!(store.stats().open_claims, 0);
    assert!(matches!(begin(&store, &operation("a")), Outcome::Execute(_)));
    assert!(matches!(begin(&store, &operation("b")), Outcome::Execute(_)));
}

#[test]
fn a_completed_claim_is_not_interrupted_after_any_number_of_restarts() {
    let home = Home::new();
    let store = home.open();
    let permit = execute(&store, &durable("a"));
    permit.complete(&response("a")).wait().unwrap();
    drop(store);
    for _ in 0..4 {
        let store = home.open();
        assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
        assert_eq!(store.stats().open_claims, 0);
    }
}

#[test]
fn an_interrupted_key_conflicts_with_another_fingerprint() {
    let home = Home::new();
    let store = home.open();
    drop(execute(&store, &durable("a")));
    let other = Operation::new(scope(), key("a"), Fingerprint::of(["other"])).durable();
    match begin(&store, &other) {
        Outcome::Conflict { original } => assert_eq!(original.as_str(), "req_a"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_interrupted_claim_expires_one_ttl_after_its_last_attempt() {
    let home = Home::new();
    let store = home.open();
    drop(execute(&store, &durable("a")));
    home.clock.advance(HOUR);
    drop(interrupted(&store, &durable("a")).retry().wait().unwrap());
    home.clock.advance(DAY - HOUR);
    drop(interrupted(&store, &durable("a")));
    home.clock.advance(HOUR);
    let permit = execute(&store, &durable("a"));
    assert_eq!(permit.attempt(), 1);
}

#[test]
fn a_retry_is_kept_for_the_time_that_it_asks_for() {
    let home = Home::new();
    let store = home.open();
    drop(execute(&store, &durable("a")));
    let retry = durable("a").ttl(HOUR);
    let permit = interrupted(&store, &retry).retry().wait().unwrap();
    permit.complete(&response("a")).wait().unwrap();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    home.clock.advance(HOUR);
    assert_eq!(replayed(&store, "a"), None);
}

#[test]
fn forgetting_ends_an_interrupted_claim() {
    let home = Home::new();
    let store = home.open();
    drop(execute(&store, &durable("a")));
    store.forget(scope(), &key("a")).wait().unwrap();
    drop(store);
    assert_eq!(replayed(&home.open(), "a"), None);
}

#[test]
fn a_key_in_flight_is_not_forgotten() {
    let home = Home::new();
    let store = home.open();
    let _permit = execute(&store, &operation("a"));
    let refused = store.forget(scope(), &key("a")).wait();
    assert!(
        matches!(refused, Err(Error::InFlight { request_id, .. }) if request_id.as_str() == "req_a")
    );
}

#[test]
fn a_claim_that_nobody_waits_for_is_taken_back() {
    let home = Home::new();
    let store = home.open();
    drop(store.begin(&durable("a")));
    // Queues behind the release, if that is under way still.
    let permit = execute(&store, &durable("a"));
    assert_eq!(permit.attempt(), 1);
}

/// A dropped retry was released like a first attempt, and the interrupted run was forgotten: the next
/// request ran a second time without being told.
#[test]
fn p7_a_retry_that_nobody_waits_for_leaves_the_key_interrupted() {
    let home = Home::new();
    let store = home.open();
    drop(execute(&store, &durable("a")));
    drop(interrupted(&store, &durable("a")).retry());
    assert_eq!(interrupted(&store, &durable("a")).number(), 2);
    drop(store);
    assert_eq!(interrupted(&home.open(), &durable("a")).number(), 2);
}

#[test]
fn volatile_operations_have_no_checkpoints() {
    let home = Home::new();
    let store = home.open();
    let mut permit = execute(&store, &operation("a"));
    assert!(matches!(permit.checkpoint("x").wait(), Err(Error::Volatile)));
    assert!(matches!(permit.downstream_key("x"), Err(Error::Volatile)));
}

#[test]
fn p16_what_is_held_shows_its_request_and_never_its_key() {
    let home = Home::new();
    let store = home.open();
    let named = operation("secret").request_id("req_a".parse().unwrap()).durable();
    let outcome = begin(&store, &named);
    let shown = format!("{outcome:?}");
    assert!(shown.contains("req_a") && shown.contains("attempt: 1"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    drop(outcome);
    let attempt = interrupted(&store, &named);
    let shown = format!("{attempt:?}");
    assert!(shown.contains("req_a") && shown.contains("number: 1"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let ticket = attempt.complete(&response("private"));
    let shown = format!("{:?}", ticket.wait().unwrap());
    assert!(shown.contains("req_a") && shown.contains("201"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("private"), "{shown}");
}

#[test]
fn p14_claims_and_checkpoints_are_bounded() {
    let home = Home::new();
    let store = home.builder().max_open_claims(2).open(home.path()).unwrap();
    let mut permit = execute(&store, &durable("a"));
    for _ in 0..16 {
        permit.checkpoint("x").wait().unwrap();
    }
    let limit = |result| match result {
        Err(Error::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(permit.checkpoint("x").wait()), refrain::error::Limit::Checkpoints);
    let mut second = execute(&store, &durable("b"));
    let long = vec![0; 16 * 1024 + 1];
    assert_eq!(limit(second.checkpoint(long).wait()), refrain::error::Limit::CheckpointBytes);
    let third = store.begin(&durable("c")).wait();
    assert_eq!(limit(third.map(|_| ())), refrain::error::Limit::OpenClaims);
    // Nothing is left of the refusal.
    second.release().wait().unwrap();
    drop(execute(&store, &durable("c")));
}

/// A volatile operation whose outcome its owner does not know is interrupted, over a restart too.
#[test]
fn p7_an_operation_can_be_given_up_as_unknown_without_a_durable_claim() {
    let home = Home::new();
    let store = home.open();
    let volatile = operation("a");
    let Outcome::Execute(permit) = store.begin(&volatile).wait().unwrap() else {
        panic!("it is new")
    };
    permit.interrupt().wait().unwrap();
    for _ in 0..2 {
        assert!(matches!(store.begin(&volatile).wait(), Ok(Outcome::Interrupted(_))));
    }
    store.close(Duration::ZERO).unwrap();
    let store = home.open();
    let Ok(Outcome::Interrupted(attempt)) = store.begin(&volatile).wait() else {
        panic!("it is not interrupted")
    };
    assert_eq!(attempt.number(), 1);
    let permit = attempt.retry().wait().unwrap();
    assert_eq!(permit.attempt(), 2);
    permit.release().wait().unwrap();
    assert!(matches!(store.begin(&volatile).wait(), Ok(Outcome::Execute(_))));
}

#[test]
fn p14_what_cannot_be_given_up_as_unknown_stays_claimed() {
    let home = Home::new();
    let store = home.builder().max_open_claims(1).open(home.path()).unwrap();
    let held = store.begin(&operation("durable").durable()).wait().unwrap();
    let Outcome::Execute(permit) = store.begin(&operation("a")).wait().unwrap() else {
        panic!("it is new")
    };
    assert!(matches!(
        permit.interrupt().wait(),
        Err(Error::Limit { limit: Limit::OpenClaims, .. })
    ));
    let outcome = store.begin(&operation("a")).wait_timeout(Duration::ZERO);
    assert!(matches!(outcome, Ok(Outcome::InFlight { .. })), "{outcome:?}");
    drop(held);
}
