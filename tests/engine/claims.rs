//! P7: durable claims say when nobody knows what happened.

use std::time::Duration;

use refrain::error::Limit;
use refrain::{Error, Operation, Outcome};

use crate::kit::*;

fn durable(name: &str) -> Operation {
    operation(name).durable()
}

#[test]
fn p7_a_claim_outlives_restarts_rotation_and_sealing() {
    let home = Home::new();
    let store = home.open();
    let mut permit = execute(&store, &durable("a"));
    permit.checkpoint("one").wait().unwrap();
    let downstream = permit.downstream_key("carrier").unwrap();
    assert_ne!(downstream, permit.downstream_key("other").unwrap());
    drop(permit);
    for round in 0..5 {
        run(&store, &format!("other-{round}"));
        seal(&store, &home);
    }
    drop(store);
    for _ in 0..3 {
        let store = home.open();
        let attempt = interrupted(&store, &durable("a"));
        assert_eq!(attempt.checkpoints(), ["one"]);
        assert_eq!(attempt.downstream_key("carrier"), downstream);
    }
}

#[test]
fn p14_claims_and_checkpoints_are_bounded() {
    let home = Home::new();
    let store = home.builder().max_open_claims(2).open(home.path()).unwrap();
    let mut permit = execute(&store, &durable("a"));
    for _ in 0..16 {
        permit.checkpoint("x").wait().unwrap();
    }
    let limit = |result| match result {
        Err(Error::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(permit.checkpoint("x").wait()), refrain::error::Limit::Checkpoints);
    let mut second = execute(&store, &durable("b"));
    let long = vec![0; 16 * 1024 + 1];
    assert_eq!(limit(second.checkpoint(long).wait()), refrain::error::Limit::CheckpointBytes);
    let third = store.begin(&durable("c")).wait();
    assert_eq!(limit(third.map(|_| ())), refrain::error::Limit::OpenClaims);
    // Nothing is left of the refusal.
    second.release().wait().unwrap();
    drop(execute(&store, &durable("c")));
}

#[test]
fn p14_what_cannot_be_given_up_as_unknown_stays_claimed() {
    let home = Home::new();
    let store = home.builder().max_open_claims(1).open(home.path()).unwrap();
    let held = store.begin(&operation("durable").durable()).wait().unwrap();
    let Outcome::Execute(permit) = store.begin(&operation("a")).wait().unwrap() else {
        panic!("it is new")
    };
    assert!(matches!(
        permit.interrupt().wait(),
        Err(Error::Limit { limit: Limit::OpenClaims, .. })
    ));
    let outcome = store.begin(&operation("a")).wait_timeout(Duration::ZERO);
    assert!(matches!(outcome, Ok(Outcome::InFlight { .. })), "{outcome:?}");
    drop(held);
}
