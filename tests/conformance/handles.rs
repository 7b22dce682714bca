//! Permits, claims and stores in the hands of their callers.

use bytes::Bytes;
use http::Response;
use refrain::backend::{Asked, Claim, Granted, Past, Promise, Ticket};
use refrain::{Error, Outcome, Record};

use crate::House;
use crate::kit::*;

/// A claim of no backend.
#[derive(Debug)]
struct Nobody;

impl Claim for Nobody {
    fn past(&self) -> &Past {
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

    fn abandon(self: Box<Self>) {}

    fn checkpoint(&mut self, _: Bytes) -> Ticket<()> {
        unreachable!("it is never made")
    }

    fn retry(self: Box<Self>, _: Asked) -> Ticket<Box<dyn Claim>> {
        unreachable!("it is never made")
    }

    fn seed(&self) -> Option<[u8; 24]> {
        None
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

pub(crate) fn a_closed_store_answers_that_it_is_stopped(house: &impl House) {
    let store = house.open();
    let permit = execute(&store, &operation("a"));
    let waiting = store.begin(&operation("a"));
    assert_eq!(store.close(std::time::Duration::ZERO).unwrap(), 2);
    assert!(matches!(waiting.wait(), Err(Error::Stopped { source: None, .. })));
    assert!(matches!(permit.complete(&response("a")).wait(), Err(Error::Stopped { .. })));
    assert!(matches!(store.begin(&operation("b")).wait(), Err(Error::Stopped { .. })));
    assert!(matches!(store.get(scope(), &key("a")).wait(), Err(Error::Stopped { .. })));
    assert!(matches!(store.interrupted(None, 1).wait(), Err(Error::Stopped { .. })));
}

#[test]
fn a_promise_that_is_dropped_answers_stopped() {
    let (ticket, promise): (Ticket<()>, Promise<()>) = Ticket::new();
    drop(promise);
    assert!(matches!(ticket.wait(), Err(Error::Stopped { source: None, .. })));
}

#[test]
fn a_permit_gives_out_its_backends_own_claim() {
    let store = crate::OnToy::new().open();
    let claim = execute(&store, &operation("a")).into_claim::<crate::toy::Claim>().unwrap();
    assert_eq!(claim.past().key, key("a"));
    claim.complete(Some(response("a"))).wait().unwrap();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}

#[test]
fn a_granted_claim_that_is_dropped_is_released() {
    let store = crate::OnToy::new().open();
    let claim = execute(&store, &durable("a")).into_claim::<crate::toy::Claim>().unwrap();
    drop(Granted::new(claim));
    assert_eq!(execute(&store, &durable("a")).attempt(), 1);
}
