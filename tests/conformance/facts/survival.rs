//! P2 and P7: facts about a store that is opened again. They need a backend that keeps its records.

use std::time::Duration;

use refrain::{Error, Outcome};

use super::Survives;
use super::closing::close_and_complete;
use super::kit::*;
use super::limits::long_response;

pub(crate) fn p7_a_retry_is_the_next_attempt_of_the_same_operation(house: &impl Survives) {
    let store = house.open();
    let mut permit = execute(&store, &durable("a"));
    let downstream = permit.downstream_key("carrier").unwrap();
    permit.checkpoint("one").wait().unwrap();
    drop(permit);
    let mut permit = interrupted(&store, &durable("a")).retry().wait().unwrap();
    assert_eq!((permit.attempt(), permit.checkpoints().len()), (2, 1));
    permit.checkpoint("two").wait().unwrap();
    assert_eq!(permit.downstream_key("carrier").unwrap(), downstream);
    drop((permit, store));
    let store = house.open();
    let attempt = interrupted(&store, &durable("a"));
    assert_eq!((attempt.number(), attempt.checkpoints()), (2, &["one".into(), "two".into()][..]));
    attempt.complete(&response("found out")).wait().unwrap();
    drop(store);
    assert_eq!(replayed(&house.open(), "a").as_deref(), Some("found out"));
}

pub(crate) fn a_released_claim_is_gone_for_good(house: &impl Survives) {
    let store = house.open();
    execute(&store, &durable("a")).release().wait().unwrap();
    drop(execute(&store, &durable("b")));
    interrupted(&store, &durable("b")).release().wait().unwrap();
    drop(store);
    let store = house.open();
    assert_eq!(store.stats().open_claims, 0);
    assert!(matches!(begin(&store, &operation("a")), Outcome::Execute(_)));
    assert!(matches!(begin(&store, &operation("b")), Outcome::Execute(_)));
}

pub(crate) fn a_completed_claim_is_not_interrupted_after_any_number_of_restarts(
    house: &impl Survives,
) {
    let store = house.open();
    let permit = execute(&store, &durable("a"));
    permit.complete(&response("a")).wait().unwrap();
    drop(store);
    for _ in 0..4 {
        let store = house.open();
        assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
        assert_eq!(store.stats().open_claims, 0);
    }
}

pub(crate) fn forgetting_ends_an_interrupted_claim(house: &impl Survives) {
    let store = house.open();
    give_up(&store, execute(&store, &durable("a")));
    store.forget(scope(), &key("a")).wait().unwrap();
    drop(store);
    assert_eq!(replayed(&house.open(), "a"), None);
}

/// A dropped retry was released like a first attempt, and the interrupted run was forgotten: the
/// next request ran a second time without being told.
pub(crate) fn p7_p15_a_retry_that_nobody_waits_for_leaves_the_key_interrupted(
    house: &impl Survives,
) {
    let store = house.open();
    drop(execute(&store, &durable("a")));
    drop(interrupted(&store, &durable("a")).retry());
    assert_eq!(interrupted(&store, &durable("a")).number(), 2);
    drop(store);
    assert_eq!(interrupted(&house.open(), &durable("a")).number(), 2);
}

/// A volatile operation whose outcome its owner does not know is interrupted, over a restart too.
pub(crate) fn p7_an_operation_can_be_given_up_as_unknown_without_a_durable_claim(
    house: &impl Survives,
) {
    let store = house.open();
    let volatile = operation("a");
    let Outcome::Execute(permit) = store.begin(&volatile).wait().unwrap() else {
        panic!("it is new")
    };
    permit.interrupt().wait().unwrap();
    for _ in 0..2 {
        assert!(matches!(store.begin(&volatile).wait(), Ok(Outcome::Interrupted(_))));
    }
    store.close(Duration::ZERO).wait().unwrap();
    let store = house.open();
    let Ok(Outcome::Interrupted(attempt)) = store.begin(&volatile).wait() else {
        panic!("it is not interrupted")
    };
    assert_eq!(attempt.number(), 1);
    let permit = attempt.retry().wait().unwrap();
    assert_eq!(permit.attempt(), 2);
    permit.release().wait().unwrap();
    assert!(matches!(store.begin(&volatile).wait(), Ok(Outcome::Execute(_))));
}

pub(crate) fn p2_a_completed_operation_is_replayed_after_a_restart(house: &impl Survives) {
    let store = house.open();
    run(&store, "a");
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    drop(store);
    let store = house.open();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    assert_eq!(replayed(&store, "b"), None);
}

pub(crate) fn what_was_not_recorded_before_closing_is_not_there(house: &impl Survives) {
    let store = house.open();
    let permit = execute(&store, &operation("a"));
    assert_eq!(store.close(Duration::ZERO).wait().unwrap(), 1);
    assert!(matches!(permit.complete(&response("a")).wait(), Err(Error::Stopped { .. })));
    drop(store);
    assert_eq!(replayed(&house.open(), "a"), None, "it was not acknowledged");
}

pub(crate) fn what_was_recorded_while_closing_is_replayed(house: &impl Survives) {
    let store = house.open();
    close_and_complete(&store, execute(&store, &operation("a")));
    drop(store);
    assert_eq!(replayed(&house.open(), "a").as_deref(), Some("a"));
}

pub(crate) fn p14_what_was_done_without_its_response_is_so_after_a_restart(house: &impl Survives) {
    let store = house.open();
    execute(&store, &operation("long")).complete(&long_response(&store)).wait().unwrap();
    execute(&store, &operation("streamed")).complete_without_response().wait().unwrap();
    drop(store);
    let store = house.open();
    for name in ["long", "streamed"] {
        match begin(&store, &operation(name)) {
            Outcome::Replay(record) => assert!(record.response().is_none(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

pub(crate) fn p2_what_was_acknowledged_survives_a_crash(house: &impl Survives) {
    let store = house.open();
    run(&store, "a");
    house.crash();
    assert_eq!(replayed(&house.open(), "a").as_deref(), Some("a"));
}

pub(crate) fn p7_a_durable_run_is_interrupted_by_a_crash_and_a_volatile_one_runs_again(
    house: &impl Survives,
) {
    let store = house.open();
    let mut permit = execute(&store, &durable("a"));
    permit.checkpoint("paid").wait().unwrap();
    let _volatile = execute(&store, &operation("b"));
    house.crash();
    let store = house.open();
    assert_eq!(store.interrupted(None, 2).wait().unwrap().len(), 1);
    assert_eq!(interrupted(&store, &durable("a")).checkpoints(), ["paid"]);
    assert_eq!(replayed(&store, "b"), None);
}
