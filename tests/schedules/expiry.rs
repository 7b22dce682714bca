//! P4 and P9: the reaper beside a key that is used again.

use std::sync::Arc;

use refrain::Error;
use shuttle::thread;

use crate::explorer::{explore, join};
use crate::history::Event;
use crate::machine::{HOUR, Heard, Line, Machine, operation};

fn completed(line: &Line) {
    let heard = line.ask();
    assert!(matches!(heard, Heard::Run(_)));
    line.serve(heard, 1);
}

fn clients(line: &Line) -> [thread::JoinHandle<()>; 2] {
    let client = |ask: fn(&Line) -> Heard, body| {
        let line = line.clone();
        thread::spawn(move || {
            let heard = ask(&line);
            assert!(!matches!(heard, Heard::Stopped));
            line.serve(heard, body);
        })
    };
    [client(Line::ask, 2), client(Line::ask_in_task, 3)]
}

/// The record expires, and its log is rotated and sealed, while others ask for the key.
#[test]
fn p9_a_key_that_expires_while_it_is_asked_for_runs_again_once() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::of(&machine.open(), operation("k").ttl(HOUR));
        completed(&line);
        let clients = clients(&line);
        let from = line.history.now();
        machine.clock.advance(2 * HOUR);
        line.history.note(from, Event::Expire);
        line.store.reap().unwrap();
        join(clients);
        assert!(matches!(line.ask(), Heard::Replay(2 | 3)));
        let [line] = machine.restart([line]);
        assert!(matches!(line.ask(), Heard::Replay(2 | 3)));
        line.history.check();
    });
}

/// The record is sealed while it is forgotten and its key used again.
#[test]
fn p4_a_record_that_is_sealed_while_it_is_forgotten_does_not_come_back() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::new(&machine.open(), "k");
        completed(&line);
        machine.clock.advance(2 * HOUR);
        let forgetting = line.clone();
        let forgetting = thread::spawn(move || forgetting.forget());
        let asking = line.clone();
        let asking = thread::spawn(move || {
            let heard = asking.ask();
            assert!(!matches!(heard, Heard::Stopped));
            asking.serve(heard, 2);
        });
        line.store.reap().unwrap();
        join([forgetting, asking]);
        let heard = line.ask();
        line.serve(heard, 3);
        let [line] = machine.restart([line]);
        assert!(matches!(line.ask(), Heard::Replay(_)));
        line.history.check();
    });
}

/// A batch is still being settled when its log is rotated, and the reaper seals what is in there.
#[test]
fn p2_a_record_that_is_settled_while_its_log_is_sealed_is_not_lost() {
    explore(|| {
        let machine = Machine::new();
        let store = machine.open();
        let lines = ["first", "a", "b"].map(|key| Line::new(&store, key));
        completed(&lines[0]);
        machine.clock.advance(2 * HOUR);
        let threads = [1, 2].map(|which: usize| {
            let line = lines[which].clone();
            let heard = line.ask();
            assert!(matches!(heard, Heard::Run(_)));
            thread::spawn(move || line.serve(heard, 1))
        });
        store.reap().unwrap();
        join(threads);
        drop(store);
        assert!(lines.iter().all(|line| matches!(line.ask(), Heard::Replay(1))));
        for line in machine.restart(lines) {
            assert!(matches!(line.ask(), Heard::Replay(1)));
            line.history.check();
        }
    });
}

/// The store fails or closes while the reaper is at work, or just before it is asked.
#[test]
fn p10_whoever_waits_for_the_reaper_is_answered_however_the_store_ends() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::new(&machine.open(), "k");
        completed(&line);
        machine.clock.advance(2 * HOUR);
        let [reaping, closing] = [&line.store, &line.store].map(Clone::clone);
        let reaping = thread::spawn(move || {
            let outcome = reaping.reap();
            assert!(matches!(outcome, Ok(()) | Err(Error::Stopped { .. })), "{outcome:?}");
        });
        let closing = thread::spawn(move || drop(closing.close(HOUR).wait()));
        let failing = Arc::clone(&machine.medium);
        let failing = thread::spawn(move || failing.fail());
        join([reaping, closing, failing]);
        let [line] = machine.restart([line]);
        assert!(matches!(line.ask(), Heard::Replay(1)));
        line.history.check();
        machine.medium.wipe();
    });
}
