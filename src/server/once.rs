//! A request with a key: run once, answered from its record, or refused.
//!
//! Invariants:
//! - The handler runs in the task of its request, and goes on if the client hangs up: neither it
//!   nor the commit of its response is cancelled.
//! - What has not started does not start for a client that is gone, unless a recovery function has
//!   run for it and says so.
//! - No byte of a kept response is sent before its record is durable.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tower_service::Service;

use crate::http::{AnyBody, IDEMPOTENCY_KEY};
use crate::{Attempt, Error, Key, Operation, Outcome, Permit, RequestId, Result, Scope, Store};

use super::another::{Another, may_hear};
use super::answering::Started;
use super::deadline::Deadline;
use super::dialect::Reason;
use super::earlier::Earlier;
use super::execution::{Lender, Unstarted};
use super::guard::{Panicked, guarded};
use super::handler::{Handler, ready, was_shed};
use super::interruption::{Finding, Hook, Interruption, OnInterrupted, Recovery};
use super::observe;
use super::options::LayerOptions;
use super::policy::Verdict;
use super::reply::Reply;
use super::request::Asked;
use super::response::{Answer, Judged, judge, stored, whole};

/// The inner service for one request, and what the layer needs to run it once.
pub(super) struct Once<S> {
    pub(super) inner: S,
    pub(super) store: Store,
    pub(super) options: Arc<LayerOptions>,
    pub(super) started: Started,
    /// The end of all waits for others; `None` if there is none, or before the first.
    pub(super) until: Option<Instant>,
}

impl<S, R> Once<S>
where
    S: Handler + Service<Request<Body>, Response = Response<R>>,
    R: AnyBody,
{
    /// Answers a request with a key: by running the handler, from the record, or with a refusal.
    pub(super) async fn answer<B: AnyBody>(
        mut self,
        request: Request<B>,
        ids: (Key, RequestId),
    ) -> Result<Reply, S::Error> {
        let (operation, asked) = match Asked::read(request, ids, &self.options).await {
            Ok(read) => read,
            Err(refused) => return Ok(Reply::Refused(refused)),
        };
        self.until = Instant::now().checked_add(self.options.wait);
        let Some(outcome) = begin(&self.store, &operation, &self.options, self.until).await else {
            observe::late();
            return Ok(Reason::Unavailable.into());
        };
        let another = match outcome {
            Ok(Outcome::Execute(permit)) => {
                return self.execute(permit, asked.scope, asked.into_request()).await;
            }
            // Rare, and its future is as large as all else.
            Ok(Outcome::Interrupted(attempt)) => {
                return Box::pin(self.resume(attempt, asked)).await;
            }
            Ok(Outcome::Replay(record)) => Another::done(record, &self.options),
            Ok(Outcome::Conflict { original, fingerprint }) => {
                let from = (&self.store, &*self.options);
                Another::conflict((original, fingerprint), &operation, from).await
            }
            Ok(Outcome::InFlight { holder }) => {
                Another::without_record(Reason::InProgress { holder })
            }
            Err(error) => match reason(&error) {
                damaged @ Reason::RecordDamaged => Another::without_record(damaged),
                reason => return Ok(reason.into()),
            },
        };
        Ok(another.tell(asked.head, &self.options).await)
    }

    /// Answers a request whose key was interrupted.
    async fn resume(self, attempt: Attempt, asked: Asked) -> Result<Reply, S::Error> {
        let policy = self.options.interrupted();
        if matches!(policy, OnInterrupted::Rerun) {
            return self.rerun(attempt, asked).await;
        }
        let earlier = Earlier { request_id: Some(attempt.request_id().clone()), record: None };
        if !may_hear(&self.options, || asked.head.clone(), earlier).await {
            return Ok(Reason::Forbidden.into());
        }
        match policy {
            OnInterrupted::Recover(hook) => self.recover(hook, attempt, asked).await,
            _ => Ok(refuse_interrupted(&attempt)),
        }
    }

    /// Runs the handler as the next attempt of an interrupted operation.
    async fn rerun(self, attempt: Attempt, asked: Asked) -> Result<Reply, S::Error> {
        match attempt.retry().await {
            Ok(permit) => self.execute(permit, asked.scope, asked.into_request()).await,
            Err(error) => Ok(reason(&error).into()),
        }
    }

    /// Calls the recovery function for an interrupted operation, and acts on its finding. The
    /// finding is recorded even if the client hangs up.
    async fn recover(self, hook: Hook, attempt: Attempt, asked: Asked) -> Result<Reply, S::Error> {
        let key = attempt.key().clone();
        let interruption = Interruption { attempt, key, request: asked.head.clone() };
        let Some(slot) = slot(&self.options, self.until).await else {
            return Ok(Reason::Unavailable.into());
        };
        self.started.note();
        let Recovery { attempt, finding } = hook.ask(interruption).await;
        drop(slot);
        let original = attempt.request_id().clone();
        let recorded = match finding {
            Finding::Rerun => {
                self.started.take_back();
                return self.rerun(attempt, asked).await;
            }
            Finding::Refuse => return Ok(refuse_interrupted(&attempt)),
            Finding::Respond(response) => {
                let recorded = attempt.complete(&stored(&response, &self.options));
                recorded.await.map(|_| Reply::Fresh(whole(*response)))
            }
            Finding::Done => attempt
                .complete_without_response()
                .await
                .map(|_| Reason::ResultUnavailable { original }.into()),
        };
        Ok(recorded.unwrap_or_else(|error| unknown(&error)))
    }

    /// Runs the handler, and records its outcome.
    async fn execute(
        self,
        permit: Permit,
        scope: Scope,
        mut request: Request<Body>,
    ) -> Result<Reply, S::Error> {
        let permit = Unstarted::new(permit);
        let Some(slot) = slot(&self.options, self.until).await else {
            permit.give_up().await;
            return Ok(Reason::Unavailable.into());
        };
        let Self { mut inner, options, started, until, .. } = self;
        match by(until, ready(&mut inner)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                permit.give_up().await;
                return Err(error);
            }
            None => {
                permit.give_up().await;
                return Ok(Reason::Unavailable.into());
            }
        }
        started.note();
        let header = request.headers().get(IDEMPOTENCY_KEY).cloned();
        let lender = Lender::new(permit.start(), header);
        request.extensions_mut().insert(lender.execution());
        let mut has_waited = false;
        let handled = guarded(async {
            let mut answer = pin!(inner.call(request));
            let response = poll_fn(|cx| {
                let poll = answer.as_mut().poll(cx);
                has_waited |= poll.is_pending();
                poll
            });
            Ok(judge(response.await?, &options, &lender, scope).await)
        })
        .await;
        drop(slot);
        conclude(lender, handled, has_waited, &options).await
    }
}

