//! Asking for a key: [`Begin`], and the [`Outcome`] it comes to.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::attempt::Attempt;
use crate::backend::{Answer, Asked, Claim, Delayed, Rules};
use crate::error::{Error, Limit, Result};
use crate::face::Face;
use crate::key::{Address, Fingerprint, RequestId};
use crate::observe::{self, Stopwatch};
use crate::operation::Operation;
use crate::permit::Permit;
use crate::record::Record;
use crate::table::{Acquired, Hold, Look, Stage, Waited, Waiter};
use crate::ticket::{Ticket, block_on, block_on_timeout};

/// The most records that a backend may find for one request and that are over when it finds them:
/// its clock is then another than it says.
const MAX_EXPIRED: u8 = 3;
/// Time is counted in milliseconds.
const MIN_TTL: Duration = Duration::from_millis(1);

/// The next step for an operation. Complete: each calls for something else.
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
        /// That request's content.
        fingerprint: Fingerprint,
    },
    /// An earlier run was interrupted; find out what it did.
    Interrupted(Attempt),
    /// Another request still runs it: one in this process, and the caller gave up waiting, or one
    /// on another node.
    InFlight {
        /// The request that holds the key.
        holder: RequestId,
    },
}

/// A wait for an [`Outcome`]: a future, with [`wait`](Self::wait) for threads without a runtime.
///
/// It waits for another request that holds the key, and for room in a store that commits faster than
/// it seals, where scopes take turns. Dropping it gives up the wait. A key that had arrived is handed on to the next in line, and a
/// durable claim that was just made is taken back, because nothing was run.
#[must_use = "the outcome says what to do"]
pub struct Begin {
    face: Arc<Face>,
    operation: Operation,
    address: Address,
    request_id: RequestId,
    state: State,
    given_up: bool,
    /// The records that the backend has found and that were over then.
    expired: u8,
    /// Measures the wait for another request, if there was one.
    waited: Option<Stopwatch>,
}

enum State {
    Ready(Result<Outcome>),
    Waiting(Waiter),
    Asking(Ticket<Answer>),
    /// The request is over a limit, and is answered all the same if its key is done.
    Looking(Box<Looking>),
    /// A request on another node has the key, and the backend says when to ask again.
    Elsewhere {
        holder: RequestId,
        hold: Hold,
        changed: Ticket<()>,
    },
    /// The backend has no room for the key yet, since then.
    Delayed(Box<Delayed>, Stopwatch),
    Done,
}

/// A request over a limit, which looks for its record.
struct Looking {
    found: Ticket<Option<Record>>,
    refused: Error,
    _look: Look,
}

impl Begin {
    pub(crate) fn new(face: Arc<Face>, operation: Operation) -> Self {
        let Operation { scope, ref key, ref request_id, .. } = operation;
        let address = face.table.address(scope, key.clone());
        let request_id = request_id.clone().unwrap_or_else(RequestId::random);
        let mut begin = Self {
            face,
            operation,
            address,
            request_id,
            state: State::Done,
            given_up: false,
            expired: 0,
            waited: None,
        };
        begin.state = begin.start();
        begin.waited = matches!(begin.state, State::Waiting(_)).then(Stopwatch::start);
        begin
    }

    /// Blocks this thread until the outcome is known, however long another request runs, and however
    /// long it takes until there is room.
    ///
    /// # Errors
    ///
    /// See [`Store::begin`](crate::Store::begin).
    pub fn wait(self) -> Result<Outcome> {
        block_on(self)
    }

    /// Blocks this thread until the outcome is known, and gives up the wait after `timeout`. If
    /// another request has the key, the outcome is then [`Outcome::InFlight`], unless another has
    /// just arrived.
    ///
    /// # Errors
    ///
    /// [`Error::Behind`] if the wait was for room; else see [`Store::begin`](crate::Store::begin).
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Outcome> {
        match block_on_timeout(&mut self, timeout) {
            Some(outcome) => outcome,
            None => {
                self.give_up();
                block_on(self)
            }
        }
    }

