//! The client as a service: sets the key, buffers the body, and joins identical calls.
//!
//! Invariants:
//! - All attempts of a call carry the same key, and a mutation without a key is sent once.
//! - A shared call goes on for as long as one of its callers waits for it.
//! - The inner service is made ready for each attempt, on a clone of its own.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt;
use tower::retry::Retry;
use tower_service::Service;

use crate::http::{
    AnyBody, Body, BodyReader, BoxError, IDEMPOTENCY_KEY, Repeated, Unread, Whole, is_mutation,
    only,
};
use crate::{Fingerprint, Key};

use super::ClientOptions;
use super::attempt::{Answered, Attempts, Lost, Outgoing, Payload, Received, Transport};
use super::call::{Call, CallId};
use super::error::{Error, Failure, Stop};
use super::policy::Patience;
use super::recent::{Landed, RecentCalls};

/// An HTTP client that gives each mutation a key and retries it; made by a
/// [`ClientLayer`](super::ClientLayer).
#[derive(Clone, Debug)]
pub struct Client<S> {
    inner: S,
    options: ClientOptions,
    recent: Arc<RecentCalls>,
}

impl<S> Client<S> {
    pub(super) fn new(inner: S, options: ClientOptions, recent: Arc<RecentCalls>) -> Self {
        Self { inner, options, recent }
    }
}

impl<S, B, R> Service<Request<B>> for Client<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Each attempt waits for its own clone of the inner service.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { inner, options, recent } = self.clone();
        Box::pin(async move { run(inner, options, &recent, request).await })
    }
}

/// Runs a request: alone, or as a part of an identical call in flight.
async fn run<S, B, R>(
    inner: S,
    options: ClientOptions,
    recent: &Arc<RecentCalls>,
    request: Request<B>,
) -> Result<Response<Body>, Error>
where
    S: Transport<R>,
    B: AnyBody,
    R: AnyBody,
{
    let (mut parts, body) = request.into_parts();
    let (key, named) = key(&mut parts, recent, options.quote_keys)?;
    let ends = Instant::now() + options.deadline;
    let content = content(&parts.method, key.as_ref(), body, options.max_request_bytes);
    let content = match timeout_at(ends, content).await {
        Ok(Ok(content)) => content,
        Ok(Err(error)) => return Err(Error::unsent(key, Failure::RequestBody(error))),
        Err(_) => return Err(too_late(key, options.deadline, 0)),
    };
    let shared = match (&key, &content) {
        (Some(key), Payload::Whole(whole)) if named => {
            let same = sameness(&parts, whole);
            let outgoing = Outgoing {
                parts: parts.clone(),
                content: Payload::Whole(whole.clone()),
                attempt: 1,
            };
            let call = one(inner.clone(), options.clone(), Some(key.clone()), outgoing, ends);
            recent.share(key, same, land(key.clone(), call))
        }
        _ => None,
    };
    if let Some(flight) = shared {
        // Another clone of the layer may give the call more time.
        let landed = timeout_at(ends, flight).await;
        let landed = landed.map_err(|_| too_late(key.clone(), options.deadline, 1))?;
        match landed {
            Landed::Whole(response) => return Ok(response.map(Body::from)),
            Landed::Failed(error) => return Err(error),
            Landed::Streamed(response) => {
                if let Some(response) = response.lock().take() {
                    return Ok(response);
                }
            }
        }
    }
    let outgoing = Outgoing { parts, content, attempt: 1 };
    let answered = one(inner, options, key, outgoing, ends).await?;
    Ok(match answered {
        Received::Whole(response) => response.map(Body::from),
        Received::Streamed(response) => response,
    })
}

/// Returns the error of a call whose deadline has passed, after at least so many attempts.
fn too_late(key: Option<Key>, deadline: Duration, attempts: u32) -> Error {
    let call = Call { key, attempts, ..Call::default() };
    Error::new(call, Failure::TimedOut { within: deadline }, Stop::Deadline, None)
}

/// Runs a shared call to its outcome. A panic is an outcome too, or the others would wait for ever.
async fn land(key: Key, call: impl Future<Output = Result<Received, Error>>) -> Landed {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(Received::Whole(response))) => Landed::Whole(Box::new(response)),
        Ok(Ok(Received::Streamed(response))) => {
            Landed::Streamed(Arc::new(Mutex::new(Some(response))))
        }
        Ok(Err(error)) => Landed::Failed(error),
        Err(_) => {
            let panicked = Failure::Transport("the inner service panicked".into());
            let call = Call { key: Some(key), attempts: 1, replayed: false };
            Landed::Failed(Error::new(call, panicked, Stop::Final, None))
        }
    }
}

