//! What a backend's author builds with, by way of the toy.

use refrain::Error;
use refrain::backend::{Claim, Granted, Promise, Ticket};

use crate::OnToy;
use crate::facts::House;
use crate::facts::kit::*;
use crate::toy;

#[test]
fn a_promise_that_is_dropped_answers_stopped() {
    let (ticket, promise): (Ticket<()>, Promise<()>) = Ticket::new();
    drop(promise);
    assert!(matches!(ticket.wait(), Err(Error::Stopped { source: None, .. })));
}

#[test]
fn a_permit_gives_out_its_backends_own_claim() {
    let store = OnToy::new().open();
    let claim = execute(&store, &operation("a")).into_claim::<toy::Claim>().unwrap();
    assert_eq!(claim.past().key, key("a"));
    claim.complete(Some(response("a"))).wait().unwrap();
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}

#[test]
fn a_granted_claim_that_is_dropped_is_released() {
    let store = OnToy::new().open();
    let claim = execute(&store, &durable("a")).into_claim::<toy::Claim>().unwrap();
    drop(Granted::new(claim));
    assert_eq!(execute(&store, &durable("a")).attempt(), 1);
}
