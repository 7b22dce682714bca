//! Responses: the judgement of a handler's answer, its recorded form, and the replay.

use std::borrow::Cow;

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
use super::policy::{Run, Verdict, is_success};

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
    pub(super) answer: Answer,
}

/// A handler's answer, as far as it was read.
pub(super) enum Answer {
    /// Read to its end, with its trailers in its extensions. With [`Verdict::Complete`] it is
    /// recorded.
    Whole(Response<Bytes>),
    /// Sent as it comes.
    Streamed(Response<Body>),
}

impl Answer {
    /// Returns the response to send.
    pub(super) fn into_response(self) -> Response<Body> {
        match self {
            Self::Whole(response) => whole(response),
            Self::Streamed(response) => response,
        }
    }
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
    let is_success = is_success(&parts);
    let given = lender.answered(own, is_success);
    let run = match lender.attempt() {
        1 if options.is_durable() => Run::First,
        1 => Run::Volatile,
        _ => Run::Again,
    };
    match given.unwrap_or_else(|| options.keep.judge(&parts, is_success, run)) {
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
    let response = Response::from_parts(parts, Body::new(body));
    Judged { verdict, answer: Answer::Streamed(response) }
}

/// Collects a response to be kept. The trailers may change the verdict, but not a handler's own.
async fn keep(
    mut parts: Parts,
    (body, scope): (impl AnyBody, Scope),
    judge: impl FnOnce(&Parts, Option<&HeaderMap>) -> Verdict,
    options: &LayerOptions,
) -> Judged {
    let whole = match options.answers.collect(scope, &parts, body).await {
        Ok(whole) => whole,
        Err(body) => return pass_on(Verdict::CompleteWithoutResponse, parts, body),
    };
    let verdict = judge(&parts, whole.trailers.as_ref());
    // What the body did not bring is not sent, whoever has put it there.
    parts.extensions.remove::<Trailers>();
    if let Some(trailers) = whole.trailers {
        parts.extensions.insert(Trailers(trailers));
    }
    Judged { verdict, answer: Answer::Whole(Response::from_parts(parts, whole.data)) }
}

/// Returns the response to record: without the headers of one connection or one moment. Most have
/// none of those.
pub(super) fn stored<'a>(
    response: &'a Response<Bytes>,
    options: &LayerOptions,
) -> Cow<'a, Response<Bytes>> {
    let headers = response.headers();
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
    if headers.keys().all(is_stored) {
        return Cow::Borrowed(response);
    }
    let mut stored = Response::new(response.body().clone());
    *stored.status_mut() = response.status();
    stored.headers_mut().reserve(headers.keys_len());
    for (name, value) in headers.iter().filter(|(name, _)| is_stored(name)) {
        stored.headers_mut().append(name, value.clone());
    }
    if let Some(trailers) = response.extensions().get::<Trailers>() {
        stored.extensions_mut().insert(trailers.clone());
    }
    Cow::Owned(stored)
}

/// Returns a recorded response, to be sent again. Its cookies may come from a layer that replays
/// cookies.
pub(super) fn replay(mut recorded: Response<Bytes>, options: &LayerOptions) -> Response<Body> {
    if !options.replay_set_cookie {
        recorded.headers_mut().remove(header::SET_COOKIE);
    }
    whole(recorded)
}

/// Returns a response to be sent, with the trailers from its extensions.
pub(super) fn whole(response: Response<Bytes>) -> Response<Body> {
    let (mut parts, data) = response.into_parts();
    let body = match parts.extensions.remove::<Trailers>() {
        Some(Trailers(trailers)) => Body::new(Whole { data, trailers: Some(trailers) }),
        None => Body::from(data),
    };
    Response::from_parts(parts, body)
}
