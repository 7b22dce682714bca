//! A store that is closed answers everybody, and waits for those who run.

use std::thread;
use std::time::Duration;

use refrain::{Error, Permit, Store};

use super::House;
use super::kit::*;

pub(crate) fn a_closed_store_answers_that_it_is_stopped(house: &impl House) {
    let store = house.open();
    let permit = execute(&store, &operation("a"));
    let waiting = store.begin(&operation("a"));
    assert_eq!(store.close(Duration::ZERO).wait().unwrap(), 2);
    assert!(matches!(waiting.wait(), Err(Error::Stopped { source: None, .. })));
    assert!(matches!(permit.complete(&response("a")).wait(), Err(Error::Stopped { .. })));
    assert!(matches!(store.begin(&operation("b")).wait(), Err(Error::Stopped { .. })));
    assert!(matches!(store.get(scope(), &key("a")).wait(), Err(Error::Stopped { .. })));
    assert!(matches!(store.interrupted(None, 1).wait(), Err(Error::Stopped { .. })));
    assert!(matches!(store.forget(scope(), &key("a")).wait(), Err(Error::Stopped { .. })));
    assert!(matches!(store.verify(), Err(Error::Stopped { .. })));
    assert!(matches!(store.reap(), Err(Error::Stopped { .. })));
}

pub(crate) fn closing_lets_a_running_operation_complete(house: &impl House) {
    let store = house.open();
    let permit = execute(&store, &operation("a"));
    assert_eq!(close_and_complete(&store, permit), 0);
}

/// Completes a permit while the store is closing, and returns the number of operations that were
/// left.
pub(crate) fn close_and_complete(store: &Store, permit: Permit) -> usize {
    thread::scope(|threads| {
        let closing = threads.spawn(|| store.close(DAY).wait());
        while store.begin(&operation("probe")).wait().is_ok() {
            thread::yield_now();
        }
        permit.complete(&response("a")).wait().unwrap();
        closing.join().unwrap().unwrap()
    })
}
