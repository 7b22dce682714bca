//! P14: the limits that hold over every backend.

use bytes::Bytes;
use http::{HeaderName, Response};
use refrain::backend::{Limits, Past};
use refrain::error::Limit;
use refrain::{Error, Fingerprint, Operation, Outcome, Record, Scope, Store};

use super::House;
use super::kit::*;

pub(crate) fn limit_of<T: std::fmt::Debug>(result: refrain::Result<T>) -> Limit {
    match result {
        Err(Error::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn p14_operations_in_flight_are_bounded(house: &impl House) {
    let store = house.open_within(Limits { in_flight: 3, per_scope: 2, waiters: 0 });
    let first = execute(&store, &operation("a"));
    let waiting = store.begin(&operation("a")).wait();
    assert_eq!(limit_of(waiting), Limit::WaitersPerKey);
    let _second = execute(&store, &operation("b"));
    assert_eq!(limit_of(store.begin(&operation("c")).wait()), Limit::InFlightPerScope);
    let of = |scope: &str| Operation::new(Scope::new(scope), key("a"), Fingerprint::of(["x"]));
    let _third = execute(&store, &of("elsewhere"));
    assert_eq!(limit_of(store.begin(&of("late")).wait()), Limit::InFlight);
    first.complete(&response("a")).wait().unwrap();
    drop(execute(&store, &of("late")));
}

pub(crate) fn p14_a_replay_is_answered_however_much_is_in_flight(house: &impl House) {
    let store = house.open_within(Limits { in_flight: 2, per_scope: 1, waiters: 0 });
    execute(&store, &operation("done")).complete(&response("done")).wait().unwrap();
    let _running = execute(&store, &operation("a"));
    assert_eq!(limit_of(store.begin(&operation("b")).wait()), Limit::InFlightPerScope);
    assert_eq!(replayed(&store, "done"), Some("done".into()));
    let other = Operation::new(scope(), key("done"), Fingerprint::of(["another request"]));
    let conflict = store.begin(&other).wait();
    assert!(matches!(conflict, Ok(Outcome::Conflict { .. })), "{conflict:?}");
}

pub(crate) fn p14_checkpoints_are_bounded(house: &impl House) {
    let store = house.open();
    let mut permit = execute(&store, &durable("a"));
    let long = vec![0; Past::MAX_CHECKPOINT_BYTES + 1];
    assert_eq!(limit_of(permit.checkpoint(long.clone()).wait()), Limit::CheckpointBytes);
    permit.checkpoint(long[1..].to_vec()).wait().unwrap();
    for _ in 1..Past::MAX_CHECKPOINTS {
        permit.checkpoint("x").wait().unwrap();
    }
    assert_eq!(limit_of(permit.checkpoint("x").wait()), Limit::Checkpoints);
    drop(permit);
    let permit = interrupted(&store, &durable("a")).retry().wait().unwrap();
    assert_eq!(permit.checkpoints().len(), Past::MAX_CHECKPOINTS);
}

pub(crate) fn p14_a_response_over_the_limits_is_recorded_as_done_without_it(house: &impl House) {
    let store = house.open();
    let mut wide = response("x");
    for n in 0..Record::MAX_HEADERS {
        let name: HeaderName = format!("x-{n}").parse().unwrap();
        wide.headers_mut().insert(name, "x".parse().unwrap());
    }
    let mut heavy = response("x");
    heavy.headers_mut().insert("x-long", "x".repeat(Record::MAX_HEADER_BYTES).parse().unwrap());
    for (name, response) in [("long", long_response(&store)), ("wide", wide), ("heavy", heavy)] {
        let record = execute(&store, &operation(name)).complete(&response).wait().unwrap();
        assert!(record.response().is_none(), "{name}");
    }
    let done = execute(&store, &operation("streamed")).complete_without_response();
    assert!(done.wait().unwrap().response().is_none());
    for name in ["long", "wide", "heavy", "streamed"] {
        match begin(&store, &operation(name)) {
            Outcome::Replay(record) => assert!(record.response().is_none(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

pub(crate) fn p14_the_longest_response_is_replayed(house: &impl House) {
    let store = house.open();
    let longest = "x".repeat(store.rules().max_response_bytes);
    execute(&store, &operation("a")).complete(&response(&longest)).wait().unwrap();
    assert_eq!(replayed(&store, "a"), Some(longest));
}

/// A body of one byte more than the store stores.
pub(crate) fn long_response(store: &Store) -> Response<Bytes> {
    response(&"x".repeat(store.rules().max_response_bytes + 1))
}
