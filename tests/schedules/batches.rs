//! P2 and P7: verdicts of every kind that come into one batch, or into several, as it happens.

use std::sync::Arc;

use refrain::Store;
use shuttle::thread;

use crate::explorer::{explore, join};
use crate::history::Event;
use crate::machine::{Heard, Line, Machine, Running, operation};

fn run(line: &Line) -> Running {
    match line.ask() {
        Heard::Run(running) => running,
        _ => panic!("it is new"),
    }
}

fn durable(store: &Store, key: &str) -> Line {
    Line::of(store, operation(key).durable())
}

/// A checkpoint, and then a dropped permit: the key is interrupted, and its attempt has the
/// checkpoint if that was acknowledged.
fn checkpoint(line: &Line, mut running: Running) -> bool {
    let acknowledged = running.checkpoint("half");
    let from = line.history.now();
    drop(running.end());
    line.history.note(from, Event::Interrupt);
    acknowledged
}

fn interrupt(line: &Line, running: Running) {
    let from = line.history.now();
    let outcome = running.end().interrupt().wait();
    line.history.conclude(from, Event::Interrupt, outcome);
}

/// Ends five keys, each in its way, from three threads; `trouble` happens beside them.
pub(super) fn end_in_every_way(trouble: impl FnOnce(&Machine) + Send + 'static) {
    let machine = Machine::new();
    let store = machine.open();
    let [done, forgotten, plain] = ["a", "b", "c"].map(|key| Line::new(&store, key));
    let [released, left] = ["d", "e"].map(|key| durable(&store, key));
    drop(store);
    let lines = [&done, &forgotten, &plain, &released, &left].map(Line::clone);
    let first = run(&forgotten);
    assert!(forgotten.complete(first, 1));
    let permits = [run(&done), run(&plain)];
    let durables = [run(&released), run(&left)];

    let threads = [
        thread::spawn(move || {
            let [a, b] = permits;
            done.complete(a, 1);
            interrupt(&plain, b);
        }),
        thread::spawn(move || forgotten.forget()),
    ];
    let beside = machine.clone();
    let trouble = thread::spawn(move || trouble(&beside));
    let [a, b] = durables;
    let kept = checkpoint(&left, b);
    released.release(a);
    join(threads);
    join([trouble]);
    drop((released, left));

    let lines = machine.restart(lines);
    for line in &lines {
        match line.ask() {
            Heard::Judge(attempt) if line.operation.key().as_str() == "e" => {
                assert!(!kept || attempt.checkpoints().len() == 1);
            }
            heard => line.serve(heard, 2),
        }
        line.history.check();
    }
    machine.medium.wipe();
}

#[test]
fn p7_verdicts_of_every_kind_share_batches() {
    explore(|| end_in_every_way(|_| ()));
}

/// Some are acknowledged and some are not; none is half done.
#[test]
fn p10_verdicts_of_every_kind_share_a_batch_that_fails() {
    explore(|| end_in_every_way(|machine| Arc::clone(&machine.medium).fail()));
}
