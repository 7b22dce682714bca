//! P14: the limits of durable claims, in a house that sets them.

use std::time::Duration;

use refrain::error::Limit;
use refrain::{Error, Operation, Outcome, Scope};

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

pub(crate) fn p14_what_cannot_be_given_up_as_unknown_stays_claimed(house: &impl Bounded) {
    let store = house.open_for_claims(1, 1);
    let _held = execute(&store, &durable("durable"));
    let permit = execute(&store, &operation("a"));
    let refused = permit.interrupt().wait();
    assert!(matches!(refused, Err(Error::Limit { limit: Limit::OpenClaims, .. })), "{refused:?}");
    let outcome = store.begin(&operation("a")).wait_timeout(Duration::ZERO);
    assert!(matches!(outcome, Ok(Outcome::InFlight { .. })), "{outcome:?}");
}
