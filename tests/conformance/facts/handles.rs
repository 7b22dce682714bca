//! Permits, claims and stores in the hands of their callers.

use bytes::Bytes;
use http::Response;
use refrain::backend::{Asked, Claim, Hold, Past, Ticket};
use refrain::{Outcome, Record};

use super::House;
use super::kit::*;

/// A claim of no backend.
#[derive(Debug)]
struct Nobody;

impl Claim for Nobody {
    fn past(&self) -> &Past {
        unreachable!("it is never made")
    }

    fn hold(&mut self) -> &mut Hold {
        unreachable!("it is never made")
    }

    fn complete(self: Box<Self>, _: Option<Response<Bytes>>) -> Ticket<Record> {
        unreachable!("it is never made")
    }

    fn release(self: Box<Self>) -> Ticket<()> {
        unreachable!("it is never made")
    }

    fn interrupt(self: Box<Self>) -> Ticket<()> {
        unreachable!("it is never made")
    }

    fn checkpoint(&mut self, _: Bytes) -> Ticket<()> {
        unreachable!("it is never made")
    }

    fn retry(self: Box<Self>, _: Asked) -> Ticket<Box<dyn Claim>> {
        unreachable!("it is never made")
    }
}

pub(crate) fn a_permit_stays_whole_if_its_claim_is_asked_for_as_another_backends(
    house: &impl House,
) {
    let store = house.open();
    let permit = execute(&store, &operation("a")).into_claim::<Nobody>().unwrap_err();
    permit.complete(&response("a")).wait().unwrap();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}

pub(crate) fn an_abandoned_volatile_key_stays_in_flight(house: &impl House) {
    let store = house.open();
    execute(&store, &operation("a")).abandon();
    let mut begin = store.begin(&operation("a"));
    begin.give_up();
    assert!(matches!(begin.wait().unwrap(), Outcome::InFlight { .. }));
}

pub(crate) fn an_abandoned_durable_key_is_interrupted(house: &impl House) {
    let store = house.open();
    execute(&store, &durable("a")).abandon();
    assert_eq!(interrupted(&store, &durable("a")).number(), 1);
}

pub(crate) fn a_forgotten_key_runs_again(house: &impl House) {
    let store = house.open();
    run(&store, "a");
    drop(execute(&store, &durable("b")));
    for name in ["a", "b"] {
        store.forget(scope(), &key(name)).wait().unwrap();
        assert_eq!(replayed(&store, name), None);
    }
}
