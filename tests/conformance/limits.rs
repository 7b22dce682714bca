//! P14: the limits of the table in front of every backend.

use refrain::Error;
use refrain::backend::Limits;
use refrain::error::Limit;

use crate::House;
use crate::kit::*;

fn limit_of<T: std::fmt::Debug>(result: refrain::Result<T>) -> Limit {
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
    let elsewhere = |name: &str| {
        let scope = refrain::Scope::new("elsewhere");
        refrain::Operation::new(scope, key(name), refrain::Fingerprint::of(["x"]))
    };
    let _third = execute(&store, &elsewhere("a"));
    assert_eq!(limit_of(store.begin(&elsewhere("b")).wait()), Limit::InFlight);
    first.complete(&response("a")).wait().unwrap();
    drop(execute(&store, &elsewhere("b")));
}
