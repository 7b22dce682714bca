//! P14: the limits of durable claims, in a house that sets them.

use refrain::error::Limit;
use refrain::{Operation, Scope};

use super::Bounded;
use super::kit::*;
use super::limits::limit_of;

pub(crate) fn p14_open_claims_are_bounded_and_a_refusal_leaves_nothing(house: &impl Bounded) {
    let store = house.open_for_claims(2, 2);
    let first = execute(&store, &durable("a"));
    drop(execute(&store, &durable("b")));
    assert_eq!(limit_of(store.begin(&durable("c")).wait()), Limit::OpenClaims);
    // A retry is the same claim.
    let retried = interrupted(&store, &durable("b")).retry().wait().unwrap();
    first.release().wait().unwrap();
    let third = execute(&store, &durable("c"));
    assert_eq!(third.attempt(), 1);
    retried.complete(&response("b")).wait().unwrap();
    drop(execute(&store, &durable("d")));
}

pub(crate) fn p14_open_claims_of_one_scope_are_bounded(house: &impl Bounded) {
    let store = house.open_for_claims(2, 1);
    let _first = execute(&store, &durable("a"));
    assert_eq!(limit_of(store.begin(&durable("b")).wait()), Limit::OpenClaimsPerScope);
    let elsewhere = Scope::new("elsewhere");
    let other = Operation::new(elsewhere, key("b"), durable("b").fingerprint()).durable();
    drop(execute(&store, &other));
}

pub(crate) fn p14_an_operation_is_not_begun_if_its_unknown_outcome_could_not_be_kept(
    house: &impl Bounded,
) {
    let store = house.open_for_claims(1, 1);
    execute(&store, &operation("done")).complete(&response("done")).wait().unwrap();
    let begun_before = execute(&store, &operation("a"));
    execute(&store, &operation("b")).interrupt().wait().unwrap();
    let refused = store.begin(&operation("c")).wait();
    assert_eq!(limit_of(refused), Limit::OpenClaims);
    // There is a place for those that had begun.
    begun_before.interrupt().wait().unwrap();
    assert_eq!(replayed(&store, "done"), Some("done".into()));
    for name in ["a", "b"] {
        interrupted(&store, &operation(name)).release().wait().unwrap();
    }
    drop(execute(&store, &operation("c")));
}
