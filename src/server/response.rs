//! Responses: the judgement of a handler's answer, its recorded form, and the replay.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap, HeaderName};
use http::response::Parts;

use crate::http::{AnyBody, Body, BodyReader, REQUEST_ID, Unread, Whole, is_stream};
use crate::record::Trailers;

use super::LayerOptions;
use super::execution::Lender;
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

/// A handler's answer, judged.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// The response to record, present with [`Verdict::Complete`].
    pub(super) kept: Option<Response<Bytes>>,
    /// The response to send.
    pub(super) sent: Response<Body>,
}

/// Judges a response, and collects its body if it is to be kept.
pub(super) async fn judge(
    response: Response<impl AnyBody>,
    options: &LayerOptions,
    lender: &Lender,
) -> Judged {
    let (mut parts, body) = response.into_parts();
    let handlers = parts.extensions.remove::<Verdict>();
    let verdict = match handlers.unwrap_or_else(|| options.keep.judge(&parts)) {
        Verdict::Complete if is_stream(parts.status, &parts.headers) => {
            Verdict::CompleteWithoutResponse
        }
        Verdict::Complete => {
            lender.note_success();
            return keep(parts, body, handlers, options).await;
        }
        verdict => verdict,
    };
    let sent = Response::from_parts(parts, Body::streamed(body));
    Judged { verdict, kept: None, sent }
}

/// Collects a response to be kept. The trailers may change the verdict, but not a handler's own.
async fn keep(
    parts: Parts,
    body: impl AnyBody,
    handlers: Option<Verdict>,
    options: &LayerOptions,
) -> Judged {
    let whole = match collect(body, options.max_response_bytes, options.collect_within).await {
        Collected::Whole(whole) => whole,
        Collected::Part(body) => {
            let sent = Response::from_parts(parts, body);
            return Judged { verdict: Verdict::CompleteWithoutResponse, kept: None, sent };
        }
    };
    let verdict = handlers
        .unwrap_or_else(|| options.keep.judge_trailers(&parts.headers, whole.trailers.as_ref()));
    let kept = (verdict == Verdict::Complete).then(|| {
        let mut kept = Response::new(whole.data.clone());
        *kept.status_mut() = parts.status;
        *kept.headers_mut() = stored_headers(&parts.headers, options);
        if let Some(trailers) = whole.trailers.clone() {
            kept.extensions_mut().insert(Trailers(trailers));
        }
        kept
    });
    Judged { verdict, kept, sent: Response::from_parts(parts, whole.into()) }
}

enum Collected {
    Whole(Whole),
    /// Too long, too slow or broken: a stream of the part that was read and of the rest.
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

/// Returns the headers to record: all but those of one connection or one moment.
pub(super) fn stored_headers(headers: &HeaderMap, options: &LayerOptions) -> HeaderMap {
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

/// Returns a recorded response, to be sent again. Its cookies may come from a layer that replays
/// cookies.
pub(super) fn replay(response: &Response<Bytes>, options: &LayerOptions) -> Response<Body> {
    let mut response = response.clone();
    if !options.replay_set_cookie {
        response.headers_mut().remove(header::SET_COOKIE);
    }
    whole(response)
}

/// Returns a response to be sent, with the trailers from its extensions.
pub(super) fn whole(response: Response<Bytes>) -> Response<Body> {
    let (mut parts, data) = response.into_parts();
    let trailers = parts.extensions.remove::<Trailers>().map(|Trailers(map)| map);
    Response::from_parts(parts, Whole { data, trailers }.into())
}
