//! P8, P14 and P15 on the table alone.

use super::*;
use crate::clock::Moment;
use crate::key::Fingerprint;
use crate::record::Completion;

const ROOMY: Limits = Limits { in_flight: 100, per_scope: 100, waiters: 100 };
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

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
    match table.acquire(&address("s", "k"), &request(id), NOW).unwrap() {
        Acquired::Held(held) => held,
        Acquired::Waiting(_) => panic!("the key is held by another"),
    }
}

fn waiter(table: &Arc<Table>, id: &str) -> Waiter {
    match table.acquire(&address("s", "k"), &request(id), NOW).unwrap() {
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
fn p14_keys_whose_outcome_is_unknown_are_not_in_flight_and_are_bounded() {
    let table = Table::new(Limits { in_flight: 3, per_scope: 2, ..ROOMY });
    let hold = |scope, key| table.acquire(&address(scope, key), &request("r"), NOW);
    let retain = |scope, key| match hold(scope, key).unwrap() {
        Acquired::Held(hold) => hold.retain(),
        Acquired::Waiting(_) => panic!("the key is held by another"),
    };
    retain("s", "first");
    assert_eq!((table.in_flight(), table.retained()), (0, 1));
    let both = (hold("s", "other").unwrap(), hold("s", "another").unwrap());
    drop(both);
    retain("s", "second");
    let third = hold("s", "third");
    assert!(matches!(third, Err(Error::Limit { limit: Limit::InFlightPerScope, .. })));
    retain("t", "first");
    let any = hold("u", "k");
    assert!(matches!(any, Err(Error::Limit { limit: Limit::InFlight, .. })));
}

#[test]
fn p14_those_who_wait_for_a_key_keep_no_other_key_out() {
    let table = Table::new(Limits { in_flight: 4, per_scope: 2, waiters: 100 });
    let _first = held(&table, "first");
    let _waiters = (waiter(&table, "second"), waiter(&table, "third"));
    let fourth = table.acquire(&address("s", "k"), &request("fourth"), NOW);
    assert!(matches!(fourth, Err(Error::Limit { limit: Limit::InFlightPerScope, .. })));
    assert!(table.acquire(&address("s", "other"), &request("other"), NOW).is_ok());
}

#[test]
fn p14_a_refused_scope_leaves_nothing() {
    let table = Table::new(Limits { per_scope: 0, ..ROOMY });
    let refused = table.acquire(&address("s", "k"), &request("r"), NOW);
    assert!(matches!(refused, Err(Error::Limit { limit: Limit::InFlightPerScope, max: 0 })));
    assert!(table.shares.is_empty());
}

#[test]
fn p14_however_many_scopes_are_busy_the_next_one_finds_room() {
    let table = Table::new(Limits { in_flight: 4096, per_scope: 1024, waiters: 0 });
    let fill = |scope: &str| {
        let take = |n| table.acquire(&address(scope, &format!("k{n}")), &request("r"), NOW).ok();
        (0..).map_while(take).collect::<Vec<_>>()
    };
    let busy: Vec<_> = (0..8).map(|n| fill(&format!("busy-{n}"))).collect();
    let shares: Vec<usize> = busy.iter().map(Vec::len).collect();
    assert_eq!(shares, [1024, 1024, 1024, 512, 256, 128, 64, 32]);
    assert!(!fill("another").is_empty());
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
    let ask = |scope, key| table.acquire(&address(scope, key), &request("r"), NOW).map(drop);
    let limit = |result: Result<()>| match result {
        Err(Error::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    let other = table.acquire(&address("s", "other"), &request("other"), NOW).unwrap();
    assert_eq!(limit(ask("s", "another")), Limit::InFlightPerScope);
    let third = table.acquire(&address("t", "k"), &request("third"), NOW).unwrap();
    assert_eq!(limit(ask("u", "k")), Limit::InFlight);
    drop(third);
    drop(second);
    let second = waiter(&table, "second");
    drop((first, second, other));
    assert_eq!(table.in_flight(), 0);
    assert!(table.shares.is_empty());
}

#[test]
fn p14_waiters_per_key_are_bounded() {
    let table = Table::new(Limits { waiters: 1, ..ROOMY });
    let _first = held(&table, "first");
    let _second = waiter(&table, "second");
    let third = table.acquire(&address("s", "k"), &request("third"), NOW);
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
    let again = table.acquire(&address("s", "k"), &request("again"), NOW);
    assert!(matches!(again, Err(Error::Stopped { .. })));
    assert!(table.wait_idle(Duration::ZERO));
}

#[test]
fn a_key_is_listed_by_the_stage_that_it_has_reached() {
    let table = Table::new(ROOMY);
    let stage = || table.list(NOW).first().map(|key| key.stage);
    let mut hold = held(&table, "first");
    let _later = waiter(&table, "later");
    assert_eq!(stage(), Some(Stage::Running));
    table.note(&address("s", "k"), Stage::Delayed);
    assert_eq!(stage(), Some(Stage::Delayed));
    hold.retain_if_dropped();
    assert_eq!(stage(), Some(Stage::Ending));
    hold.free();
    assert_eq!(stage(), Some(Stage::Running), "it was handed on");
    let other = table.acquire(&address("s", "other"), &request("r"), NOW).unwrap();
    let Acquired::Held(other) = other else { panic!("the key is free") };
    other.retain();
    let retained = table.list(NOW).into_iter().filter(|key| key.stage == Stage::Retained);
    assert_eq!(retained.map(|key| key.key.as_str().to_owned()).collect::<Vec<_>>(), ["other"]);
}
