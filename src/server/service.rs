//! The service of the layer: one request from its first header to its last byte.
//!
//! Invariants:
//! - The handler runs in a task of its own. A client that hangs up cancels neither the handler nor
//!   the commit of its response.
//! - No byte of a kept response is sent before its record is durable.
//! - The inner service is made ready only for requests that it executes, so requests that wait or
//!   are replayed take none of its concurrency.
//! - Of nested idempotency layers only the outermost acts.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tower_service::Service;

use crate::http::{
    AnyBody, Body, BoxError, IDEMPOTENCY_KEY, REQUEST_ID, Whole, is_grpc, is_mutation,
};
use crate::{Attempt, Error, Key, Operation, Outcome, Permit, Record, RequestId, Result, Store};

use super::LayerOptions;
use super::dialect::{Dialect, Exchange, Grpc, Reason, Refusal};
use super::execution::{Execution, Lender};
use super::observe;
use super::policy::{Finding, Hook, Interruption, OnInterrupted, Recovery, Verdict};
use super::request::{Keyed, key, request_id};
use super::response::{Judged, judge, replay, stored_headers, whole};

/// A tower service that runs each request with a key once; made by an
/// [`IdempotencyLayer`](super::IdempotencyLayer).
///
/// It is always ready, and makes the inner service ready per request. Its error is the inner
/// service's: all failures of idempotency are responses.
#[derive(Clone, Debug)]
pub struct Idempotent<S> {
    inner: S,
    store: Store,
    options: Arc<LayerOptions>,
}

/// The answer to a request, by its origin.
enum Reply {
    Fresh(Response<Body>),
    Replay(Response<Body>),
    Refused(Reason),
}

impl<S> Idempotent<S> {
    pub(super) fn new(inner: S, store: Store, options: LayerOptions) -> Self {
        Self { inner, store, options: Arc::new(options) }
    }
}

impl<S, B, R> Service<Request<B>> for Idempotent<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    /// Always ready. The inner service is made ready only for a request that it executes, so that
    /// waiting and replayed requests take none of its concurrency.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