    /// Ends the wait for another request or for room: awaited again, this comes at once to
    /// [`Outcome::InFlight`] or [`Error::Behind`], or to the outcome that has arrived in the
    /// meantime.
    ///
    /// A timer of any runtime makes a deadline of it.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    fn start(&self) -> State {
        let acquire = || {
            let since = self.face.backend.now();
            self.face.table.acquire(&self.address, &self.request_id, since)
        };
        let acquired = self.check_ttl().and_then(|()| self.face.check()).and_then(|()| acquire());
        match acquired {
            Ok(Acquired::Held(hold)) => self.ask(hold),
            Ok(Acquired::Waiting(waiter)) => State::Waiting(waiter),
            Err(error) => self.refuse(error),
        }
    }

    /// Refuses the request, unless only a limit keeps it out: a replay runs nothing, so no load of
    /// new keys stands in its way.
    fn refuse(&self, error: Error) -> State {
        let Error::Limit { limit: Limit::InFlight | Limit::InFlightPerScope, .. } = error else {
            return State::Ready(Err(error));
        };
        match self.face.table.look(self.address.scope) {
            Ok(look) => {
                let found = self.face.backend.find(self.address.scope, &self.address.key);
                State::Looking(Box::new(Looking { found, refused: error, _look: look }))
            }
            Err(_) => State::Ready(Err(error)),
        }
    }

    fn check_ttl(&self) -> Result<()> {
        let Some(asked) = self.operation.ttl else { return Ok(()) };
        let max = self.rules().ttl;
        if (MIN_TTL..=max).contains(&asked) { Ok(()) } else { Err(Error::Ttl { asked, max }) }
    }

    /// Asks the backend with the key in hand, so that nothing else in this process can change what
    /// is known about it.
    ///
    /// The key may have been handed on just before the store stopped: nothing runs that could not
    /// be recorded.
    fn ask(&self, hold: Hold) -> State {
        match self.face.table.check() {
            Ok(()) => State::Asking(self.face.backend.claim(self.asked(), hold)),
            Err(error) => State::Ready(Err(error)),
        }
    }

    fn rules(&self) -> Rules {
        self.face.rules
    }

    fn asked(&self) -> Asked {
        let Operation { fingerprint, ttl, durable, .. } = self.operation;
        Asked::new(
            fingerprint,
            self.request_id.clone(),
            ttl.unwrap_or_else(|| self.rules().ttl),
            durable,
        )
    }

    fn judge(&mut self, answer: Answer) -> State {
        State::Ready(match answer {
            Answer::Recorded(record) if self.is_over(&record) => self.suspect(record),
            Answer::Claimed(granted) => {
                Ok(Outcome::Execute(Permit::new(granted.into_claim(), self.rules())))
            }
            Answer::Recorded(record) => Ok(self.replay(record)),
            Answer::Interrupted(claim) => self.interrupted(claim),
            Answer::Elsewhere { holder, hold, changed } => {
                // The others here who wait for the key are told of the request that runs.
                hold.name_holder(&holder, Stage::Elsewhere);
                return State::Elsewhere { holder, hold, changed };
            }
            Answer::Delayed(delayed) => {
                self.face.table.note(&self.address, Stage::Delayed);
                return State::Delayed(delayed, Stopwatch::start());
            }
        })
    }

    fn interrupted(&self, claim: Box<dyn Claim>) -> Result<Outcome> {
        let past = claim.past();
        if past.fingerprint != self.operation.fingerprint {
            let (original, fingerprint) = (past.request_id.clone(), past.fingerprint);
            return Ok(Outcome::Conflict { original, fingerprint });
        }
        Attempt::new(claim, self.asked(), self.rules()).map(Outcome::Interrupted)
    }

    fn replay(&self, record: Record) -> Outcome {
        let fingerprint = record.fingerprint();
        if fingerprint == self.operation.fingerprint {
            Outcome::Replay(record)
        } else {
            Outcome::Conflict { original: record.request_id().clone(), fingerprint }
        }
    }

    /// Counts the outcome for metrics.
    fn report(&self, outcome: &Result<Outcome>) {
        let name = match outcome {
            Ok(Outcome::Execute(_)) => "new",
            Ok(Outcome::Replay(_)) => "replayed",
            Ok(Outcome::Conflict { .. }) => "mismatch",
            Ok(Outcome::Interrupted(_)) => "interrupted",
            Ok(Outcome::InFlight { .. }) => "in_progress",
            Err(error) => {
                if error.is_without_room() {
                    observe::admission("refused");
                }
                "error"
            }
        };
        observe::begun(name);
        if let Some(waited) = self.waited {
            observe::waited(name, waited);
        }
    }

    /// Goes on after a wait for another request.
    fn resume(&self, waited: Waited) -> State {
        match waited {
            Waited::Record(record) => State::Ready(Ok(self.replay(record))),
            Waited::Held(hold) => self.ask(hold),
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
                // The record was live when it was found, and has expired since.
                State::Ready(Ok(Outcome::Replay(record))) if self.is_over(&record) => {
                    let state = self.start();
                    return self.pause(state, cx);
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
                State::Asking(mut ticket) => match Pin::new(&mut ticket).poll(cx) {
                    Poll::Ready(Ok(answer)) => self.judge(answer),
                    Poll::Ready(Err(error)) => State::Ready(Err(error)),
                    Poll::Pending => {
                        self.state = State::Asking(ticket);
                        return Poll::Pending;
                    }
                },
                State::Looking(looking) if given_up => State::Ready(Err(looking.refused)),
                State::Looking(mut looking) => match Pin::new(&mut looking.found).poll(cx) {
                    Poll::Ready(Ok(Some(record))) if !self.is_over(&record) => {
                        State::Ready(Ok(self.replay(record)))
                    }
                    Poll::Ready(_) => State::Ready(Err(looking.refused)),
                    Poll::Pending => {
                        self.state = State::Looking(looking);
                        return Poll::Pending;
                    }
                },
                State::Elsewhere { holder, .. } if given_up => {
                    State::Ready(Ok(Outcome::InFlight { holder }))
                }
                State::Elsewhere { holder, hold, changed } => {
                    return self.poll_elsewhere(holder, hold, changed, cx);
                }
                State::Delayed(delayed, since) => match self.poll_delayed(delayed, since, cx) {
                    Poll::Ready(state) => state,
                    Poll::Pending => return Poll::Pending,
                },
                State::Done => panic!("polled after the outcome was taken"),
            };
        }
    }
}

