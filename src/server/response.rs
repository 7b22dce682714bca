//! Responses: the judgement of a handler's answer, its recorded form, and the replay.

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap, HeaderName};
use http::response::Parts;

use crate::Scope;
use crate::http::{AnyBody, REQUEST_ID, Whole, is_stream};
use crate::record::Trailers;

use super::execution::Lender;
use super::options::LayerOptions;
use super::policy::{KeepPolicy, Run, Verdict};

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

/// The headers that are added to most replays: the mark, the request id, and the length.
const MARKS: usize = 3;

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
    scope: Scope,
) -> Judged {
    let (mut parts, body) = response.into_parts();
    let own = parts.extensions.remove::<Verdict>();
    let given = lender.answered(own, is_success(&parts));
    let run = match lender.attempt() {
        1 if options.is_durable() => Run::First,
        1 => Run::Volatile,
        _ => Run::Again,
    };
    match given.unwrap_or_else(|| options.keep.judge(&parts, run)) {
        Verdict::Complete if is_stream(parts.status, &parts.headers) => {
            pass_on(Verdict::CompleteWithoutResponse, parts, body)
        }
        Verdict::Complete => {
            lender.answered(Some(Verdict::Complete), true);
            let judge = |parts: &Parts, trailers: Option<&HeaderMap>| {
                given.unwrap_or_else(|| options.keep.judge_trailers(parts, trailers, run))
            };
            keep(parts, (body, scope), judge, options).await
        }
        verdict => pass_on(verdict, parts, body),
    }
}

/// Returns a response that is sent as it comes, and is not kept.
fn pass_on(verdict: Verdict, parts: Parts, body: impl AnyBody) -> Judged {
    Judged { verdict, kept: None, sent: Response::from_parts(parts, Body::new(body)) }
}

/// Returns true if a handler says that it has done what it was asked for.
fn is_success(parts: &Parts) -> bool {
    KeepPolicy::Success.judge(parts, Run::Volatile) == Verdict::Complete
}

/// Collects a response to be kept. The trailers may change the verdict, but not a handler's own.
async fn keep(
    parts: Parts,
    (body, scope): (impl AnyBody, Scope),
    judge: impl FnOnce(&Parts, Option<&HeaderMap>) -> Verdict,
    options: &LayerOptions,
) -> Judged {
    let whole = match options.answers.collect(scope, &parts, body).await {
        Ok(whole) => whole,
        Err(body) => return pass_on(Verdict::CompleteWithoutResponse, parts, body),
    };
    let verdict = judge(&parts, whole.trailers.as_ref());
    let kept = (verdict == Verdict::Complete).then(|| {
        let mut kept = Response::new(whole.data.clone());
        *kept.status_mut() = parts.status;
        *kept.headers_mut() = stored_headers(&parts.headers, options);
        if let Some(trailers) = whole.trailers.clone() {
            kept.extensions_mut().insert(Trailers(trailers));
        }
        kept
    });
    Judged { verdict, kept, sent: Response::from_parts(parts, whole_body(whole)) }
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
pub(super) fn replay(recorded: &Response<Bytes>, options: &LayerOptions) -> Response<Body> {
    let trailers = recorded.extensions().get().map(|Trailers(map)| map.clone());
    let whole = Whole { data: recorded.body().clone(), trailers };
    let mut response = Response::new(whole_body(whole));
    *response.status_mut() = recorded.status();
    // A clone has no room for what the layers outside add, and grows once for each.
    let mut headers = HeaderMap::with_capacity(recorded.headers().len() + MARKS);
    let is_sent = |name: &HeaderName| options.replay_set_cookie || *name != header::SET_COOKIE;
    for (name, value) in recorded.headers().iter().filter(|(name, _)| is_sent(name)) {
        headers.append(name, value.clone());
    }
    *response.headers_mut() = headers;
    response
}

/// Returns a response to be sent, with the trailers from its extensions.
pub(super) fn whole(response: Response<Bytes>) -> Response<Body> {
    let (mut parts, data) = response.into_parts();
    let trailers = parts.extensions.remove::<Trailers>().map(|Trailers(map)| map);
    Response::from_parts(parts, whole_body(Whole { data, trailers }))
}

fn whole_body(whole: Whole) -> Body {
    if whole.trailers.is_some() { Body::new(whole) } else { Body::from(whole.data) }
}
