//! P3, P4 and P6: what is replayed, and to whom.

use refrain::{Fingerprint, Operation, Outcome, Scope};

use super::House;
use super::kit::*;

pub(crate) fn p6_another_scope_does_not_see_the_record(house: &impl House) {
    let store = house.open();
    run(&store, "a");
    let elsewhere = Scope::from_api_key("sk_live_52");
    let same = Operation::new(elsewhere, key("a"), Fingerprint::of(["POST", "/v1/calls", "a"]));
    assert!(matches!(begin(&store, &same), Outcome::Execute(_)));
    assert!(store.get(elsewhere, &key("a")).wait().unwrap().is_none());
    assert!(store.get(scope(), &key("a")).wait().unwrap().is_some());
}

pub(crate) fn p3_a_replay_is_the_response_and_names_its_request(house: &impl House) {
    let store = house.open();
    run(&store, "a");
    let Outcome::Replay(record) = begin(&store, &operation("a")) else { panic!("it was done") };
    let (replayed, original) = (record.response().unwrap(), response("a"));
    assert_eq!((replayed.status(), replayed.headers()), (original.status(), original.headers()));
    assert_eq!((replayed.body(), record.request_id().as_str()), (original.body(), "req_a"));
}

/// The record that the holder and those who wait get at once is the one that is looked up later.
pub(crate) fn p3_a_record_has_its_response_and_none_of_its_other_extensions(house: &impl House) {
    let store = house.open();
    let mut answer = response("a");
    answer.extensions_mut().insert("for the layers around the handler");
    let held = execute(&store, &operation("a")).complete(&answer).wait().unwrap();
    let looked_up = store.get(scope(), &key("a")).wait().unwrap().unwrap();
    for record in [held, looked_up] {
        let response = record.response().unwrap();
        assert_eq!((response.body(), response.extensions().len()), (answer.body(), 0));
    }
}

pub(crate) fn p4_a_done_key_conflicts_with_another_fingerprint(house: &impl House) {
    let store = house.open();
    run(&store, "a");
    match begin(&store, &Operation::new(scope(), key("a"), Fingerprint::of(["PUT"]))) {
        Outcome::Conflict { original, fingerprint } => {
            assert_eq!((original.as_str(), fingerprint), ("req_a", operation("a").fingerprint()));
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_released_key_runs_again(house: &impl House) {
    let store = house.open();
    for operation in [operation("a"), durable("b")] {
        execute(&store, &operation).release().wait().unwrap();
        assert_eq!(execute(&store, &operation).attempt(), 1);
    }
}
