//! P8 and P10: a store closes, is dropped or fails while it is used. Everyone hears of that, and
//! what another process finds agrees with what was heard.

use std::sync::Arc;
use std::time::Duration;

use shuttle::thread;

use crate::explorer::{explore, join};
use crate::history::Event;
use crate::machine::{HOUR, Heard, Line, Machine, Running, response};

/// A client who waits on a thread, and one who waits in a task.
fn waiters(line: &Line) -> [thread::JoinHandle<()>; 2] {
    let clients: [fn(&Line) -> Heard; 2] = [Line::ask, Line::ask_in_task];
    clients.map(|ask| {
        let line = line.clone();
        thread::spawn(move || {
            let heard = ask(&line);
            line.serve(heard, 2);
        })
    })
}

fn first(line: &Line) -> Running {
    match line.ask() {
        Heard::Run(running) => running,
        _ => panic!("it is new"),
    }
}

/// Asks once more in another process, and checks what all have heard.
fn conclude(machine: &Machine, line: Line) {
    let [line] = machine.restart([line]);
    let heard = line.ask();
    assert!(!matches!(heard, Heard::Stopped));
    line.serve(heard, 3);
    line.history.check();
}

#[test]
fn p8_closing_ends_every_wait() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::new(&machine.open(), "k");
        let running = first(&line);
        let waiters = waiters(&line);
        let closing = line.store.clone();
        let closing = thread::spawn(move || {
            closing.close(HOUR).wait().unwrap();
        });
        line.complete(running, 1);
        join(waiters);
        join([closing]);
        assert!(matches!(line.ask(), Heard::Stopped));
        conclude(&machine, line);
    });
}

/// Nobody is in flight any more once all have ended, and whoever closes is told.
#[test]
fn p8_closing_waits_for_those_in_flight_and_no_longer() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::new(&machine.open(), "k");
        let running = first(&line);
        let waiters = waiters(&line);
        let holder = line.clone();
        let holder = thread::spawn(move || assert!(holder.complete(running, 1)));
        assert_eq!(line.store.close(Duration::MAX).wait().unwrap(), 0);
        join([holder]);
        join(waiters);
        conclude(&machine, line);
    });
}

#[test]
fn p2_a_ticket_that_outlives_its_store_tells_the_truth() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::new(&machine.open(), "k");
        let running = first(&line);
        let (history, from) = (Arc::clone(&line.history), line.history.now());
        let ticket = running.end().complete(&response(1));
        let client = thread::spawn(move || {
            history.conclude(from, Event::Complete(1), ticket.wait());
        });
        let [line] = machine.restart([line]);
        join([client]);
        let heard = line.ask();
        line.serve(heard, 2);
        line.history.check();
    });
}

/// The outcome of what was on its way is unknown: its waiters are told so, nobody runs it again in
/// this process, and what was acknowledged is there after a power cut.
#[test]
fn p10_a_failed_sync_ends_every_wait_and_nobody_runs_after_it() {
    explore(|| {
        let machine = Machine::new();
        let line = Line::new(&machine.open(), "k");
        let running = first(&line);
        let waiters = waiters(&line);
        let failing = Arc::clone(&machine.medium);
        let failing = thread::spawn(move || failing.fail());
        let acknowledged = line.complete(running, 1);
        join(waiters);
        join([failing]);
        let heard = line.ask();
        assert!(matches!((acknowledged, heard), (true, Heard::Replay(1)) | (_, Heard::Stopped)));
        conclude(&machine, line);
        machine.medium.wipe();
    });
}