/// Begins the operation, and waits while another request holds the key. `None` if the key could not
/// be looked up in time.
async fn begin(
    store: &Store,
    operation: &Operation,
    options: &LayerOptions,
    until: Option<Instant>,
) -> Option<Result<Outcome>> {
    let mut begin = options.lookups.ask(store, operation, Store::begin).await?;
    if let Some(outcome) = by(until, &mut begin).await {
        return Some(outcome);
    }
    begin.give_up();
    Some(begin.await)
}

/// Waits for a place among the handlers that run, where they are limited. `None` if there was none
/// in time.
async fn slot(
    options: &LayerOptions,
    until: Option<Instant>,
) -> Option<Option<OwnedSemaphorePermit>> {
    let Some(running) = &options.running else { return Some(None) };
    // The semaphore is never closed.
    by(until, Arc::clone(running).acquire_owned()).await?.ok().map(Some)
}

/// Waits for a future until then. `None` if it has not come to its end.
async fn by<F: Future>(until: Option<Instant>, future: F) -> Option<F::Output> {
    match until {
        Some(until) => Deadline::at(until).race(future).await,
        None => Some(future.await),
    }
}

/// Records the outcome of a handler, and returns what its client is told.
async fn conclude<E: 'static>(
    lender: Lender,
    handled: Result<Result<Judged, E>, Panicked>,
    has_waited: bool,
    options: &LayerOptions,
) -> Result<Reply, E> {
    let id = lender.request_id().clone();
    let Judged { verdict, answer } = match handled {
        Ok(Ok(judged)) => judged,
        Ok(Err(error)) => {
            // Who sheds does so at once: a later error is that of something which the handler asked.
            match was_shed(&error) && !has_waited {
                true => lender.shed().await,
                false => lender.cut_off().await,
            }
            return Err(error);
        }
        Err(Panicked) => {
            lender.cut_off().await;
            return Ok(Reason::Panicked.into());
        }
    };
    let recorded = match (verdict, &answer) {
        (Verdict::Complete, Answer::Whole(response)) => {
            let completed = lender.end().complete(&stored(response, options));
            completed.await.map(drop)
        }
        _ => end(lender.end(), verdict).await,
    };
    Ok(match recorded {
        Ok(()) => Reply::Fresh(answer.into_response()),
        // Another node has taken the key over, and its outcome is the one that counts.
        Err(error @ Error::Fenced) => {
            observe::unrecorded(&error);
            Reason::InProgress { holder: id }.into()
        }
        // To send the response would promise a replay that may never come.
        Err(error) => unknown(&error),
    })
}

/// Ends the permit without a response. Returns once the verdict is durable.
async fn end(permit: Permit, verdict: Verdict) -> Result<()> {
    match verdict {
        Verdict::Complete | Verdict::CompleteWithoutResponse => {
            permit.complete_without_response().await.map(drop)
        }
        Verdict::Release => permit.release().await,
        Verdict::Interrupt => permit.interrupt().await,
    }
}

/// Returns the reason why a key was not granted. What the store suffers from is for the operator.
fn reason(error: &Error) -> Reason {
    let reason = Reason::from(error);
    // A mistake in the program is logged where it is answered.
    if !matches!(reason, Reason::Misused(_)) {
        observe::troubled(error);
    }
    reason
}

/// Refuses a request that ran, and whose outcome could not be recorded.
fn unknown(error: &Error) -> Reply {
    observe::unrecorded(error);
    Reason::OutcomeUnknown.into()
}

/// Returns the refusal of a key that stays interrupted.
fn refuse_interrupted(attempt: &Attempt) -> Reply {
    Reason::Interrupted { original: attempt.request_id().clone() }.into()
}