/// Runs one call with all its attempts.
async fn one<S, R>(
    inner: S,
    options: ClientOptions,
    key: Option<Key>,
    outgoing: Outgoing,
    ends: Instant,
) -> Result<Received, Error>
where
    S: Transport<R>,
    R: AnyBody,
{
    let attempts = Attempts {
        inner,
        keyed: key.is_some(),
        timeout: options.attempt_timeout,
        ends,
        max_response_bytes: options.max_response_bytes,
    };
    match Retry::new(Patience::new(&options, ends), attempts).oneshot(outgoing).await {
        Ok(Answered { mut response, attempts, replayed }) => {
            let call = Call { key, attempts, replayed };
            match &mut response {
                Received::Whole(response) => response.extensions_mut().insert(call),
                Received::Streamed(response) => response.extensions_mut().insert(call),
            };
            Ok(response)
        }
        Err(lost) => {
            let Lost { failure, attempts, replayed, stop, response, .. } = *lost;
            Err(Error::new(Call { key, attempts, replayed }, failure, stop, response))
        }
    }
}

/// Sets the key of a request in its headers, and returns it. The second value is true if the caller
/// named the call, by a key or an id.
fn key(parts: &mut Parts, recent: &RecentCalls, quote: bool) -> Result<(Option<Key>, bool), Error> {
    if !is_mutation(&parts.method) {
        return Ok((None, false));
    }
    if let Some(key) = given(&parts.headers)? {
        return Ok((Some(key), true));
    }
    let id = parts.extensions.get::<CallId>();
    let key = id.map_or_else(Key::random, |id| recent.key_of(id));
    let value = if quote { format!("\"{}\"", key.as_str()) } else { key.as_str().to_owned() };
    let value = HeaderValue::from_str(&value).expect("a key is a valid header value");
    let named = id.is_some();
    parts.headers.insert(IDEMPOTENCY_KEY, value);
    Ok((Some(key), named))
}

/// Returns the key that the caller set.
///
/// # Errors
///
/// [`Failure::KeyInvalid`] or [`Failure::KeyRepeated`]; nothing was sent.
fn given(headers: &HeaderMap) -> Result<Option<Key>, Error> {
    let given = only(headers, &IDEMPOTENCY_KEY);
    let given = given.map_err(|Repeated| Error::unsent(None, Failure::KeyRepeated))?;
    let Some(value) = given else { return Ok(None) };
    match Key::from_header(value.as_bytes()) {
        Ok(key) => Ok(Some(key)),
        Err(invalid) => Err(Error::unsent(None, Failure::KeyInvalid(invalid))),
    }
}

/// Buffers the body if the request may be sent again, and passes it on otherwise.
///
/// # Errors
///
/// The error of the body, or a body that is longer than its announced length.
async fn content(
    method: &Method,
    key: Option<&Key>,
    body: impl AnyBody,
    max: usize,
) -> Result<Payload, BoxError> {
    if !method.is_safe() && key.is_none() {
        return Ok(Payload::Once(Body::streamed(body), Stop::NotIdempotent));
    }
    if body.size_hint().upper().is_none_or(|upper| upper > max as u64) {
        return Ok(Payload::Once(Body::streamed(body), Stop::BodyNotRepeatable));
    }
    let mut reader = BodyReader::new(body, max);
    match reader.finish(max).await {
        Ok(()) => Ok(Payload::Whole(reader.into_whole())),
        Err(Unread::TooLong) => Err("the body is longer than it said".into()),
        Err(Unread::Broken(error)) => Err(error),
    }
}

/// Fingerprints everything that the server sees. Calls with equal fingerprints are identical.
fn sameness(parts: &Parts, whole: &Whole) -> Fingerprint {
    let uri = parts.uri.to_string();
    let headers = parts.headers.len().to_le_bytes();
    let request = [parts.method.as_str().as_bytes(), uri.as_bytes(), &whole.data, &headers];
    let fields = parts.headers.iter().chain(whole.trailers.iter().flatten());
    let fields = fields.flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
    Fingerprint::of(request.into_iter().chain(fields))
}
