//! P7: a durable claim says when nobody knows what happened.

use refrain::{Error, Fingerprint, Operation, Outcome};

use super::House;
use super::kit::*;

pub(crate) fn p7_a_dropped_durable_permit_leaves_the_key_interrupted(house: &impl House) {
    let store = house.open();
    let mut permit = execute(&store, &durable("a"));
    permit.checkpoint("paid").wait().unwrap();
    drop(permit);
    let attempt = interrupted(&store, &durable("a"));
    assert_eq!((attempt.request_id().as_str(), attempt.number()), ("req_a", 1));
    assert_eq!(attempt.checkpoints(), ["paid"]);
}

pub(crate) fn an_interrupted_key_conflicts_with_another_fingerprint(house: &impl House) {
    let store = house.open();
    drop(execute(&store, &durable("a")));
    let other = Operation::new(scope(), key("a"), Fingerprint::of(["other"])).durable();
    match begin(&store, &other) {
        Outcome::Conflict { original, fingerprint } => {
            assert_eq!((original.as_str(), fingerprint), ("req_a", durable("a").fingerprint()));
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn an_interrupted_claim_expires_one_ttl_after_its_last_attempt(house: &impl House) {
    let store = house.open();
    drop(execute(&store, &durable("a")));
    house.pass_time(HOUR);
    drop(interrupted(&store, &durable("a")).retry().wait().unwrap());
    house.pass_time(DAY - HOUR);
    drop(interrupted(&store, &durable("a")));
    house.pass_time(HOUR);
    let permit = execute(&store, &durable("a"));
    assert_eq!(permit.attempt(), 1);
}

pub(crate) fn a_checkpoint_does_not_keep_a_claim_for_longer(house: &impl House) {
    let store = house.open();
    let mut permit = execute(&store, &durable("a"));
    house.pass_time(HOUR);
    permit.checkpoint("paid").wait().unwrap();
    drop(permit);
    house.pass_time(DAY - HOUR);
    assert_eq!(execute(&store, &durable("a")).attempt(), 1);
}

pub(crate) fn a_retry_is_kept_for_the_time_that_it_asks_for(house: &impl House) {
    let store = house.open();
    drop(execute(&store, &durable("a")));
    let retry = durable("a").ttl(HOUR);
    let permit = interrupted(&store, &retry).retry().wait().unwrap();
    permit.complete(&response("a")).wait().unwrap();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    house.pass_time(HOUR);
    assert_eq!(replayed(&store, "a"), None);
}

pub(crate) fn a_key_in_flight_is_not_forgotten(house: &impl House) {
    let store = house.open();
    let _permit = execute(&store, &operation("a"));
    let refused = store.forget(scope(), &key("a")).wait();
    assert!(
        matches!(refused, Err(Error::InFlight { request_id, .. }) if request_id.as_str() == "req_a")
    );
}

pub(crate) fn p15_a_claim_that_nobody_waits_for_is_taken_back(house: &impl House) {
    let store = house.open();
    drop(store.begin(&durable("a")));
    // Queues behind the release, if that is under way still.
    let permit = execute(&store, &durable("a"));
    assert_eq!(permit.attempt(), 1);
}

pub(crate) fn volatile_operations_have_no_checkpoints(house: &impl House) {
    let store = house.open();
    let mut permit = execute(&store, &operation("a"));
    assert!(matches!(permit.checkpoint("x").wait(), Err(Error::Volatile)));
    assert!(matches!(permit.downstream_key("x"), Err(Error::Volatile)));
}

pub(crate) fn p16_what_is_held_shows_its_request_and_never_its_key(house: &impl House) {
    let store = house.open();
    let named = operation("secret").request_id("req_a".parse().unwrap()).durable();
    let outcome = begin(&store, &named);
    let shown = format!("{outcome:?}");
    assert!(shown.contains("req_a") && shown.contains("attempt: 1"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let Outcome::Execute(mut permit) = outcome else { panic!("{outcome:?}") };
    permit.checkpoint("private").wait().unwrap();
    give_up(&store, permit);
    let shown = format!("{:?}", store.interrupted(None, 1).wait().unwrap());
    assert!(shown.contains("req_a") && shown.contains("checkpoints: 1"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("private"), "{shown}");
    let attempt = interrupted(&store, &named);
    let shown = format!("{attempt:?}");
    assert!(shown.contains("req_a") && shown.contains("number: 1"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let ticket = attempt.complete(&response("private"));
    let shown = format!("{:?}", ticket.wait().unwrap());
    assert!(shown.contains("req_a") && shown.contains("201"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("private"), "{shown}");
}
