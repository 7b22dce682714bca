//! What becomes of a handler's response: which are stored, of what, and how they are replayed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::response::Parts;
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use tokio::task::coop::consume_budget;

use crate::record::Trailers;

use super::Options;
use super::body::{Begun, Body, BoxError, Whole, pass};
use super::execution::Running;
use super::policy::Verdict;
use super::request::REQUEST_ID;

/// Headers that belong to one connection or one moment, and not to the response.
const NOT_STORED: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::DATE,
    header::SERVER,
    REQUEST_ID,
];

/// The most frames that a response is collected from, whatever their size.
const MAX_FRAMES: usize = 64 * 1024;

/// What is recorded of a handler's response.
pub(super) enum Judgement {
    /// Nothing happened, so the key is freed.
    Release,
    /// It is kept.
    Store(Box<Response<Bytes>>),
    /// The operation is done, and the response passes by.
    StoreWithoutResponse,
    /// Nobody knows.
    Unknown,
}

/// Judges a response, collecting its body if it is to be kept.
pub(super) async fn judge<B>(
    response: Response<B>,
    options: &Options,
    running: &Running,
) -> (Judgement, Response<Body>)
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = response.into_parts();
    let handlers_word = parts.extensions.remove::<Verdict>();
    let judgement = match handlers_word.unwrap_or_else(|| options.store.judge(&parts)) {
        Verdict::Release => Judgement::Release,
        Verdict::Unknown => Judgement::Unknown,
        Verdict::StoreWithoutResponse => Judgement::StoreWithoutResponse,
        Verdict::Store if streams(parts.status, &parts.headers) => Judgement::StoreWithoutResponse,
        Verdict::Store => {
            running.note_success();
            return keep(parts, body, handlers_word.is_some(), options).await;
        }
    };
    (judgement, Response::from_parts(parts, pass(body)))
}

async fn keep<B>(
    parts: Parts,
    body: B,
    whatever_its_trailers: bool,
    options: &Options,
) -> (Judgement, Response<Body>)
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let collected = collect(body, options.max_response_bytes, options.collect_within).await;
    let (data, trailers) = match collected {
        Collected::Whole(data, trailers) => (data, trailers),
        Collected::Part(body) => {
            return (Judgement::StoreWithoutResponse, Response::from_parts(parts, body));
        }
    };
    let verdict = match &trailers {
        _ if whatever_its_trailers => Verdict::Store,
        trailers => options.store.judge_trailers(&parts.headers, trailers.as_ref()),
    };
    let judgement = match verdict {
        Verdict::Release => Judgement::Release,
        Verdict::Store => {
            let mut stored = Response::new(data.clone());
            *stored.status_mut() = parts.status;
            *stored.headers_mut() = stored_headers(&parts.headers, options);
            if let Some(trailers) = trailers.clone() {
                stored.extensions_mut().insert(Trailers(trailers));
            }
            Judgement::Store(Box::new(stored))
        }
        Verdict::StoreWithoutResponse | Verdict::Unknown => Judgement::StoreWithoutResponse,
    };
    (judgement, Response::from_parts(parts, Whole::new(data, trailers).boxed()))
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
            let (data, trailers) = split(begun.read);
            Collected::Whole(data, trailers)
        }
        Ok(Reading::Failed(error)) => Collected::Part(pass(Broken::new(begun.read, error))),
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
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            Some(Ok(frame)) => {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                begun.read.push_back(frame);
                if bytes > max_bytes || begun.read.len() > MAX_FRAMES {
                    return Reading::TooLong;
                }
            }
        }
        // A body that is always ready must not outrun the limit of time.
        consume_budget().await;
    }
}

fn split(frames: VecDeque<Frame<Bytes>>) -> (Bytes, Option<HeaderMap>) {
    let mut parts = Vec::with_capacity(frames.len());
    let mut trailers = None;
    for frame in frames {
        match frame.into_data() {
            Ok(data) => parts.push(data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    // Without a copy where there is but one.
    let data = if parts.len() == 1 { parts.swap_remove(0) } else { parts.concat().into() };
    (data, trailers)
}

/// A body that broke off where the handler's did.
struct Broken {
    read: VecDeque<Frame<Bytes>>,
    error: Option<BoxError>,
}

impl Broken {
    fn new(read: VecDeque<Frame<Bytes>>, error: impl Into<BoxError>) -> Self {
        Self { read, error: Some(error.into()) }
    }
}

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = match self.read.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None => self.error.take().map(Err),
        };
        Poll::Ready(next)
    }
}

/// The headers that are stored: all but those of one connection or one moment.
pub(super) fn stored_headers(headers: &HeaderMap, options: &Options) -> HeaderMap {
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
    let mut stored = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers.iter().filter(|(name, _)| is_stored(name)) {
        stored.append(name, value.clone());
    }
    stored
}

/// A stored response, to be sent again. Cookies may have been stored by a layer that replays them.
pub(super) fn replay(response: &Response<Bytes>, options: &Options) -> Response<Body> {
    let mut response = response.clone();
    if !options.replay_set_cookie {
        response.headers_mut().remove(header::SET_COOKIE);
    }
    whole(response)
}

/// A response to be sent, with the trailers that its extensions hold.
pub(super) fn whole(response: Response<Bytes>) -> Response<Body> {
    let (mut parts, data) = response.into_parts();
    let trailers = parts.extensions.remove::<Trailers>().map(|Trailers(map)| map);
    Response::from_parts(parts, Whole::new(data, trailers).boxed())
}
