//! P8, P14 and P15 on the table alone.

use super::*;
use crate::clock::Moment;
use crate::key::Fingerprint;
use crate::record::Completion;

const ROOMY: Limits = Limits { in_flight: 100, per_scope: 100, waiters: 100 };

fn address(scope: &str, key: &str) -> Address {
    Address::new(&[0; 16], Scope::new(scope), key.parse().unwrap())
}

fn request(id: &str) -> RequestId {
    id.parse().unwrap()
}

fn record() -> Record {
    let completion = Completion {
        fingerprint: Fingerprint::of(["x"]),
        request_id: request("first"),
        ttl: Duration::from_secs(1),
        response: None,
    };
    Record::at(completion, Moment(0))
}

fn held(table: &Arc<Table>, id: &str) -> Hold {
    match table.acquire(&address("s", "k"), &request(id)).unwrap() {
        Acquired::Held(held) => held,
        Acquired::Waiting(_) => panic!("the key is held by another"),
    }
}

fn waiter(table: &Arc<Table>, id: &str) -> Waiter {
    match table.acquire(&address("s", "k"), &request(id)).unwrap() {
        Acquired::Waiting(waiter) => waiter,
        Acquired::Held(_) => panic!("the key is free"),
    }
}

/// A waiter that gave up while its key was freed was counted out twice, and panicked.
#[test]
fn p8_giving_up_while_the_key_is_answered_ends_in_one_or_the_other() {
    for _ in 0..2000 {
        let table = Table::new(ROOMY);
        let first = held(&table, "first");
        let waiters: Vec<_> = (0..4).map(|_| waiter(&table, "later")).collect();
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                barrier.wait();
                first.answer(&record());
            });
            barrier.wait();
            for waiter in waiters {
                match waiter.give_up() {
                    Ok(Waited::Record(_)) => {}
                    Err(holder) => assert_eq!(holder, request("first")),
                    Ok(other) => panic!("{other:?}"),
                }
            }
        });
        assert_eq!(table.in_flight(), 0);
    }
}

#[test]
fn p14_keys_that_stay_locked_count_for_the_limit() {
    let table = Table::new(Limits { in_flight: 1, ..ROOMY });
    held(&table, "first").retain();
    assert_eq!(table.in_flight(), 0);
    let other = table.acquire(&address("s", "other"), &request("other"));
    assert!(matches!(other, Err(Error::Limit { limit: Limit::InFlight, .. })));
    // The limit of the scope applies first, so that no other scope is kept out.
    let table = Table::new(Limits { in_flight: 2, per_scope: 1, ..ROOMY });
    held(&table, "first").retain();
    let same = table.acquire(&address("s", "other"), &request("other"));
    assert!(matches!(same, Err(Error::Limit { limit: Limit::InFlightPerScope, .. })));
    assert!(table.acquire(&address("t", "k"), &request("other")).is_ok());
}

#[test]
fn p8_every_waiter_gets_the_record() {
    let table = Table::new(ROOMY);
    let first = held(&table, "first");
    let waiters: Vec<_> = (0..3).map(|_| waiter(&table, "later")).collect();
    first.answer(&record());
    for waiter in waiters {
        assert!(matches!(waiter.give_up(), Ok(Waited::Record(_))));
    }
    assert_eq!(table.in_flight(), 0);
    held(&table, "next");
}

#[test]
fn p8_a_released_key_passes_to_the_first_waiter_without_a_gap() {
    let table = Table::new(ROOMY);
    let first = held(&table, "first");
    let (second, third) = (waiter(&table, "second"), waiter(&table, "third"));
    drop(first);
    let fourth = waiter(&table, "fourth");
    assert_eq!(third.give_up().unwrap_err(), request("second"));
    let Ok(Waited::Held(second)) = second.give_up() else { panic!("not promoted") };
    drop(second);
    assert!(matches!(fourth.give_up(), Ok(Waited::Held(_))));
}

#[test]
fn p15_a_promoted_waiter_that_is_cancelled_passes_the_key_on() {
    let table = Table::new(ROOMY);
    let first = held(&table, "first");
    let (second, third) = (waiter(&table, "second"), waiter(&table, "third"));
    drop(first);
    drop(second);
    assert!(matches!(third.give_up(), Ok(Waited::Held(_))));
    assert_eq!(table.in_flight(), 0);
}

#[test]
fn p14_every_limit_refuses_at_once_and_gives_its_share_back() {
    let table = Table::new(Limits { in_flight: 3, per_scope: 2, waiters: 1 });
    let first = held(&table, "first");
    let second = waiter(&table, "second");
    let ask = |scope, key| table.acquire(&address(scope, key), &request("r")).map(drop);
    let limit = |result: Result<()>| match result {
        Err(Error::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(ask("s", "other")), Limit::InFlightPerScope);
    let third = table.acquire(&address("t", "k"), &request("third")).unwrap();
    assert_eq!(limit(ask("u", "k")), Limit::InFlight);
    drop(third);
    drop(second);
    let second = waiter(&table, "second");
    drop((first, second));
    assert_eq!(table.in_flight(), 0);
    assert!(table.scopes.iter().all(|shard| shard.lock().is_empty()));
}

#[test]
fn p14_waiters_per_key_are_bounded() {
    let table = Table::new(Limits { waiters: 1, ..ROOMY });
    let _first = held(&table, "first");
    let _second = waiter(&table, "second");
    let third = table.acquire(&address("s", "k"), &request("third"));
    assert!(matches!(third, Err(Error::Limit { limit: Limit::WaitersPerKey, max: 1 })));
}

#[test]
fn stopping_ends_every_wait_and_keeps_held_keys() {
    let table = Table::new(ROOMY);
    let first = held(&table, "first");
    let second = waiter(&table, "second");
    table.stop(&Error::Stopped { source: None });
    assert!(matches!(second.give_up(), Ok(Waited::Stopped(_))));
    first.retain();
    let again = table.acquire(&address("s", "k"), &request("again"));
    assert!(matches!(again, Err(Error::Stopped { .. })));
    assert!(table.wait_idle(Duration::ZERO));
}
