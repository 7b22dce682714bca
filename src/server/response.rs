//! What becomes of a handler's response: which are stored, of what, and how they are replayed.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap, HeaderName};
use http::response::Parts;

use crate::http::{AnyBody, Body, BodyReader, REQUEST_ID, Unread, Whole, is_stream};
use crate::record::Trailers;

use super::Options;
use super::execution::Running;
use super::policy::Verdict;

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
pub(super) async fn judge(
    response: Response<impl AnyBody>,
    options: &Options,
    running: &Running,
) -> (Judgement, Response<Body>) {
    let (mut parts, body) = response.into_parts();
    let handlers_word = parts.extensions.remove::<Verdict>();
    let judgement = match handlers_word.unwrap_or_else(|| options.store.judge(&parts)) {
        Verdict::Release => Judgement::Release,
        Verdict::Unknown => Judgement::Unknown,
        Verdict::StoreWithoutResponse => Judgement::StoreWithoutResponse,
        Verdict::Store if is_stream(parts.status, &parts.headers) => {
            Judgement::StoreWithoutResponse
        }
        Verdict::Store => {
            running.note_success();
            return keep(parts, body, handlers_word.is_some(), options).await;
        }
    };
    (judgement, Response::from_parts(parts, Body::streamed(body)))
}

async fn keep(
    parts: Parts,
    body: impl AnyBody,
    whatever_its_trailers: bool,
    options: &Options,
) -> (Judgement, Response<Body>) {
    let collected = collect(body, options.max_response_bytes, options.collect_within).await;
    let whole = match collected {
        Collected::Whole(whole) => whole,
        Collected::Part(body) => {
            return (Judgement::StoreWithoutResponse, Response::from_parts(parts, body));
        }
    };
    let verdict = match &whole.trailers {
        _ if whatever_its_trailers => Verdict::Store,
        trailers => options.store.judge_trailers(&parts.headers, trailers.as_ref()),
    };
    let judgement = match verdict {
        Verdict::Release => Judgement::Release,
        Verdict::Store => {
            let mut stored = Response::new(whole.data.clone());
            *stored.status_mut() = parts.status;
            *stored.headers_mut() = stored_headers(&parts.headers, options);
            if let Some(trailers) = whole.trailers.clone() {
                stored.extensions_mut().insert(Trailers(trailers));
            }
            Judgement::Store(Box::new(stored))
        }
        Verdict::StoreWithoutResponse | Verdict::Unknown => Judgement::StoreWithoutResponse,
    };
    (judgement, Response::from_parts(parts, whole.into()))
}

enum Collected {
    Whole(Whole),
    /// Too long, too slow or broken: what was read, and the rest.
    Part(Body),
}

async fn collect(body: impl AnyBody, max_bytes: usize, within: Duration) -> Collected {
    if body.size_hint().lower() > max_bytes as u64 {
        return Collected::Part(Body::streamed(body));
    }
    let mut reader = BodyReader::new(body);
    match tokio::time::timeout(within, reader.finish(max_bytes)).await {
        Ok(Ok(())) => Collected::Whole(reader.into_whole()),
        Ok(Err(Unread::Broken(error))) => Collected::Part(reader.into_broken_body(error)),
        Ok(Err(Unread::TooLong)) | Err(_) => Collected::Part(reader.into_body()),
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
    Response::from_parts(parts, Whole { data, trailers }.into())
}
