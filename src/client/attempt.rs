//! One attempt: sends a request, follows redirects, collects the answer, and classifies it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, Uri};
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt;
use tower_service::Service;

use crate::http::{AnyBody, Body, BodyReader, BoxError, Unread, Whole, is_stream};

use super::answer::{is_replay, refusal, retry_after};
use super::error::{Failure, Stop};
use super::redirect::{MAX_REDIRECTS, target};

/// At least this much of a refusal's body is buffered, whatever the limit for other bodies.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// A request to send, for the first time or as a retry.
pub(super) struct Outgoing {
    pub(super) parts: Parts,
    pub(super) content: Payload,
    /// The attempt's number, from 1.
    pub(super) attempt: u32,
}

/// The body of a request to send.
pub(super) enum Payload {
    /// A buffered body, which can be sent again.
    Whole(Whole),
    /// A body that can be sent once, and the reason.
    Once(Body, Stop),
}

impl Outgoing {
    /// Returns a copy to send again, or `None` if the body can be sent only once.
    pub(super) fn again(&self) -> Option<Self> {
        let Payload::Whole(whole) = &self.content else { return None };
        let content = Payload::Whole(whole.clone());
        Some(Self { parts: self.parts.clone(), content, attempt: self.attempt })
    }
}

/// The answer to a call.
pub(super) struct Answered {
    pub(super) response: Received,
    pub(super) attempts: u32,
    pub(super) replayed: bool,
}

/// An answer, buffered or streamed.
pub(super) enum Received {
    Whole(Response<Whole>),
    Streamed(Response<Body>),
}

/// An attempt that ended without an answer to the call.
pub(super) struct Lost {
    pub(super) failure: Failure,
    pub(super) attempts: u32,
    pub(super) replayed: bool,
    /// True if another attempt is safe and may succeed.
    pub(super) transient: bool,
    pub(super) retry_after: Option<Duration>,
    /// The reason for not retrying.
    pub(super) stop: Stop,
    pub(super) response: Option<Response<Bytes>>,
}

/// Sends each request to the inner service once, for `tower::retry` to repeat. Redirects within the
/// origin belong to the attempt.
///
/// An attempt ends at its own time limit or at the deadline of its call, whichever comes first.
#[derive(Clone)]
pub(super) struct Attempts<S> {
    pub(super) inner: S,
    pub(super) keyed: bool,
    pub(super) timeout: Duration,
    /// The call's deadline.
    pub(super) ends: Instant,
    pub(super) max_response_bytes: usize,
}

/// The inner service, which sends requests.
pub(super) trait Transport<R>:
    Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S, R> Transport<R> for S where
    S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static
{
}

impl<S, R> Service<Outgoing> for Attempts<S>
where
    S: Transport<R> + Service<Request<Body>, Response = Response<R>>,
    R: AnyBody,
{
    type Response = Answered;
    type Error = Box<Lost>;
    type Future = Pin<Box<dyn Future<Output = Result<Answered, Box<Lost>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Box<Lost>>> {
        // The attempt itself waits for the inner service.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, outgoing: Outgoing) -> Self::Future {
        let Outgoing { parts, content, attempt } = outgoing;
        let stop = match &content {
            Payload::Whole(_) => Stop::Final,
            Payload::Once(_, stop) => *stop,
        };
        let started = Instant::now();
        let until = (started + self.timeout).min(self.ends);
        let keyed = self.keyed;
        let exchange = self.clone().exchange(parts, content);
        Box::pin(async move {
            match timeout_at(until, exchange).await {
                Ok(Ok(answer)) => read(answer, keyed, attempt, stop),
                Ok(Err(error)) => Err(Lost::transport(attempt, error, stop)),
                Err(_) => {
                    let within = until.duration_since(started);
                    Err(Lost::transient(attempt, Failure::TimedOut { within }, stop))
                }
            }
        })
    }
}

