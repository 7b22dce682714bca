//! Asking for a key: [`Begin`], and the [`Outcome`] it comes to.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::engine::ledger::OpenClaim;
use crate::error::Result;
use crate::key::{Address, RequestId};
use crate::observe::{self, Stopwatch};
use crate::operation::Operation;
use crate::permit::{Attempt, Claiming, Facts, Permit};
use crate::record::Record;
use crate::store::Inner;
use crate::table::{Acquired, Held, Waited, Waiter};
use crate::ticket::{block_on, block_on_timeout};

/// Time is counted in milliseconds.
const MIN_TTL: Duration = Duration::from_millis(1);

/// What the caller must do about an operation. Complete: each calls for something else.
#[derive(Debug)]
pub enum Outcome {
    /// Run it, and complete or release the permit.
    Execute(Permit),
    /// It was done; send its [`response`](Record::response), if that was kept.
    Replay(Record),
    /// The key was used for something else; refuse.
    Conflict {
        /// The request that used it.
        original: RequestId,
    },
    /// An earlier run was interrupted; find out what it did.
    Interrupted(Attempt),
    /// Another request runs it still; the caller gave up waiting.
    InFlight {
        /// The request that holds the key.
        holder: RequestId,
    },
}

/// A wait for an [`Outcome`]: a future, with [`wait`](Self::wait) for threads without a runtime.
///
/// Dropping it gives up the wait. A key that had been granted passes on to the next in line, and a
/// durable claim that was just made is taken back, since nothing was run.
#[must_use = "the outcome says what to do"]
pub struct Begin {
    store: Arc<Inner>,
    operation: Operation,
    address: Address,
    request_id: RequestId,
    state: State,
    given_up: bool,
    /// Since when another request was waited for, if one was.
    waited: Option<Stopwatch>,
}

enum State {
    Ready(Result<Outcome>),
    Waiting(Waiter),
    Claiming(Claiming),
    Done,
}

impl Begin {
    pub(crate) fn new(store: Arc<Inner>, operation: Operation) -> Self {
        let Operation { scope, ref key, ref request_id, .. } = operation;
        let address = Address::new(&store.engine.ledger.uuid, scope, key.clone());
        let request_id = request_id.clone().unwrap_or_else(RequestId::random);
        let (state, given_up, waited) = (State::Done, false, None);
        let mut begin = Self { store, operation, address, request_id, state, given_up, waited };
        begin.state = begin.start();
        begin.waited = matches!(begin.state, State::Waiting(_)).then(Stopwatch::start);
        begin
    }

    /// Blocks this thread until the outcome is known, however long another request runs.
    ///
    /// # Errors
    ///
    /// See [`Store::begin`](crate::Store::begin).
    pub fn wait(self) -> Result<Outcome> {
        block_on(self)
    }

    /// Blocks this thread until the outcome is known, and gives up the wait for another request
    /// after `timeout`: the outcome is then [`Outcome::InFlight`], unless it has just arrived.
    ///
    /// # Errors
    ///
    /// See [`Store::begin`](crate::Store::begin).
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Outcome> {
        match block_on_timeout(&mut self, timeout) {
            Some(outcome) => outcome,
            None => {
                self.give_up();
                block_on(self)
            }
        }
    }

