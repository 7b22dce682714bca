//! What becomes of a handler's response: which are stored, of what, and how they are replayed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;

use crate::record::{Record, Trailers};

use super::Options;
use super::body::{Begun, Body, BodyError, BoxError, Whole, pass};
use super::request::REQUEST_ID;

pub(super) const REPLAY: HeaderName = HeaderName::from_static("idempotency-replay");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Headers that belong to one connection or one moment, and not to the response.
const NOT_STORED: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::DATE,
    header::SERVER,
    REQUEST_ID,
];

/// What is recorded for a handler's response, and what is sent.
pub(super) enum Verdict {
    /// It did not succeed, so the key is freed.
    Release,
    /// It succeeded and is kept.
    Store(Box<Response<Bytes>>),
    /// It succeeded and is streamed past the store.
    StoreWithoutResponse,
}

/// Judges a response, collecting its body if it may be stored.
pub(super) async fn judge<B>(response: Response<B>, options: &Options) -> (Verdict, Response<Body>)
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = response.into_parts();
    if !succeeded(parts.status, &parts.headers) {
        return (Verdict::Release, Response::from_parts(parts, pass(body)));
    }
    if streams(parts.status, &parts.headers) {
        return (Verdict::StoreWithoutResponse, Response::from_parts(parts, pass(body)));
    }
    match collect(body, options.max_response_bytes, options.collect_within).await {
        Collected::Whole(data, trailers) => {
            let verdict = match &trailers {
                Some(trailers) if !grpc_succeeded(&parts.headers, trailers) => Verdict::Release,
                _ => {
                    let mut stored = Response::new(data.clone());
                    *stored.status_mut() = parts.status;
                    *stored.headers_mut() = stored_headers(&parts.headers, options);
                    if let Some(trailers) = trailers.clone() {
                        stored.extensions_mut().insert(Trailers(trailers));
                    }
                    Verdict::Store(Box::new(stored))
                }
            };
            (verdict, Response::from_parts(parts, Whole::new(data, trailers).boxed()))
        }
        Collected::Part(begun) => {
            (Verdict::StoreWithoutResponse, Response::from_parts(parts, begun))
        }
    }
}

/// Whether a response is one that the key is kept for.
fn succeeded(status: StatusCode, headers: &HeaderMap) -> bool {
    let success =
        status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS;
    // A gRPC error without a message comes with its status in the headers.
    success && grpc_succeeded(headers, headers)
}

fn grpc_succeeded(headers: &HeaderMap, status_in: &HeaderMap) -> bool {
    let is_grpc = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    !is_grpc || status_in.get(GRPC_STATUS).is_none_or(|status| status == "0")
}

/// Whether a response is a stream from the start, which no limit of time would make whole.
fn streams(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_events = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    is_events || status == StatusCode::SWITCHING_PROTOCOLS
}

enum Collected {
    Whole(Bytes, Option<HeaderMap>),
    /// Too long, too slow or broken: what was read, and the rest.
    Part(Body),
}

async fn collect<B>(body: B, max_bytes: usize, within: Duration) -> Collected
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if body.size_hint().lower() > max_bytes as u64 {
        return Collected::Part(pass(body));
    }
    let mut begun = Begun { read: VecDeque::new(), rest: Box::pin(body) };
    match tokio::time::timeout(within, read_on(&mut begun, max_bytes)).await {
        Ok(Reading::Ended) => {
            let (data, trailers) = join(begun.read);
            Collected::Whole(data, trailers)
        }
        Ok(Reading::Failed(error)) => {
            Collected::Part(Broken::new(begun.read, error).boxed_unsync())
        }
        Ok(Reading::TooLong) | Err(_) => Collected::Part(pass(begun)),
    }
}

enum Reading<E> {
    Ended,
    TooLong,
    Failed(E),
}

async fn read_on<B: HttpBody<Data = Bytes>>(
    begun: &mut Begun<B>,
    max_bytes: usize,
) -> Reading<B::Error> {
    let mut bytes = 0;
    loop {
        match begun.rest.frame().await {
            None => return Reading::Ended,
            Some(Err(error)) => return Reading::Failed(error),
            Some(Ok(frame)) => {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                begun.read.push_back(frame);
                if bytes > max_bytes {
                    return Reading::TooLong;
                }
            }
        }
    }
}

fn join(frames: VecDeque<Frame<Bytes>>) -> (Bytes, Option<HeaderMap>) {
    let mut parts = Vec::new();
    let mut trailers = None;
    for frame in frames {
        match frame.into_data() {
            Ok(data) => parts.push(data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    match parts.len() {
        1 => (parts.swap_remove(0), trailers),
        _ => {
            let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| whole.extend_from_slice(part));
            (whole.freeze(), trailers)
        }
    }
}

/// A body that broke off where the handler's did.
struct Broken {
    read: VecDeque<Frame<Bytes>>,
    error: Option<BodyError>,
}

impl Broken {
    fn new(read: VecDeque<Frame<Bytes>>, error: impl Into<BoxError>) -> Self {
        Self { read, error: Some(BodyError::new(error)) }
    }
}

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match self.read.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None => self.error.take().map(Err),
        };
        Poll::Ready(next)
    }
}

/// The handler's headers less those of one connection or one moment.
fn stored_headers(headers: &HeaderMap, options: &Options) -> HeaderMap {
    let named: Vec<&[u8]> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    let is_stored = |name: &HeaderName| {
        let is_named =
            named.iter().any(|named| name.as_str().as_bytes().eq_ignore_ascii_case(named));
        let is_cookie = *name == header::SET_COOKIE && !options.replay_set_cookie;
        !NOT_STORED.contains(name) && !is_named && !is_cookie
    };
    let stored = headers.iter().filter(|(name, _)| is_stored(name));
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in stored {
        map.append(name, value.clone());
    }
    map
}

/// The stored response, marked as a replay; `None` if it was not kept.
pub(super) fn replay(record: &Record) -> Option<Response<Body>> {
    let (mut parts, data) = record.response()?.clone().into_parts();
    parts.headers.insert(REPLAY, HeaderValue::from_static("true"));
    let trailers = parts.extensions.remove::<Trailers>().map(|Trailers(map)| map);
    Some(Response::from_parts(parts, Whole::new(data, trailers).boxed()))
}