impl<S> Attempts<S> {
    /// Sends a request. If it has a key, sends it on where the server redirects it within its
    /// origin, under the same key.
    async fn exchange<R>(self, mut parts: Parts, content: Payload) -> Result<Received, BoxError>
    where
        S: Transport<R>,
        R: AnyBody,
    {
        let Self { inner, keyed, max_response_bytes: max, .. } = self;
        let whole = match content {
            Payload::Whole(whole) => whole,
            Payload::Once(body, _) => {
                return send(inner, Request::from_parts(parts, body), max).await;
            }
        };
        for _ in 0..MAX_REDIRECTS {
            let request = Request::from_parts(parts.clone(), whole.clone().into());
            let answer = send(inner.clone(), request, max).await?;
            match answer.target(&parts.uri).filter(|_| keyed) {
                Some(uri) => parts.uri = uri,
                None => return Ok(answer),
            }
        }
        send(inner, Request::from_parts(parts, whole.into()), max).await
    }
}

/// Sends a request, and receives the answer.
async fn send<R: AnyBody>(
    inner: impl Transport<R>,
    request: Request<Body>,
    max: usize,
) -> Result<Received, BoxError> {
    let response = inner.oneshot(request).await.map_err(Into::into)?;
    receive(response, max).await
}

impl Received {
    /// Returns the URI to send the same request to, if the answer is a redirect within the origin.
    fn target(&self, from: &Uri) -> Option<Uri> {
        match self {
            Self::Whole(response) => target(from, response.status(), response.headers()),
            Self::Streamed(response) => target(from, response.status(), response.headers()),
        }
    }
}

impl Lost {
    /// Returns the loss of an attempt whose connection failed.
    fn transport(attempts: u32, error: BoxError, stop: Stop) -> Box<Self> {
        Self::transient(attempts, Failure::Transport(error), stop)
    }

    /// Returns the loss of an attempt that another attempt may make up for.
    fn transient(attempts: u32, failure: Failure, stop: Stop) -> Box<Self> {
        Box::new(Self {
            failure,
            attempts,
            replayed: false,
            transient: true,
            retry_after: None,
            stop,
            response: None,
        })
    }
}

/// Classifies the answer as success or refusal. An unbuffered body is judged by its headers.
fn read(answer: Received, keyed: bool, attempts: u32, stop: Stop) -> Result<Answered, Box<Lost>> {
    let seen = match &answer {
        Received::Whole(response) => seen(response, response.body().data.clone()),
        Received::Streamed(response) => seen(response, Bytes::new()),
    };
    let replayed = is_replay(seen.headers());
    let Some(refused) = refusal(&seen, keyed) else {
        return Ok(Answered { response: answer, attempts, replayed });
    };
    Err(Box::new(Lost {
        failure: refused.failure,
        attempts,
        replayed,
        transient: refused.transient,
        retry_after: retry_after(seen.headers()),
        stop: if refused.transient { stop } else { Stop::Final },
        response: Some(seen),
    }))
}

/// Returns the head of an answer with this body, for errors to keep.
fn seen<B>(response: &Response<B>, body: Bytes) -> Response<Bytes> {
    let mut seen = Response::new(body);
    *seen.status_mut() = response.status();
    *seen.headers_mut() = response.headers().clone();
    seen
}

/// Buffers an answer, so that a broken one can be retried. Longer answers are streamed.
async fn receive(response: Response<impl AnyBody>, max: usize) -> Result<Received, BoxError> {
    let (parts, body) = response.into_parts();
    // The body of a refusal decides if a retry is safe.
    let is_refusal = parts.status.is_client_error() || parts.status.is_server_error();
    let max = if is_refusal { max.max(MAX_REFUSAL_BYTES) } else { max };
    let too_long = body.size_hint().lower() > max as u64;
    if is_stream(parts.status, &parts.headers) || too_long {
        return Ok(Received::Streamed(Response::from_parts(parts, Body::streamed(body))));
    }
    let mut reader = BodyReader::new(body, max);
    match reader.finish(max).await {
        Ok(()) => Ok(Received::Whole(Response::from_parts(parts, reader.into_whole()))),
        Err(Unread::TooLong) => {
            Ok(Received::Streamed(Response::from_parts(parts, Body::streamed(reader))))
        }
        Err(Unread::Broken(error)) => Err(error),
    }
}
