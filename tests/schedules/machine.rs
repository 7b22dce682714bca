//! A store on a disk of its own, and clients of one key who write down what they hear.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::clock::SimulatedClock;
use refrain::{Attempt, Error, Fingerprint, Operation, Outcome, Permit, Result, Scope, Store};

use crate::history::{Event, History};
use crate::medium::Medium;

pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
const LOG_BYTES: u64 = 256 * 1024;

/// The uuid of every store: it decides the shard of a key, so all schedules have the same shards.
const UUID: [u8; 16] = [7; 16];

pub(super) fn operation(key: &str) -> Operation {
    operation_in("s", key)
}

pub(super) fn operation_in(scope: &str, key: &str) -> Operation {
    let scope = Scope::new(scope);
    let operation = Operation::new(scope, key.parse().unwrap(), Fingerprint::of([key]));
    operation.request_id("r".parse().unwrap())
}

pub(super) fn response(body: u8) -> Response<Bytes> {
    Response::new(Bytes::copy_from_slice(&[body]))
}

/// Polls once, as a task does that is then cancelled: nobody is woken for it.
pub(super) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[derive(Clone)]
pub(super) struct Machine {
    pub(super) medium: Arc<Medium>,
    pub(super) clock: SimulatedClock,
}

impl Machine {
    pub(super) fn new() -> Self {
        let medium = Arc::new(Medium::default());
        medium.write_lock(UUID);
        Self { medium, clock: SimulatedClock::new() }
    }

    pub(super) fn open(&self) -> Store {
        let medium: Arc<Medium> = Arc::clone(&self.medium);
        let builder = Store::builder().log_bytes(LOG_BYTES).clock(self.clock.clone());
        builder.open_on(medium).unwrap()
    }

    /// Lets go of a store, whose last handles these are, cuts the power, and goes on with the same
    /// keys in another process.
    pub(super) fn restart<const N: usize>(&self, lines: [Line; N]) -> [Line; N] {
        let kept = lines.map(|Line { operation, history, .. }| (operation, history));
        self.medium.cut_power();
        let store = self.open();
        kept.map(|(operation, history)| {
            history.note(history.now(), Event::Restart);
            Line { history, ..Line::of(&store, operation) }
        })
    }
}

/// One key of a store, with all that its clients hear.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) store: Store,
    pub(super) operation: Operation,
    pub(super) history: Arc<History>,
    running: Arc<AtomicBool>,
}

/// The answer to a client, by what the client must do next.
pub(super) enum Heard {
    Run(Running),
    Judge(Attempt),
    Replay(u8),
    Busy,
    Stopped,
}

/// A permit in use.
pub(super) struct Running {
    permit: Permit,
    running: Arc<AtomicBool>,
}

impl Line {
    pub(super) fn new(store: &Store, key: &str) -> Self {
        Self::of(store, operation(key))
    }

    pub(super) fn of(store: &Store, operation: Operation) -> Self {
        let store = store.clone();
        Self { store, operation, history: Arc::default(), running: Arc::default() }
    }

    /// Asks for the key, and waits for the outcome as long as it takes.
    pub(super) fn ask(&self) -> Heard {
        let from = self.history.now();
        self.hear(from, self.store.begin(&self.operation).wait())
    }

    /// Asks in a task.
    pub(super) fn ask_in_task(&self) -> Heard {
        let from = self.history.now();
        self.hear(from, shuttle::future::block_on(self.store.begin(&self.operation)))
    }

    /// Asks, and waits no longer than the schedule wants.
    pub(super) fn ask_within(&self, timeout: Duration) -> Heard {
        let from = self.history.now();
        self.hear(from, self.store.begin(&self.operation).wait_timeout(timeout))
    }

    pub(super) fn hear(&self, from: usize, outcome: Result<Outcome>) -> Heard {
        let durable = self.operation.is_durable();
        match outcome {
            Ok(Outcome::Execute(permit)) => {
                self.history.note(from, if durable { Event::Claim } else { Event::Execute });
                Heard::Run(Running::new(permit, &self.running))
            }
            Ok(Outcome::Replay(record)) => {
                let body = record.response().expect("it is small").body()[0];
                self.history.note(from, Event::Replay(body));
                Heard::Replay(body)
            }
            Ok(Outcome::Interrupted(attempt)) => {
                self.history.note(from, Event::Judge);
                Heard::Judge(attempt)
            }
            Ok(Outcome::InFlight { .. }) => Heard::Busy,
            Err(Error::Stopped { .. }) => {
                // Whether its claim is durable is unknown.
                if durable {
                    self.history.note_unknown(from, Event::Claim);
                }
                Heard::Stopped
            }
            other => panic!("no client hears that: {other:?}"),
        }
    }

    /// Records a response; returns true if that was acknowledged.
    pub(super) fn complete(&self, running: Running, body: u8) -> bool {
        let from = self.history.now();
        let outcome = running.end().complete(&response(body)).wait();
        self.history.conclude(from, Event::Complete(body), outcome)
    }

    pub(super) fn release(&self, running: Running) -> bool {
        let from = self.history.now();
        let outcome = running.end().release().wait();
        self.history.conclude(from, Event::Release, outcome)
    }

    pub(super) fn forget(&self) {
        let from = self.history.now();
        match self.store.forget(self.operation.scope(), self.operation.key()).wait() {
            Err(Error::InFlight { .. }) => {}
            outcome => drop(self.history.conclude(from, Event::Forget, outcome)),
        }
    }

    /// Runs an interrupted operation again.
    pub(super) fn retry(&self, attempt: Attempt) -> Running {
        Running::new(attempt.retry().wait().unwrap(), &self.running)
    }

    /// Runs the operation if it is this client's to run, with a body of its own.
    pub(super) fn serve(&self, heard: Heard, body: u8) {
        if let Heard::Run(running) = heard {
            self.complete(running, body);
        }
    }
}

impl Running {
    fn new(permit: Permit, running: &Arc<AtomicBool>) -> Self {
        assert!(!running.swap(true, Ordering::Relaxed), "two requests run one key");
        shuttle::thread::yield_now();
        Self { permit, running: Arc::clone(running) }
    }

    /// Stores a recovery point; returns true if that was acknowledged.
    pub(super) fn checkpoint(&mut self, data: &'static str) -> bool {
        match self.permit.checkpoint(data).wait() {
            Ok(()) => true,
            Err(Error::Stopped { .. }) => false,
            Err(other) => panic!("no client hears that: {other}"),
        }
    }

    /// Before the verdict, since others may run right after it.
    pub(super) fn end(self) -> Permit {
        self.running.store(false, Ordering::Relaxed);
        self.permit
    }
}
