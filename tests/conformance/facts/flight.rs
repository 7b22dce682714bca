//! P1, P8 and P15: requests that share a key.

use std::pin::pin;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use refrain::Outcome;

use super::House;
use super::kit::*;

pub(crate) fn p1_p8_a_thousand_concurrent_requests_run_once_and_all_get_the_answer(
    house: &impl House,
) {
    const THREADS: usize = 50;
    let store = house.open();
    let (barrier, runs, replays) =
        (Barrier::new(THREADS), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                for round in 0..20 {
                    let name = format!("key-{round}");
                    barrier.wait();
                    match begin(&store, &operation(&name)) {
                        Outcome::Execute(permit) => {
                            runs.fetch_add(1, Ordering::SeqCst);
                            permit.complete(&response(&name)).wait().unwrap();
                        }
                        Outcome::Replay(record) => {
                            replays.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(record.response().unwrap().body(), name.as_bytes());
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!((runs.into_inner(), replays.into_inner()), (20, 20 * (THREADS - 1)));
}

pub(crate) fn p8_a_wait_ends_by_its_deadline_with_the_holders_name(house: &impl House) {
    let store = house.open();
    let _permit = execute(&store, &operation("a"));
    match store.begin(&operation("a")).wait_timeout(Duration::from_millis(1)).unwrap() {
        Outcome::InFlight { holder } => assert_eq!(holder.as_str(), "req_a"),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn p15_a_dropped_permit_hands_the_key_to_the_next_in_line(house: &impl House) {
    let store = house.open();
    let permit = execute(&store, &operation("a"));
    let mut waiting = store.begin(&operation("a"));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(pin!(&mut waiting).poll(&mut cx), Poll::Pending));
    drop(permit);
    assert!(matches!(waiting.wait().unwrap(), Outcome::Execute(_)));
}

pub(crate) fn p15_a_panic_frees_a_volatile_key(house: &impl House) {
    let store = house.open();
    let permit = execute(&store, &operation("a"));
    let panicked = thread::scope(|threads| {
        let handler = move || {
            let _permit = permit;
            std::panic::resume_unwind(Box::new("the handler failed"));
        };
        threads.spawn(handler).join()
    });
    assert!(panicked.is_err());
    assert_eq!(replayed(&store, "a"), None);
}

pub(crate) fn p15_a_dropped_ticket_does_not_undo_the_commit(house: &impl House) {
    let store = house.open();
    drop(execute(&store, &operation("a")).complete(&response("a")));
    // Waits for the verdict if it is not there yet.
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}