    /// Ends the wait for another request: awaited again, this comes at once to
    /// [`Outcome::InFlight`], or to the outcome that has arrived in the meantime.
    ///
    /// A timer of any runtime makes a deadline of it.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    fn start(&self) -> State {
        let engine = &self.store.engine;
        let acquired =
            engine.check().and_then(|()| engine.table.acquire(&self.address, &self.request_id));
        match acquired {
            Ok(Acquired::Held(held)) => self.decide(held),
            Ok(Acquired::Waiting(waiter)) => State::Waiting(waiter),
            Err(error) => State::Ready(Err(error)),
        }
    }

    /// Decides with the key in hand, so that nobody else can change what is known about it.
    fn decide(&self, held: Held) -> State {
        let ledger = &self.store.engine.ledger;
        if let Some(claim) = ledger.open_claim(&self.address) {
            return State::Ready(Ok(self.interrupted(held, claim)));
        }
        match ledger.find(&self.address) {
            Ok(Some(record)) => {
                held.settle(&record);
                State::Ready(Ok(self.answer(record)))
            }
            Ok(None) => self.execute(held),
            Err(error) => State::Ready(Err(error)),
        }
    }

    fn interrupted(&self, held: Held, claim: OpenClaim) -> Outcome {
        if claim.fingerprint != self.operation.fingerprint {
            return Outcome::Conflict { original: claim.request_id };
        }
        Outcome::Interrupted(Attempt::new(Arc::clone(&self.store), held, claim, self.facts()))
    }

    fn answer(&self, record: Record) -> Outcome {
        if record.fingerprint() == self.operation.fingerprint {
            Outcome::Replay(record)
        } else {
            Outcome::Conflict { original: record.request_id().clone() }
        }
    }

    fn execute(&self, held: Held) -> State {
        // A key may have been passed on just before the store stopped: nothing runs that could not
        // be recorded.
        if let Err(error) = self.store.engine.table.check() {
            return State::Ready(Err(error));
        }
        let ledger = &self.store.engine.ledger;
        let store = Arc::clone(&self.store);
        let facts = self.facts();
        if !self.operation.durable {
            let room = ledger.space.reserve(0);
            return State::Ready(
                room.map(|room| Outcome::Execute(Permit::volatile(store, held, room, facts))),
            );
        }
        let Facts { fingerprint, request_id, ttl } = facts;
        let claim = OpenClaim::first(fingerprint, request_id, ttl, ledger.timeline.now());
        State::Claiming(Claiming::start(store, held, claim))
    }

    fn has_expired(&self, record: &Record) -> bool {
        record.expiry() <= self.store.engine.ledger.timeline.now()
    }

    fn facts(&self) -> Facts {
        let max = self.store.engine.ledger.settings.ttl;
        Facts {
            fingerprint: self.operation.fingerprint,
            request_id: self.request_id.clone(),
            ttl: self.operation.ttl.map_or(max, |ttl| ttl.clamp(MIN_TTL, max)),
        }
    }

    /// Tells those who watch.
    fn report(&self, outcome: &Result<Outcome>) {
        let name = match outcome {
            Ok(Outcome::Execute(_)) => "new",
            Ok(Outcome::Replay(_)) => "replayed",
            Ok(Outcome::Conflict { .. }) => "mismatch",
            Ok(Outcome::Interrupted(_)) => "interrupted",
            Ok(Outcome::InFlight { .. }) => "in_progress",
            Err(_) => "error",
        };
        observe::begun(name);
        if let Some(waited) = self.waited {
            observe::waited(name, waited);
        }
    }

    /// Goes on after a wait for another request.
    fn resume(&self, waited: Waited) -> State {
        match waited {
            Waited::Record(record) => State::Ready(Ok(self.answer(record))),
            Waited::Held(held) => self.decide(held),
            Waited::Stopped(error) => State::Ready(Err(error)),
        }
    }
}

impl Future for Begin {
    type Output = Result<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Outcome>> {
        loop {
            let given_up = self.given_up;
            self.state = match std::mem::replace(&mut self.state, State::Done) {
                // It was there when it was asked for, and has expired since.
                State::Ready(Ok(Outcome::Replay(record))) if self.has_expired(&record) => {
                    self.start()
                }
                State::Ready(outcome) => {
                    self.report(&outcome);
                    return Poll::Ready(outcome);
                }
                State::Waiting(waiter) if given_up => match waiter.give_up() {
                    Ok(waited) => self.resume(waited),
                    Err(holder) => State::Ready(Ok(Outcome::InFlight { holder })),
                },
                State::Waiting(mut waiter) => match waiter.poll(cx) {
                    Poll::Ready(waited) => self.resume(waited),
                    Poll::Pending => {
                        self.state = State::Waiting(waiter);
                        return Poll::Pending;
                    }
                },
                State::Claiming(mut claiming) => match claiming.poll(cx) {
                    Poll::Ready(permit) => State::Ready(permit.map(Outcome::Execute)),
                    Poll::Pending => {
                        self.state = State::Claiming(claiming);
                        return Poll::Pending;
                    }
                },
                State::Done => panic!("polled after the outcome was taken"),
            };
        }
    }
}

impl fmt::Debug for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begin").field("operation", &self.operation).finish_non_exhaustive()
    }
}