impl Begin {
    fn poll_elsewhere(
        &mut self,
        holder: RequestId,
        hold: Hold,
        mut changed: Ticket<()>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Outcome>> {
        self.waited.get_or_insert_with(Stopwatch::start);
        if Pin::new(&mut changed).poll(cx).is_ready() {
            hold.name_holder(&self.request_id, Stage::Running);
            let state = self.ask(hold);
            return self.pause(state, cx);
        }
        self.state = State::Elsewhere { holder, hold, changed };
        Poll::Pending
    }

    /// Goes on waiting for room, or with what came of it.
    fn poll_delayed(
        &mut self,
        mut delayed: Box<Delayed>,
        since: Stopwatch,
        cx: &mut Context<'_>,
    ) -> Poll<State> {
        let turn = match Pin::new(&mut delayed.turn).poll(cx) {
            Poll::Pending if self.given_up => Err(delayed.refused),
            Poll::Pending => {
                self.state = State::Delayed(delayed, since);
                return Poll::Pending;
            }
            Poll::Ready(turn) => turn,
        };
        if turn.is_ok() {
            self.face.table.note(&self.address, Stage::Running);
        }
        observe::admission("waited");
        observe::admitted(since);
        // As in `ask`, the store may have stopped meanwhile.
        let answer = turn.and_then(|answer| self.face.table.check().map(|()| answer));
        Poll::Ready(match answer {
            Ok(answer) => State::Asking(answer),
            Err(error) => State::Ready(Err(error)),
        })
    }

    fn is_over(&self, record: &Record) -> bool {
        record.expires_at() <= self.face.backend.now()
    }

    /// Takes a record that was over when the backend found it: the key is asked for again, but not
    /// for ever.
    fn suspect(&mut self, record: Record) -> Result<Outcome> {
        self.expired += 1;
        if self.expired > MAX_EXPIRED {
            let reason = "the backend finds a record that has expired by its own clock";
            return Err(Error::unavailable(reason));
        }
        Ok(Outcome::Replay(record))
    }

    /// Goes on from another state, but lets others run first: a backend that sends the face round
    /// and round must not keep the thread from the timer that ends the wait.
    fn pause(&mut self, state: State, cx: &Context<'_>) -> Poll<Result<Outcome>> {
        self.state = state;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begin").field("operation", &self.operation).finish_non_exhaustive()
    }
}
