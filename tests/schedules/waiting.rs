//! P8 and P15: the requests that wait for a key, and their outcomes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use crate::explorer::{explore, join};
use crate::machine::{HOUR, Heard, Line, Machine, operation_in, poll_once};

/// Every kind of waiter hears the one answer.
#[test]
fn p8_sync_and_async_waiters_of_a_key_get_the_winners_record() {
    explore(|| {
        let store = Machine::new().open();
        let line = Line::new(&store, "k");
        let clients: [fn(&Line) -> Heard; 3] =
            [Line::ask, Line::ask_in_task, |line| line.ask_within(HOUR)];
        let threads: Vec<_> = (0..)
            .zip(clients)
            .map(|(body, ask)| {
                let line = line.clone();
                thread::spawn(move || {
                    let heard = ask(&line);
                    assert!(!matches!(heard, Heard::Stopped));
                    line.serve(heard, body);
                })
            })
            .collect();
        join(threads);
        assert!(matches!(line.ask(), Heard::Replay(_)));
        line.history.check();
        assert_eq!(store.stats().in_flight, 0);
    });
}

#[test]
fn p8_a_released_key_goes_to_the_first_who_waits_and_to_no_other() {
    explore(|| {
        let store = Machine::new().open();
        let line = Line::new(&store, "k");
        let Heard::Run(running) = line.ask() else { panic!("it is new") };
        let turns = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|place| {
                // They queue here, in order.
                let from = line.history.now();
                let begin = store.begin(&line.operation);
                let (line, turns) = (line.clone(), Arc::clone(&turns));
                thread::spawn(move || {
                    let outcome = if place == 1 { block_on(begin) } else { begin.wait() };
                    let Heard::Run(running) = line.hear(from, outcome) else {
                        panic!("nobody records anything")
                    };
                    assert_eq!(turns.fetch_add(1, Ordering::Relaxed), place);
                    line.release(running);
                })
            })
            .collect();
        line.release(running);
        join(threads);
        line.history.check();
        assert_eq!(store.stats().in_flight, 0);
    });
}

/// A waiter is cancelled, and the next waiter gets the key, whether or not the first one had it.
#[test]
fn p15_a_cancelled_promoted_waiter_passes_the_key_on() {
    explore(|| {
        let store = Machine::new().open();
        let line = Line::new(&store, "k");
        let Heard::Run(running) = line.ask() else { panic!("it is new") };
        let mut first = store.begin(&line.operation);
        let cancelled = line.clone();
        let cancelled = thread::spawn(move || {
            let from = cancelled.history.now();
            if let Poll::Ready(outcome) = poll_once(&mut first) {
                let heard = cancelled.hear(from, outcome);
                return cancelled.serve(heard, 1);
            }
            thread::yield_now();
            drop(first);
        });
        let impatient = line.clone();
        let impatient = thread::spawn(move || {
            let heard = impatient.ask_within(HOUR);
            impatient.serve(heard, 2);
        });
        let patient = line.clone();
        let patient = thread::spawn(move || {
            let heard = patient.ask();
            assert!(matches!(heard, Heard::Run(_) | Heard::Replay(_)));
            patient.serve(heard, 3);
        });
        line.release(running);
        join([cancelled, impatient, patient]);
        assert!(matches!(line.ask(), Heard::Replay(_)));
        line.history.check();
        assert_eq!(store.stats().in_flight, 0);
    });
}

/// A key that is held for good is in nobody's way but its own.
#[test]
fn p8_keys_and_scopes_do_not_disturb_each_other() {
    explore(|| {
        let store = Machine::new().open();
        let held = Line::new(&store, "held");
        let Heard::Run(running) = held.ask() else { panic!("it is new") };
        let elsewhere = operation_in("t", "held");
        let lines = [Line::new(&store, "free"), Line::of(&store, elsewhere)];
        let threads = [0, 1, 0].map(|which| {
            let line = lines[which].clone();
            thread::spawn(move || {
                let heard = line.ask();
                assert!(matches!(heard, Heard::Run(_) | Heard::Replay(_)));
                line.serve(heard, 1);
            })
        });
        assert!(matches!(held.ask_within(Duration::ZERO), Heard::Busy));
        join(threads);
        assert!(lines.iter().all(|line| matches!(line.ask(), Heard::Replay(1))));
        held.release(running);
        lines.iter().chain([&held]).for_each(|line| line.history.check());
    });
}