impl<S, R> Idempotent<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    async fn answer<B: AnyBody>(self, mut request: Request<B>) -> Result<Response<Body>, S::Error> {
        let options = Arc::clone(&self.options);
        let dialect: &dyn Dialect =
            if is_grpc(request.headers()) { &Grpc } else { &*options.dialect };
        let id = self.identify(&mut request);
        let has_key = request.headers().contains_key(IDEMPOTENCY_KEY);
        // An outer idempotency layer holds the claim already; this one would wait for it.
        let is_in_hand = request.extensions().get::<Execution>().is_some();
        let is_ours = is_mutation(request.method()) && !is_in_hand;
        let (answer, key) = if is_ours && (has_key || options.require_key) {
            match key(request.headers(), dialect) {
                Ok(key) => {
                    let once = self.once(request, key.clone(), id.clone());
                    (observe::request(&key, &id, once, outcome).await?, Some(key))
                }
                Err(reason) => (Reply::Refused(reason), None),
            }
        } else {
            (
                Reply::Fresh(
                    run(self.inner, request.map(Body::streamed)).await?.map(Body::streamed),
                ),
                None,
            )
        };
        Ok(sign(answer, dialect, &id, key.as_ref()))
    }

    /// Gives the request its id: the id from an outer layer, the client's if clients are trusted,
    /// or a new one.
    fn identify<B>(&self, request: &mut Request<B>) -> RequestId {
        let given = request.extensions().get::<RequestId>().cloned();
        let id = given.unwrap_or_else(|| match self.options.trust_request_ids {
            true => request_id(request.headers()),
            false => RequestId::random(),
        });
        request.extensions_mut().insert(id.clone());
        id
    }

    /// Answers a request with a key: by running the handler, from the record, or with a refusal.
    async fn once(
        self,
        request: Request<impl AnyBody>,
        key: Key,
        id: RequestId,
    ) -> Result<Reply, S::Error> {
        let (parts, body) = request.into_parts();
        let scope = match (self.options.scope)(&parts) {
            Ok(scope) => scope,
            Err(expected) => return Ok(Reply::Refused(Reason::Unauthorized { expected })),
        };
        let keyed = Keyed::collect((parts, body), (scope, key, id), &self.options).await;
        let Keyed { operation, request } = match keyed {
            Ok(keyed) => keyed,
            Err(reason) => return Ok(Reply::Refused(reason)),
        };
        let reason = match begin(&self.store, &operation, self.options.wait).await {
            Ok(Outcome::Execute(permit)) => return self.execute(permit, request).await,
            Ok(Outcome::Interrupted(attempt)) => return self.resume(attempt, request).await,
            Ok(Outcome::Replay(record)) => {
                return Ok(answer_from(&record, request, &self.options).await);
            }
            Ok(Outcome::Conflict { original }) => Reason::Conflict { original },
            Ok(Outcome::InFlight { holder }) => Reason::InProgress { holder },
            Err(error) => reason(&error),
        };
        Ok(Reply::Refused(reason))
    }

    /// Answers a request whose key was interrupted.
    async fn resume(self, attempt: Attempt, request: Request<Body>) -> Result<Reply, S::Error> {
        match self.options.interrupted() {
            OnInterrupted::Rerun => self.rerun(attempt, request).await,
            OnInterrupted::Refuse => Ok(refuse_interrupted(&attempt)),
            // In a task of its own, like the handler, so that its finding is recorded even if the
            // client hangs up.
            OnInterrupted::Recover(hook) => {
                finish(observe::spawn(self.recover(hook, attempt, request))).await
            }
        }
    }

    /// Runs the handler as the next attempt of an interrupted operation.
    async fn rerun(self, attempt: Attempt, request: Request<Body>) -> Result<Reply, S::Error> {
        match attempt.retry().await {
            Ok(permit) => self.execute(permit, request).await,
            Err(error) => Ok(Reply::Refused(reason(&error))),
        }
    }

    /// Calls the recovery function for an interrupted operation, and acts on its finding.
    async fn recover(
        self,
        hook: Hook,
        attempt: Attempt,
        request: Request<Body>,
    ) -> Result<Reply, S::Error> {
        let (parts, body) = request.into_parts();
        let key = attempt.key().clone();
        let interruption = Interruption { attempt, key, request: parts.clone() };
        let Recovery { attempt, finding } = hook.ask(interruption).await;
        let original = attempt.request_id().clone();
        let recorded = match finding {
            Finding::Rerun => {
                return self.rerun(attempt, Request::from_parts(parts, body)).await;
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
                .map(|_| Reply::Refused(Reason::ResultUnavailable { original })),
        };
        Ok(recorded.unwrap_or_else(|error| unknown(&error)))
    }

    /// Runs the handler in a task of its own, which goes on if the client hangs up.
    async fn execute(self, permit: Permit, mut request: Request<Body>) -> Result<Reply, S::Error> {
        let id = permit.request_id().clone();
        let lender = Lender::new(permit);
        request.extensions_mut().insert(lender.execution());
        finish(observe::spawn(async move {
            let mut inner = self.inner;
            if let Err(error) = ready(&mut inner).await {
                // Nothing ran, so the answer stands even if the release cannot be recorded.
                let _ = lender.end().release().await;
                return Err(error);
            }
            let response = match inner.call(request).await {
                Ok(response) => response,
                Err(error) => {
                    // The handler was cut off, as by a timeout: the drop frees a volatile key, and
                    // interrupts a durable one.
                    drop(lender.end());
                    return Err(error);
                }
            };
            let Judged { verdict, kept, sent } = judge(response, &self.options, &lender).await;
            Ok(match record(lender.end(), verdict, kept).await {
                Ok(()) => Reply::Fresh(sent),
                // Another node has taken the key over, and its outcome is the one that counts.
                Err(Error::Fenced) => Reply::Refused(Reason::InProgress { holder: id }),
                // To send the response would promise a replay that may never come.
                Err(error) => unknown(&error),
            })
        }))
        .await
    }
}

