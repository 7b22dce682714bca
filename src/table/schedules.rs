//! P8, P14 and P15 on the in-flight table and the tickets alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use shuttle::future::block_on;
use shuttle::thread;

use super::{Acquired, Limits, Table, Waited};
use crate::key::Address;
use crate::ticket::{Slot, Ticket};
use crate::{Error, Scope};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

#[path = "../../tests/schedules/explorer.rs"]
mod explorer;

use explorer::{explore, join};

/// A ticket may move between a thread and a task, and be waited for more than once.
#[test]
fn p8_a_ticket_reaches_its_owner_however_it_is_waited_for() {
    explore(|| {
        let (ticket, promise) = Ticket::new();
        let settling = thread::spawn(move || promise.fulfil(Ok(7)));
        let ticket = match ticket.wait_timeout(Duration::from_secs(1)) {
            Ok(outcome) => Ticket::ready(outcome),
            Err(ticket) => ticket,
        };
        let moved = thread::spawn(move || assert_eq!(block_on(ticket).unwrap(), 7));
        join([moved]);
        join([settling]);
    });
}

#[test]
fn p15_a_value_is_taken_or_comes_back_and_never_both() {
    explore(|| {
        let slot = Arc::new(Slot::new());
        let (taken, filled) = (Arc::clone(&slot), Arc::new(AtomicUsize::new(0)));
        let returned = Arc::clone(&filled);
        let settling = thread::spawn(move || {
            if slot.fill(7).is_err() {
                returned.fetch_add(1, Ordering::Relaxed);
            }
        });
        if taken.close().is_some() {
            filled.fetch_add(1, Ordering::Relaxed);
        }
        join([settling]);
        assert_eq!(filled.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn p8_whoever_waits_for_the_last_to_leave_is_woken() {
    explore(|| {
        let table = Table::new(Limits { in_flight: 9, per_scope: 9, waiters: 9 });
        let leaving = ["a", "b"].map(|key| {
            let address = Address::new(&[0; 16], Scope::new("s"), key.parse().unwrap());
            let acquired = table.acquire(&address, &"r".parse().unwrap(), NOW).unwrap();
            thread::spawn(move || drop(acquired))
        });
        assert!(table.wait_idle(Duration::MAX));
        join(leaving);
    });
}

/// No more than allowed are in flight at any time, and those who leave make room for as many.
#[test]
fn p14_the_limits_of_the_table_hold() {
    const LIMITS: Limits = Limits { in_flight: 3, per_scope: 2, waiters: 1 };
    fn acquire(table: &Arc<Table>, scope: &str, key: &str) -> Option<Acquired> {
        let address = Address::new(&[0; 16], Scope::new(scope), key.parse().unwrap());
        table.acquire(&address, &"r".parse().unwrap(), NOW).ok()
    }
    explore(|| {
        let table = Table::new(LIMITS);
        let inside = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let threads = [("s", 0), ("s", 0), ("s", 0), ("t", 1)].map(|(scope, which)| {
            let (table, inside) = (Arc::clone(&table), Arc::clone(&inside));
            thread::spawn(move || {
                let Some(acquired) = acquire(&table, scope, "k") else { return };
                let counts = &*inside;
                assert!(counts[which].fetch_add(1, Ordering::Relaxed) < LIMITS.per_scope);
                thread::yield_now();
                counts[which].fetch_sub(1, Ordering::Relaxed);
                drop(acquired);
            })
        });
        join(threads);
        assert_eq!(table.in_flight(), 0);
        let room = [("s", "a"), ("s", "b"), ("t", "a")];
        let room = room.map(|(scope, key)| acquire(&table, scope, key).expect("all have left"));
        assert!(acquire(&table, "t", "b").is_none());
        drop(room);
        assert_eq!(table.in_flight(), 0);
    });
}

/// Some acquire while the table stops: each either has the key, or is told.
#[test]
fn p8_nobody_waits_in_a_table_that_has_stopped() {
    explore(|| {
        let table = Table::new(Limits { in_flight: 9, per_scope: 9, waiters: 9 });
        let threads = ["a", "a", "b"].map(|key| {
            let table = Arc::clone(&table);
            let address = Address::new(&[0; 16], Scope::new("s"), key.parse().unwrap());
            thread::spawn(move || match table.acquire(&address, &"r".parse().unwrap(), NOW) {
                Ok(Acquired::Held(held)) => held.retain(),
                Ok(Acquired::Waiting(mut waiter)) => {
                    let waited = block_on(std::future::poll_fn(|cx| waiter.poll(cx)));
                    assert!(matches!(waited, Waited::Stopped(_)), "the key is kept");
                }
                Err(error) => assert!(matches!(error, Error::Stopped { .. })),
            })
        });
        table.stop(&Error::Stopped { source: None });
        join(threads);
        assert_eq!(table.in_flight(), 0);
    });
}
