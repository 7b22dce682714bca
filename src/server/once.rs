//! A request with a key: run once, answered from its record, or refused.
//!
//! Invariants:
//! - The handler runs in the task of its request, and goes on if the client hangs up: neither it
//!   nor the commit of its response is cancelled.
//! - What has not started does not start for a client that is gone.
//! - No byte of a kept response is sent before its record is durable.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tower_service::Service;

use crate::http::AnyBody;
use crate::{Attempt, Error, Key, Operation, Outcome, Permit, RequestId, Result, Scope, Store};

use super::LayerOptions;
use super::another::{Another, may_hear};
use super::answering::Started;
use super::dialect::Reason;
use super::execution::{Lender, Unstarted};
use super::guard::{Panicked, guarded};
use super::handler::{Handler, ready, was_shed};
use super::lookup::ask;
use super::observe;
use super::policy::{Earlier, Finding, Hook, Interruption, OnInterrupted, Recovery, Verdict};
use super::reply::Reply;
use super::request::Keyed;
use super::response::{Judged, judge, stored_headers, whole};
use super::unread::Refused;

/// The inner service for one request, and what the layer needs to run it once.
pub(super) struct Once<S> {
    pub(super) inner: S,
    pub(super) store: Store,
    pub(super) options: Arc<LayerOptions>,
    pub(super) started: Started,
}

/// A request that was read to its end.
struct Asked {
    request: Request<Body>,
    scope: Scope,
}

impl<S, R> Once<S>
where
    S: Handler + Service<Request<Body>, Response = Response<R>>,
    R: AnyBody,
{
    /// Answers a request with a key: by running the handler, from the record, or with a refusal.
    pub(super) async fn answer<B: AnyBody>(
        self,
        request: Request<B>,
        (key, id): (Key, RequestId),
    ) -> Result<Reply, S::Error> {
        let (parts, body) = request.into_parts();
        let scope = match (self.options.scope)(&parts) {
            Ok(scope) => scope,
            Err(expected) => {
                let reason = Reason::Unauthorized { expected };
                let refused = Refused::unread_parts(reason, &parts.headers, body);
                return Ok(Reply::Refused(refused));
            }
        };
        let keyed = Keyed::collect((parts, body), (scope, key, id), &self.options).await;
        let Keyed { operation, request } = match keyed {
            Ok(keyed) => keyed,
            Err(refused) => return Ok(Reply::Refused(refused)),
        };
        let another = match begin(&self.store, &operation, self.options.wait).await {
            Ok(Outcome::Execute(permit)) => {
                return self.execute(permit, Asked { request, scope }).await;
            }
            Ok(Outcome::Interrupted(attempt)) => {
                // Rare, and its future is as large as all else.
                return Box::pin(self.resume(attempt, Asked { request, scope })).await;
            }
            Ok(Outcome::Replay(record)) => Another::done(record, &self.options),
            Ok(Outcome::Conflict { original }) => {
                let from = (&self.store, &*self.options);
                Another::conflict(original, &operation, from).await
            }
            Ok(Outcome::InFlight { holder }) => {
                Another::without_record(Reason::InProgress { holder })
            }
            Err(error) => match reason(&error) {
                damaged @ Reason::RecordDamaged => Another::without_record(damaged),
                reason => return Ok(reason.into()),
            },
        };
        Ok(another.tell(request.into_parts().0, &self.options).await)
    }

    /// Answers a request whose key was interrupted.
    async fn resume(self, attempt: Attempt, asked: Asked) -> Result<Reply, S::Error> {
        let policy = self.options.interrupted();
        if matches!(policy, OnInterrupted::Rerun) {
            return self.rerun(attempt, asked).await;
        }
        let (head, body) = asked.request.into_parts();
        let earlier = Earlier { request_id: Some(attempt.request_id().clone()), record: None };
        if !may_hear(&self.options, || head.clone(), earlier).await {
            return Ok(Reason::Forbidden.into());
        }
        let request = Request::from_parts(head, body);
        match policy {
            OnInterrupted::Recover(hook) => {
                self.recover(hook, attempt, Asked { request, ..asked }).await
            }
            _ => Ok(refuse_interrupted(&attempt)),
        }
    }

    /// Runs the handler as the next attempt of an interrupted operation.
    async fn rerun(self, attempt: Attempt, asked: Asked) -> Result<Reply, S::Error> {
        match attempt.retry().await {
            Ok(permit) => self.execute(permit, asked).await,
            Err(error) => Ok(reason(&error).into()),
        }
    }

    /// Calls the recovery function for an interrupted operation, and acts on its finding. The
    /// finding is recorded even if the client hangs up.
    async fn recover(self, hook: Hook, attempt: Attempt, asked: Asked) -> Result<Reply, S::Error> {
        let (head, body) = asked.request.into_parts();
        let key = attempt.key().clone();
        let interruption = Interruption { attempt, key, request: head.clone() };
        self.started.note();
        let Recovery { attempt, finding } = hook.ask(interruption).await;
        let original = attempt.request_id().clone();
        let recorded = match finding {
            Finding::Rerun => {
                let request = Request::from_parts(head, body);
                return self.rerun(attempt, Asked { request, ..asked }).await;
            }
            Finding::Refuse => return Ok(refuse_interrupted(&attempt)),
            Finding::Respond(response) => {
                let mut stored = Response::clone(&response);
                *stored.headers_mut() = stored_headers(response.headers(), &self.options);
                attempt.complete(&stored).await.map(|_| Reply::Fresh(whole(*response)))
            }
            Finding::Done => attempt
                .complete_without_response()
                .await
                .map(|_| Reason::ResultUnavailable { original }.into()),
        };
        Ok(recorded.unwrap_or_else(|error| unknown(&error)))
    }

    /// Runs the handler, and records its outcome.
    async fn execute(self, permit: Permit, asked: Asked) -> Result<Reply, S::Error> {
        let Self { mut inner, options, started, .. } = self;
        let Asked { mut request, scope } = asked;
        let permit = Unstarted::new(permit);
        let Some(slot) = slot(&options).await else {
            permit.release().await;
            return Ok(Reason::Unavailable.into());
        };
        if let Err(error) = ready(&mut inner).await {
            permit.release().await;
            return Err(error);
        }
        started.note();
        let lender = Lender::new(permit.start());
        request.extensions_mut().insert(lender.execution());
        let handled = guarded(async {
            let response = inner.call(request).await?;
            Ok(judge(response, &options, &lender, scope).await)
        })
        .await;
        drop(slot);
        conclude(lender, handled).await
    }
}

