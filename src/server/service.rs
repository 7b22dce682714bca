//! The service of the layer: what becomes of each request, and the form of its answer.
//!
//! Invariants:
//! - A request without a key is the inner service's, and ends with its client.
//! - The inner service is made ready only for requests that it executes, so requests that wait or
//!   are replayed take none of its concurrency.
//! - Of nested idempotency layers only the outermost acts.
//! - A panic of the program's code is answered with 500.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tower_service::Service;

use crate::http::{AnyBody, BoxError, IDEMPOTENCY_KEY, is_mutation};
use crate::{RequestId, Store};

use super::answering::{Answering, Started};
use super::dialect::Reason;
use super::execution::Execution;
use super::guard::{Panicked, guard, guarded};
use super::handler::Handler;
use super::observe::Span;
use super::once::Once;
use super::options::LayerOptions;
use super::passing::Passing;
use super::reply::Reply;
use super::request::{key, request_id};
use super::signing::{Signing, Spoken};
use super::unread::Refused;

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
    type Future = Answering<S>;

    /// Always ready. The inner service is made ready only for a request that it executes, so that
    /// waiting and replayed requests take none of its concurrency.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Answering<S> {
        let id = self.identify(&mut request);
        if self.acts_on(&request) {
            return self.clone().once(request, id);
        }
        let (inner, options) = (self.inner.clone(), Arc::clone(&self.options));
        Answering::passing(Passing::new(inner, options, request, id))
    }
}

impl<S> Idempotent<S> {
    /// Returns the same layer around another service.
    #[cfg(feature = "actix")]
    pub(super) fn around<T>(&self, inner: T) -> Idempotent<T> {
        let (store, options) = (self.store.clone(), Arc::clone(&self.options));
        Idempotent { inner, store, options }
    }

    #[cfg(feature = "actix")]
    pub(super) fn options(&self) -> Arc<LayerOptions> {
        Arc::clone(&self.options)
    }

    /// Answers a request that the layer [acts on](Self::acts_on).
    pub(super) fn once<B, R>(self, request: Request<B>, id: RequestId) -> Answering<S>
    where
        S: Handler + Service<Request<Body>, Response = Response<R>>,
        B: AnyBody,
        R: AnyBody,
    {
        let Self { inner, store, options } = self;
        let started = Started::default();
        let once = Once { inner, store, options, started: started.clone(), until: None };
        Answering::once(Box::pin(answer(once, request, id)), started)
    }

    /// Gives the request its id: the id from an outer layer, the client's if clients are trusted,
    /// or a new one.
    pub(super) fn identify<B>(&self, request: &mut Request<B>) -> RequestId {
        if let Some(id) = request.extensions().get::<RequestId>() {
            return id.clone();
        }
        let id = match self.options.trust_request_ids {
            true => request_id(request.headers()),
            false => RequestId::random(),
        };
        request.extensions_mut().insert(id.clone());
        id
    }

    /// Returns true if the request is not simply the inner service's.
    pub(super) fn acts_on<B>(&self, request: &Request<B>) -> bool {
        if !is_mutation(request.method()) {
            return false;
        }
        let key = request.headers().get(IDEMPOTENCY_KEY);
        // An outer idempotency layer holds the claim already; this one would wait for it.
        let is_in_hand =
            || request.extensions().get().is_some_and(|outer: &Execution| outer.covers(key));
        (key.is_some() || self.options.require_key) && !is_in_hand()
    }
}

/// Answers a mutation that has a key, or must have one.
async fn answer<S, B, R>(
    once: Once<S>,
    request: Request<B>,
    id: RequestId,
) -> Result<Response<Body>, S::Error>
where
    S: Handler + Service<Request<Body>, Response = Response<R>>,
    B: AnyBody,
    R: AnyBody,
{
    let (options, version) = (Arc::clone(&once.options), request.version());
    let dialect = Spoken::of(&request).dialect(&options);
    let (reply, key) = match guard(|| key(request.headers(), dialect)) {
        Ok(Ok(key)) => {
            let span = Span::new(&key, &id);
            let asked = (key.clone(), id.clone());
            let answered = span.around(guarded(once.answer(request, asked))).await;
            span.end(outcome(&answered));
            (answered.unwrap_or_else(|panicked| Ok(panicked.into()))?, Some(key))
        }
        Ok(Err(reason)) => {
            let refused = guard(|| Refused::unread(reason, request));
            (refused.map_or_else(Reply::from, Reply::Refused), None)
        }
        Err(panicked) => (panicked.into(), None),
    };
    Ok(Signing { dialect, request_id: &id, key: key.as_ref(), version }.answer(reply))
}

/// Returns the word for a request's end, for its span.
fn outcome<E>(answer: &Result<Result<Reply, E>, Panicked>) -> &'static str {
    match answer {
        Ok(Ok(Reply::Fresh(_))) => "executed",
        Ok(Ok(Reply::Replay(_))) => "replayed",
        Ok(Ok(Reply::Refused(refused))) => refused.reason.code(),
        Ok(Err(_)) => "failed",
        Err(_) => Reason::Panicked.code(),
    }
}