/// Returns the reason why a key was not granted. What the store suffers from is for the operator.
fn reason(error: &Error) -> Reason {
    let reason = Reason::from(error);
    if matches!(reason, Reason::Unavailable | Reason::RecordDamaged) {
        observe::troubled(error);
    }
    reason
}

/// Refuses a request that ran, and whose outcome could not be recorded.
fn unknown(error: &Error) -> Reply {
    observe::troubled(error);
    Reply::Refused(Reason::OutcomeUnknown)
}

/// Waits for a task. Tasks are never aborted, so one ends early only by a panic or with its
/// runtime.
async fn finish<E>(task: tokio::task::JoinHandle<Result<Reply, E>>) -> Result<Reply, E> {
    task.await.unwrap_or_else(|error| {
        let panicked = error.is_panic();
        let reason = if panicked { Reason::HandlerPanicked } else { Reason::OutcomeUnknown };
        Ok(Reply::Refused(reason))
    })
}

/// Returns the word for a request's end, for its span.
fn outcome<E>(answer: &Result<Reply, E>) -> &'static str {
    match answer {
        Ok(Reply::Fresh(_)) => "executed",
        Ok(Reply::Replay(_)) => "replayed",
        Ok(Reply::Refused(reason)) => reason.code(),
        Err(_) => "failed",
    }
}

/// Returns the response in the dialect's terms, with the request id.
fn sign(
    answer: Reply,
    dialect: &dyn Dialect,
    request_id: &RequestId,
    key: Option<&Key>,
) -> Response<Body> {
    let is_replay = matches!(answer, Reply::Replay(_));
    let mut response = match answer {
        Reply::Fresh(response) | Reply::Replay(response) => response,
        Reply::Refused(reason) => {
            observe::refused(reason.code());
            if matches!(reason, Reason::Misused(_)) {
                observe::mistaken(&reason);
            }
            let refusal = Refusal { reason, request_id: request_id.clone(), key: key.cloned() };
            dialect.refuse(&refusal).map(|body| Whole { data: body, trailers: None }.into())
        }
    };
    let headers = response.headers_mut();
    dialect.sign(&Exchange { request_id, key, is_replay }, headers);
    let id = HeaderValue::from_str(request_id.as_str()).expect("request ids are header values");
    headers.insert(REQUEST_ID, id);
    response
}

/// Answers from the record, if the client may still see it.
async fn answer_from(record: &Record, request: Request<Body>, options: &LayerOptions) -> Reply {
    if let Some(authorize) = &options.authorize_replay
        && !authorize(request.into_parts().0, record.clone()).await
    {
        return Reply::Refused(Reason::Forbidden);
    }
    match record.response() {
        Some(response) => Reply::Replay(replay(response, options)),
        None => {
            let original = record.request_id().clone();
            Reply::Refused(Reason::ResultUnavailable { original })
        }
    }
}

/// Returns the refusal of a key that stays interrupted.
fn refuse_interrupted(attempt: &Attempt) -> Reply {
    Reply::Refused(Reason::Interrupted { original: attempt.request_id().clone() })
}

/// Begins the operation, and waits up to the limit while another request holds the key.
async fn begin(store: &Store, operation: &Operation, wait: Duration) -> Result<Outcome> {
    let mut begin = store.begin(operation);
    if let Ok(outcome) = tokio::time::timeout(wait, &mut begin).await {
        return outcome;
    }
    begin.give_up();
    begin.await
}

/// Makes the service ready and calls it.
async fn run<S, R>(mut inner: S, request: Request<Body>) -> Result<R, S::Error>
where
    S: Service<Request<Body>, Response = R>,
{
    ready(&mut inner).await?;
    inner.call(request).await
}

/// Waits until the service is ready for a request.
async fn ready<S>(inner: &mut S) -> Result<(), S::Error>
where
    S: Service<Request<Body>>,
{
    poll_fn(|cx| inner.poll_ready(cx)).await
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
