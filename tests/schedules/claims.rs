//! P7 and P15: durable claims that are given up, or judged by several at once.

use std::task::Poll;

use shuttle::thread;

use crate::explorer::{explore, join};
use crate::history::Event;
use crate::machine::{HOUR, Heard, Line, Machine, operation, poll_once};

/// The one who gives up never learns that it had the key; the claim must not outlive that.
#[test]
fn p15_a_durable_claim_given_up_while_it_is_committed_is_taken_back() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::of(&machine.open(), operation("k").durable());
        let given_up = line.clone();
        let given_up = thread::spawn(move || {
            let from = given_up.history.now();
            let mut begin = given_up.store.begin(&given_up.operation);
            if let Poll::Ready(outcome) = poll_once(&mut begin) {
                let heard = given_up.hear(from, outcome);
                given_up.serve(heard, 1);
            }
        });
        let other = line.clone();
        let other = thread::spawn(move || {
            if let Heard::Run(running) = other.ask_within(HOUR) {
                other.release(running);
            }
        });
        join([given_up, other]);
        let heard = line.ask();
        assert!(matches!(heard, Heard::Run(_) | Heard::Replay(1)));
        line.serve(heard, 2);
        assert_eq!((line.store.stats().in_flight, line.store.stats().open_claims), (0, 0));
        let [line] = machine.restart([line]);
        assert!(matches!(line.ask(), Heard::Replay(_)));
        line.history.check();
    });
}

/// Given up just before the store is let go: the next process is not told of a run that never was.
#[test]
fn p15_a_durable_claim_given_up_while_the_store_closes_is_taken_back() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::of(&machine.open(), operation("k").durable());
        let given_up = line.clone();
        let given_up = thread::spawn(move || {
            drop(given_up.store.begin(&given_up.operation));
        });
        let other = Line::of(&line.store, operation("other"));
        let heard = other.ask();
        other.serve(heard, 1);
        drop(other);
        join([given_up]);
        let [line] = machine.restart([line]);
        let heard = line.ask();
        line.serve(heard, 2);
        line.history.check();
    });
}

/// Whoever is handed an interrupted attempt has the key to itself, until it has judged.
#[test]
fn p7_one_of_those_who_ask_judges_an_interrupted_attempt() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::of(&machine.open(), operation("k").durable());
        let Heard::Run(running) = line.ask() else { panic!("it is new") };
        let threads = [1, 2].map(|body| {
            let line = line.clone();
            thread::spawn(move || match line.ask() {
                Heard::Judge(attempt) => {
                    let running = line.retry(attempt);
                    line.complete(running, body);
                }
                heard => line.serve(heard, body),
            })
        });
        let from = line.history.now();
        drop(running.end());
        line.history.note(from, Event::Interrupt);
        join(threads);
        assert_eq!((line.store.stats().in_flight, line.store.stats().open_claims), (0, 0));
        let [line] = machine.restart([line]);
        assert!(matches!(line.ask(), Heard::Replay(_)));
        line.history.check();
    });
}
