//! P6, P8, P11 and P14: more than the store can seal. New keys wait, and say so by their deadline.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use refrain::backend::Stage;
use refrain::{Concern, Error, Health, Operation, Outcome, Permit, Refusing, Store};
use rustix::io::Errno;

use crate::gate::{Gate, State};
use crate::kit::*;

/// A store with small logs, and the disk that it is on.
struct Busy {
    gate: Arc<Gate>,
    store: Store,
    body: String,
    done: usize,
}

impl Busy {
    fn new() -> Self {
        let gate = Arc::new(Gate::default());
        let disk: Arc<Gate> = Arc::clone(&gate);
        let builder = Store::builder().log_bytes(256 * 1024).max_response_bytes(32 * 1024);
        let store = builder.open_on(disk).unwrap();
        Self { gate, store, body: "x".repeat(30_000), done: 0 }
    }

    /// Asks for a key, and gives up at once.
    fn ask(&self, operation: &Operation) -> refrain::Result<Outcome> {
        self.store.begin(operation).wait_timeout(Duration::ZERO)
    }

    /// Completes keys until the next one is not let in at once, and returns what it is told.
    fn fill(&mut self) -> Error {
        while self.done < 1000 {
            match self.ask(&operation(&format!("key-{}", self.done))) {
                Ok(Outcome::Execute(permit)) => self.complete(permit),
                Ok(other) => panic!("{other:?}"),
                Err(error) => return error,
            }
            self.done += 1;
        }
        panic!("it takes any number")
    }

    /// Completes a permit, and its body is kept.
    fn complete(&self, permit: Permit) {
        let record = permit.complete(&response(&self.body)).wait().unwrap();
        assert!(record.response().is_some(), "the disk has room for its body");
    }

    /// The reasons for which the store is degraded.
    fn concerns(&self) -> Vec<Concern> {
        match self.store.health() {
            Health::Degraded(concerns) => concerns,
            other => panic!("{other:?}"),
        }
    }

    fn refusing(&self) -> Refusing {
        let refusing = self.store.stats().refusing.unwrap();
        assert!(self.concerns().contains(&Concern::Refusing(refusing)));
        refusing
    }
}

/// New keys of every scope were refused for seconds at a time.
#[test]
fn p8_p14_a_new_key_waits_while_sealing_is_behind_and_is_served_when_it_has_caught_up() {
    let mut busy = Busy::new();
    busy.gate.set_segments(State::Held);
    let in_flight = execute(&busy.store, &operation("in-flight"));
    assert!(matches!(busy.fill(), Error::Behind));
    assert_eq!(busy.refusing(), Refusing::Behind);
    assert!(busy.store.health().is_ready(), "whoever waits is served");
    let stats = busy.store.stats();
    assert_eq!((stats.waited_for_room, stats.refused_for_room), (1, 1));
    assert!(stats.logs > 2, "{stats:?}");

    // Neither a replay nor a verdict waits.
    assert!(matches!(busy.ask(&operation("key-0")), Ok(Outcome::Replay(_))));
    busy.complete(in_flight);

    let operations = [operation("volatile"), durable("durable")];
    let waiting = operations.map(|operation| {
        let store = busy.store.clone();
        thread::Builder::new().spawn(move || run_in(&store, &operation)).unwrap()
    });
    let forgetting = busy.store.forget(scope(), &key("key-0"));
    while busy.store.stats().waited_for_room < 4 {
        thread::yield_now();
    }
    busy.gate.set_segments(State::Open);
    for waiting in waiting {
        waiting.join().unwrap();
    }
    forgetting.wait().unwrap();
    assert_eq!(replayed(&busy.store, "key-0"), None);
    busy.store.reap().unwrap();
    assert!(matches!(busy.store.health(), Health::Ok), "{:?}", busy.store.health());
    for n in 1..busy.done {
        assert_eq!(replayed(&busy.store, &format!("key-{n}")).as_ref(), Some(&busy.body));
    }
}

