//! P14: every limit is an error with a name, and nothing is lost at it.

use refrain::error::Limit;
use refrain::{Error, Outcome, Refusing, Store};

use crate::kit::*;

#[test]
fn the_shortest_ttl_is_a_millisecond() {
    let builder =
        |nanos| Store::builder().ttl(std::time::Duration::from_nanos(nanos)).open_in_memory();
    assert!(builder(1_000_000).is_ok());
    assert!(matches!(builder(999_999), Err(Error::Setting { name: "ttl", .. })));
}

#[test]
fn settings_are_taken_up_to_their_bounds() {
    const GIB: u64 = 1024 * 1024 * 1024;
    let ten_years = 10 * 366 * DAY;
    let millisecond = std::time::Duration::from_millis(1);
    let mib = 1024 * 1024;
    let builder = Store::builder;
    for (within, beyond) in [
        (builder().ttl(ten_years), builder().ttl(ten_years + millisecond)),
        (builder().log_bytes(256 * 1024), builder().log_bytes(252 * 1024)),
        (builder().log_bytes(4 * GIB), builder().log_bytes(4 * GIB + 1)),
        (builder().max_response_bytes(16 * mib), builder().max_response_bytes(16 * mib + 1)),
        (builder().max_open_claims(16 * 1024), builder().max_open_claims(16 * 1024 + 1)),
    ] {
        within.open_in_memory().unwrap();
        assert!(matches!(beyond.open_in_memory(), Err(Error::Setting { .. })));
    }
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    let refused = |builder: refrain::Builder| match builder.open_in_memory() {
        Err(Error::Setting { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    let builder = || small(Store::builder());
    assert_eq!(refused(builder().ttl(std::time::Duration::ZERO)), "ttl");
    assert_eq!(refused(builder().log_bytes(4096)), "log_bytes");
    assert_eq!(refused(builder().max_response_bytes(1024 * 1024)), "max_response_bytes");
    assert_eq!(refused(builder().max_open_claims(1_000_000)), "max_open_claims");
    assert_eq!(refused(builder().max_in_flight(0)), "max_in_flight");
    // What is not set fits what is.
    for kib in [256, 1024, 32 * 1024] {
        Store::builder().log_bytes(kib * 1024).open_in_memory().unwrap();
    }
}

#[test]
fn p11_p14_what_is_admitted_has_its_room_and_what_has_none_is_refused() {
    // Permits reserve all that a small log has.
    let store = Store::builder()
        .log_bytes(256 * 1024)
        .max_response_bytes(32 * 1024)
        .max_open_claims(8)
        .open_in_memory()
        .unwrap();
    let mut permits = Vec::new();
    let refused = loop {
        let name = format!("key-{}", permits.len());
        match store.begin(&operation(&name)).wait() {
            Ok(refrain::Outcome::Execute(permit)) => permits.push(permit),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    let Error::Limit { limit: Limit::ReservedBytes, .. } = refused else { panic!("{refused:?}") };
    assert!(permits.len() > 20, "{}", permits.len());
    // Far more than the logs at hand have room for, and the disk has room for more logs.
    let long = "x".repeat(30_000);
    let permits_given = permits.len();
    let complete = |permit: refrain::Permit| permit.complete(&response(&long));
    let tickets: Vec<_> = permits.into_iter().map(complete).collect();
    for ticket in tickets {
        assert_eq!(ticket.wait().unwrap().response().expect("it is kept").body(), &long);
    }
    assert_eq!(store.stats().bodies_left_out, 0);
    store.reap().unwrap();
    for n in 0..permits_given {
        assert_eq!(replayed(&store, &format!("key-{n}")).as_ref(), Some(&long), "key {n}");
    }
    run(&store, "again");
}

/// It said that all was well, though no new key was served.
#[test]
fn p11_a_store_whose_claims_wait_for_verdicts_says_so() {
    let store =
        Store::builder().max_open_claims(4).max_open_claims_per_scope(4).open_in_memory().unwrap();
    for n in 0..4 {
        drop(execute(&store, &operation(&format!("key-{n}")).durable()));
    }
    let refused = store.begin(&operation("new")).wait().unwrap_err();
    assert!(matches!(refused, Error::Limit { limit: Limit::OpenClaims, .. }), "{refused:?}");
    assert_eq!(store.stats().refusing, Some(Refusing::OpenClaims));
    assert!(!store.health().is_ready(), "{:?}", store.health());
    let Outcome::Interrupted(attempt) = begin(&store, &operation("key-0").durable()) else {
        panic!("key-0 has no verdict")
    };
    attempt.release().wait().unwrap();
    assert!(store.health().is_ready(), "{:?}", store.health());
    run(&store, "new");
}
