//! P6, P8 and P15 on the room of a store alone, under chosen schedules.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use shuttle::future::block_on;
use shuttle::thread;

use super::{Admission, Next, Space};
use crate::engine::log::PAGE;
use crate::{Error, Scope};

#[path = "../../../../tests/schedules/explorer.rs"]
mod explorer;

use explorer::{explore, join};

const LOG: u64 = 1024 * 1024;

/// Offers the space of a next log.
fn offer(space: &Space, usable: u64) {
    space.offer(Next { usable, ceiling: 0, spare: 0 }).expect("nothing is reserved").wake();
}

/// One page for several, some of whom give up: no more than one has it, and all who wait get it.
#[test]
fn p8_p15_everyone_who_waits_for_room_gets_it_once_it_is_there() {
    explore(|| {
        let space = Arc::new(Space::new(LOG, 0));
        space.measure(0, LOG).wake();
        offer(&space, PAGE);
        space.freeze(4 * LOG);
        let inside = Arc::new(AtomicUsize::new(0));
        let clients =
            [("a", true), ("a", false), ("b", true), ("c", true)].map(|(scope, waits)| {
                let (space, inside) = (Arc::clone(&space), Arc::clone(&inside));
                thread::spawn(move || {
                    let room = match space.admit(Scope::new(scope), 1) {
                        Ok(Admission::Granted(room)) => room,
                        // Another has the only page, and nobody waits for other callers.
                        Err(Error::Limit { .. }) => return,
                        Ok(Admission::Queued(turn)) if !waits => return drop(turn),
                        Ok(Admission::Queued(mut turn)) => {
                            match block_on(std::future::poll_fn(|cx| turn.poll(cx))) {
                                Ok(room) => room,
                                Err(Error::Limit { .. }) => return,
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                        Err(error) => panic!("{error:?}"),
                    };
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::Relaxed);
                    drop(room);
                })
            });
        let sealing = Arc::clone(&space);
        let reaper = thread::spawn(move || {
            for _ in 0..4 {
                sealing.advance(LOG);
            }
            sealing.finish(Ok(4 * LOG));
        });
        join(clients);
        join([reaper]);
        assert!(matches!(space.admit(Scope::new("a"), 1), Ok(Admission::Granted(_))));
    });
}

#[test]
fn p8_nobody_waits_for_room_in_a_store_that_stops() {
    explore(|| {
        let space = Arc::new(Space::new(LOG, 4 * LOG));
        space.measure(LOG, LOG).wake();
        offer(&space, 9 * PAGE);
        space.freeze(4 * LOG);
        let clients = ["a", "a", "b"].map(|scope| {
            let space = Arc::clone(&space);
            thread::spawn(move || match space.admit(Scope::new(scope), 1) {
                Ok(Admission::Queued(mut turn)) => {
                    let told = block_on(std::future::poll_fn(|cx| match turn.poll(cx) {
                        Poll::Ready(told) => Poll::Ready(told),
                        Poll::Pending => Poll::Pending,
                    }));
                    assert!(matches!(told, Err(Error::Stopped { .. })));
                }
                Err(error) => assert!(matches!(error, Error::Stopped { .. })),
                Ok(Admission::Granted(_)) => panic!("it is far behind"),
            })
        });
        space.stop(&Error::stopped());
        join(clients);
    });
}