#[test]
fn a_key_that_waits_for_room_is_listed_as_delayed() {
    let mut busy = Busy::new();
    busy.gate.set_segments(State::Held);
    assert!(matches!(busy.fill(), Error::Behind));
    assert!(busy.store.in_flight().is_empty());
    let mut waiting = pin!(busy.store.begin(&operation("late")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    let listed = busy.store.in_flight();
    let found = (listed.len(), listed[0].key.as_str(), listed[0].stage);
    assert_eq!(found, (1, "late", Stage::Delayed));
    busy.gate.set_segments(State::Open);
    busy.store.reap().unwrap();
    let Poll::Ready(Ok(Outcome::Execute(_permit))) = waiting.as_mut().poll(&mut cx) else {
        panic!("there is room")
    };
    assert_eq!(busy.store.in_flight()[0].stage, Stage::Running);
}

fn run_in(store: &Store, operation: &Operation) {
    execute(store, operation).complete(&response("done")).wait().unwrap();
}

#[test]
fn p15_a_key_that_is_given_up_while_it_waits_for_room_is_free_at_once() {
    let mut busy = Busy::new();
    busy.gate.set_segments(State::Held);
    assert!(matches!(busy.fill(), Error::Behind));
    for operation in [operation("given-up"), durable("given-up")] {
        let error = busy.ask(&operation).unwrap_err();
        assert_eq!(error.to_string(), "no room yet to record another result");
        assert_eq!(busy.store.stats().in_flight, 0);
        // A task that is cancelled drops it, and the next in line goes on.
        let (first, second) = (busy.store.begin(&operation), busy.store.begin(&operation));
        assert_eq!(busy.store.stats().in_flight, 2);
        drop(first);
        assert_eq!(busy.store.stats().in_flight, 1);
        drop(second);
        assert_eq!(busy.store.stats().in_flight, 0);
    }
    busy.gate.set_segments(State::Open);
    run(&busy.store, "given-up");
}

/// Bodies were left out although the disk was nearly empty.
#[test]
fn p11_no_body_is_left_out_while_the_disk_takes_another_log() {
    let mut busy = Busy::new();
    busy.gate.set_segments(State::Held);
    let permits: Vec<_> =
        (0..40).map(|n| execute(&busy.store, &operation(&format!("early-{n}")))).collect();
    assert!(matches!(busy.fill(), Error::Behind));
    let complete = |permit: Permit| permit.complete(&response(&busy.body));
    let tickets: Vec<_> = permits.into_iter().map(complete).collect();
    for ticket in tickets {
        assert!(ticket.wait().unwrap().response().is_some());
    }
    assert_eq!(busy.store.stats().bodies_left_out, 0);
    assert!(busy.store.stats().logs > 7, "{:?}", busy.store.stats());
    busy.gate.set_segments(State::Open);
    busy.store.reap().unwrap();
    assert_eq!(replayed(&busy.store, "early-39").as_ref(), Some(&busy.body));
}

/// It was called a full disk.
#[test]
fn p14_sealing_that_does_not_succeed_refuses_new_keys_and_says_why() {
    let mut busy = Busy::new();
    busy.gate.set_segments(State::Failing(Errno::MFILE));
    let Error::Unavailable { source, .. } = fill_until_refused(&mut busy) else {
        panic!("nothing is full")
    };
    assert!(source.to_string().starts_with("cannot create"), "{source}");
    assert_eq!(busy.refusing(), Refusing::Unavailable);
    assert!(!busy.store.health().is_ready());
    // The refusal came in the middle of a round.
    busy.store.reap().unwrap_err();
    let trouble = busy.store.stats().last_trouble.unwrap();
    // Down to what the system said.
    assert!(trouble.starts_with("cannot create"), "{trouble}");
    assert!(trouble.contains(": Too many open files"), "{trouble}");
    assert!(busy.concerns().contains(&Concern::Trouble(trouble)));
    assert!(matches!(busy.ask(&operation("key-0")), Ok(Outcome::Replay(_))));

    busy.gate.set_segments(State::Open);
    busy.store.reap().unwrap();
    assert!(matches!(busy.store.health(), Health::Ok));
    run(&busy.store, "again");
}

/// Fills, and where keys wait, waits with them until they are refused.
fn fill_until_refused(busy: &mut Busy) -> Error {
    match busy.fill() {
        Error::Behind => busy.store.begin(&operation("refused")).wait().unwrap_err(),
        error => error,
    }
}

#[test]
fn p11_a_full_disk_is_called_full() {
    let mut busy = Busy::new();
    let permit = execute(&busy.store, &operation("in-flight"));
    busy.gate.set_logs(State::Failing(Errno::NOSPC));
    busy.gate.set_segments(State::Failing(Errno::NOSPC));
    while busy.store.stats().refusing.is_none() {
        let permit = execute(&busy.store, &operation(&format!("key-{}", busy.done)));
        permit.complete(&response(&busy.body)).wait().unwrap();
        busy.done += 1;
    }
    assert!(busy.store.stats().bodies_left_out > 0);
    assert!(matches!(busy.ask(&operation("refused").durable()), Err(Error::Full)));
    assert_eq!(busy.refusing(), Refusing::Full);
    assert!(busy.store.health().to_string().contains("the disk is full"));
    assert!(!busy.store.health().is_ready());
    permit.complete(&response("")).wait().unwrap();
    busy.gate.set_logs(State::Open);
    busy.gate.set_segments(State::Open);
    busy.store.reap().unwrap();
    run(&busy.store, "again");
    assert!(matches!(busy.store.health(), Health::Ok));
}

#[test]
fn p10_a_store_that_is_stopped_says_so() {
    let busy = Busy::new();
    busy.gate.set_segments(State::Failing(Errno::IO));
    assert!(matches!(busy.store.health(), Health::Ok));
    busy.gate.set_logs(State::Failing(Errno::IO));
    // The next log cannot be prepared, for a reason that does not end.
    let permit = execute(&busy.store, &operation("a"));
    let long = "x".repeat(30_000);
    drop(permit);
    let mut n = 0;
    while let Ok(Outcome::Execute(permit)) = busy.ask(&operation(&fresh(&mut n))) {
        drop(permit.complete(&response(&long)).wait());
    }
    let Health::Stopped(Error::Stopped { source: Some(failure), .. }) = busy.store.health() else {
        panic!("{:?}", busy.store.health())
    };
    assert!(failure.to_string().starts_with("cannot create"), "{failure}");
    assert!(!busy.store.health().is_ready());
}

fn fresh(count: &mut usize) -> String {
    *count += 1;
    format!("fresh-{count}")
}