/// Records the outcome of a handler, and returns what its client is told.
async fn conclude<E: 'static>(
    lender: Lender,
    handled: Result<Result<Judged, E>, Panicked>,
) -> Result<Reply, E> {
    let id = lender.request_id().clone();
    let Judged { verdict, kept, sent } = match handled {
        Ok(Ok(judged)) => judged,
        Ok(Err(error)) => {
            if was_shed(&error) {
                lender.execution().give_verdict(Verdict::Release);
            }
            lender.cut_off().await;
            return Err(error);
        }
        Err(Panicked) => {
            lender.cut_off().await;
            return Ok(Reason::HandlerPanicked.into());
        }
    };
    Ok(match record(lender.end(), verdict, kept).await {
        Ok(()) => Reply::Fresh(sent),
        // Another node has taken the key over, and its outcome is the one that counts.
        Err(Error::Fenced) => Reason::InProgress { holder: id }.into(),
        // To send the response would promise a replay that may never come.
        Err(error) => unknown(&error),
    })
}

/// Waits for a place among the handlers that run, where they are limited. `None` if there was none
/// in time.
async fn slot(options: &LayerOptions) -> Option<Option<OwnedSemaphorePermit>> {
    let Some(running) = &options.running else { return Some(None) };
    let slot = timeout(options.wait, running.clone().acquire_owned()).await.ok()?;
    // The semaphore is never closed.
    slot.ok().map(Some)
}

/// Begins the operation, and waits up to the limit while another request holds the key.
async fn begin(store: &Store, operation: &Operation, wait: Duration) -> Result<Outcome> {
    let mut begin = ask(store, operation, Store::begin).await;
    if let Ok(outcome) = timeout(wait, &mut begin).await {
        return outcome;
    }
    begin.give_up();
    begin.await
}

/// Ends the permit. Returns once the verdict is durable.
async fn record(permit: Permit, verdict: Verdict, kept: Option<Response<Bytes>>) -> Result<()> {
    match (verdict, kept) {
        (Verdict::Complete, Some(response)) => permit.complete(&response).await.map(drop),
        (Verdict::Complete | Verdict::CompleteWithoutResponse, _) => {
            permit.complete_without_response().await.map(drop)
        }
        (Verdict::Release, _) => permit.release().await,
        (Verdict::Interrupt, _) => permit.interrupt().await,
    }
}

/// Returns the reason why a key was not granted. What the store suffers from is for the operator.
pub(super) fn reason(error: &Error) -> Reason {
    let reason = Reason::from(error);
    if matches!(reason, Reason::Unavailable | Reason::RecordDamaged) {
        observe::troubled(error);
    }
    reason
}

/// Refuses a request that ran, and whose outcome could not be recorded.
fn unknown(error: &Error) -> Reply {
    observe::troubled(error);
    Reason::OutcomeUnknown.into()
}

/// Returns the refusal of a key that stays interrupted.
fn refuse_interrupted(attempt: &Attempt) -> Reply {
    Reason::Interrupted { original: attempt.request_id().clone() }.into()
}
