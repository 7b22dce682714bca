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
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use http_body::Body as HttpBody;
use tower_service::Service;

use crate::http::{AnyBody, BoxError, IDEMPOTENCY_KEY, REQUEST_ID, is_mutation};
use crate::{Key, RequestId, Store};

use super::LayerOptions;
use super::answering::{Answering, Started};
use super::dialect::{Dialect, Exchange, Grpc, Reason, Refusal, RevDesk, is_grpc};
use super::execution::Execution;
use super::guard::{Panicked, guard, guarded};
use super::handler::{Handler, ready};
use super::observe;
use super::once::Once;
use super::reply::Reply;
use super::request::{key, request_id};
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
    type Future = Answering<S::Error>;

    /// Always ready. The inner service is made ready only for a request that it executes, so that
    /// waiting and replayed requests take none of its concurrency.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Answering<S::Error> {
        let id = self.identify(&mut request);
        let (inner, options) = (self.inner.clone(), Arc::clone(&self.options));
        if !self.acts_on(&request) {
            return Answering::cancelled(pass(inner, options, request, id));
        }
        let (store, started) = (self.store.clone(), Started::default());
        let once = Once { inner, store, options, started: started.clone() };
        Answering::kept(answer(once, request, id), started)
    }
}

impl<S> Idempotent<S> {
    /// Gives the request its id: the id from an outer layer, the client's if clients are trusted,
    /// or a new one.
    fn identify<B>(&self, request: &mut Request<B>) -> RequestId {
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
    fn acts_on<B>(&self, request: &Request<B>) -> bool {
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
    let dialect = dialect(&options, &request);
    let (reply, key) = match guard(|| key(request.headers(), dialect)) {
        Ok(Ok(key)) => {
            let once = guarded(once.answer(request, (key.clone(), id.clone())));
            let reply = match observe::request(&key, &id, once, outcome).await {
                Ok(reply) => reply?,
                Err(panicked) => panicked.into(),
            };
            (reply, Some(key))
        }
        Ok(Err(reason)) => (Reply::Refused(Refused::unread(reason, request)), None),
        Err(panicked) => (panicked.into(), None),
    };
    Ok(sign(reply, dialect, (&id, key.as_ref()), version))
}

/// Passes a request to the inner service, and adds the headers of the layer to the answer.
async fn pass<S, B, R>(
    inner: S,
    options: Arc<LayerOptions>,
    request: Request<B>,
    id: RequestId,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<R>>,
    B: AnyBody,
    R: AnyBody,
{
    let version = request.version();
    let dialect = dialect(&options, &request);
    let reply = match guarded(run(inner, request.map(Body::new))).await {
        Ok(response) => Reply::Fresh(response?.map(Body::new)),
        Err(panicked) => panicked.into(),
    };
    Ok(sign(reply, dialect, (&id, None), version))
}

/// Makes the service ready and calls it.
async fn run<S, R>(mut inner: S, request: Request<Body>) -> Result<R, S::Error>
where
    S: Service<Request<Body>, Response = R>,
{
    ready(&mut inner).await?;
    inner.call(request).await
}

/// Returns the dialect for the answers to a request.
fn dialect<'a, B>(options: &'a LayerOptions, request: &Request<B>) -> &'a dyn Dialect {
    if is_grpc(request.headers()) { &Grpc } else { &*options.dialect }
}

/// Returns the word for a request's end, for its span.
fn outcome<E>(answer: &Result<Result<Reply, E>, Panicked>) -> &'static str {
    match answer {
        Ok(Ok(Reply::Fresh(_))) => "executed",
        Ok(Ok(Reply::Replay(_))) => "replayed",
        Ok(Ok(Reply::Refused(refused))) => refused.reason.code(),
        Ok(Err(_)) => "failed",
        Err(_) => Reason::HandlerPanicked.code(),
    }
}

/// Returns the response in the dialect's terms, with the request id. A dialect that panics is
/// replaced by the contract's own.
fn sign(
    reply: Reply,
    dialect: &dyn Dialect,
    request: (&RequestId, Option<&Key>),
    version: Version,
) -> Response<Body> {
    guard(|| signed(reply, dialect, request, version))
        .unwrap_or_else(|panicked| signed(panicked.into(), &RevDesk, request, version))
}

fn signed(
    reply: Reply,
    dialect: &dyn Dialect,
    (request_id, key): (&RequestId, Option<&Key>),
    version: Version,
) -> Response<Body> {
    let is_replay = matches!(reply, Reply::Replay(_));
    let (mut response, close) = match reply {
        Reply::Fresh(response) | Reply::Replay(response) => (response, false),
        Reply::Refused(Refused { reason, close }) => {
            observe::refused(&reason);
            let refusal = Refusal { reason, request_id: request_id.clone(), key: key.cloned() };
            (dialect.refuse(&refusal).map(Body::from), close)
        }
    };
    let headers = response.headers_mut();
    dialect.sign(&Exchange { request_id, key, is_replay }, headers);
    let id = HeaderValue::from_str(request_id.as_str()).expect("request ids are header values");
    headers.insert(REQUEST_ID, id);
    if close && version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
