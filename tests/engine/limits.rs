//! P14: every limit is an error with a name, and nothing is lost at it.

use refrain::error::Limit;
use refrain::{Error, Store};

use crate::kit::*;

fn limit_of<T: std::fmt::Debug>(result: refrain::Result<T>) -> Limit {
    match result {
        Err(Error::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn p14_operations_in_flight_are_bounded() {
    let store = small(Store::builder())
        .max_in_flight(3)
        .max_in_flight_per_scope(2)
        .max_waiters_per_key(0)
        .open_in_memory()
        .unwrap();
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

#[test]
fn p14_a_response_over_the_limits_is_recorded_as_done_without_it() {
    let home = Home::new();
    let store = home.open();
    let long = response(&"x".repeat(64 * 1024 + 1));
    let mut wide = response("x");
    for n in 0..256 {
        let name: http::HeaderName = format!("x-{n}").parse().unwrap();
        wide.headers_mut().insert(name, "x".parse().unwrap());
    }
    let mut heavy = response("x");
    heavy.headers_mut().insert("x-long", "x".repeat(64 * 1024).parse().unwrap());
    for (name, response) in [("long", long), ("wide", wide), ("heavy", heavy)] {
        let record = execute(&store, &operation(name)).complete(&response).wait().unwrap();
        assert!(record.response().is_none(), "{name}");
    }
    let done = execute(&store, &operation("streamed")).complete_without_response();
    assert!(done.wait().unwrap().response().is_none());
    drop(store);
    let store = home.open();
    for name in ["long", "wide", "heavy", "streamed"] {
        match begin(&store, &operation(name)) {
            refrain::Outcome::Replay(record) => assert!(record.response().is_none(), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

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
fn p11_what_is_admitted_has_its_room_and_what_has_none_is_refused() {
    // Permits reserve more than two small logs have; sealing is what makes room again.
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
    assert!(matches!(refused, Error::Full), "{refused:?}");
    assert!(permits.len() > 20, "{}", permits.len());
    // Far more than there is room for: what does not fit is recorded without its body.
    let long = "x".repeat(30_000);
    let complete = |permit: refrain::Permit| permit.complete(&response(&long));
    let tickets: Vec<_> = permits.into_iter().map(complete).collect();
    let kept: Vec<_> =
        tickets.into_iter().map(|ticket| ticket.wait().unwrap().response().is_some()).collect();
    assert!(kept.contains(&true));
    assert_eq!(store.stats().bodies_left_out, kept.iter().filter(|kept| !**kept).count() as u64);
    store.reap().unwrap();
    for (n, kept) in kept.into_iter().enumerate() {
        match begin(&store, &operation(&format!("key-{n}"))) {
            refrain::Outcome::Replay(record) => {
                let body = record.response().map(|response| response.body().clone());
                assert_eq!(body.is_some(), kept, "key {n}");
                assert!(body.is_none_or(|body| body == long), "key {n}");
            }
            other => panic!("key {n} became {other:?}"),
        }
    }
    run(&store, "again");
}
