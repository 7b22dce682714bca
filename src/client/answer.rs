//! What a server says with an answer: whether it is a replay, what it refuses, and when to ask again.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::RequestId;
use crate::http::{IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED, STRIPE_SHOULD_RETRY, media_type};

use super::error::Failure;

/// As servers spell it: the contract's, Stripe's, and others'.
const REPLAYED: [HeaderName; 3] =
    [IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED, HeaderName::from_static("idempotency-replayed")];

pub(super) fn is_replay(headers: &HeaderMap) -> bool {
    let says_so = |name| headers.get(name).is_some_and(|value| value.as_bytes() == b"true");
    REPLAYED.iter().any(says_so)
}

/// An answer that is none to the call.
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// Whether another attempt may be answered otherwise, and does no harm.
    pub(super) passes: bool,
}

/// Reads an answer to a request, under a key or not. `None` if it is the answer to the call, whatever
/// its status.
pub(super) fn refusal(response: &Response<Bytes>, keyed: bool) -> Option<Refused> {
    let (status, headers) = (response.status(), response.headers());
    if status.is_success() || status.is_redirection() {
        return None;
    }
    let retry_after = retry_after(headers);
    let later = Failure::Later { status, retry_after };
    let worded = keyed.then(|| worded(response)).flatten();
    let should_retry = headers.get(STRIPE_SHOULD_RETRY).map(|value| value.as_bytes() == b"true");
    let passes = match &worded {
        // What the words say goes, but for a server that wants no retry.
        Some(failure) => {
            matches!(failure, Failure::InProgress { .. }) && should_retry != Some(false)
        }
        // It may say that the call was run.
        None if keyed && is_unreadable(headers) => false,
        None => should_retry.unwrap_or_else(|| {
            is_passing(status) || (keyed && is_busy(status) && retry_after.is_some())
        }),
    };
    match worded {
        Some(failure) => Some(Refused { failure, passes }),
        None if passes => Some(Refused { failure: later, passes }),
        None => None,
    }
}

/// Who accepts encodings decodes answers inside the layer.
fn is_unreadable(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_ENCODING)
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 425 | 429 | 502..=504)
}

/// Under a key, and with a time after which to ask again: the key is in use.
fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::CONFLICT
}

/// When to ask again: a number of seconds, or a date, seen from the answer's own date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// What a dialect has words for. Whatever else is in the body does not matter.
fn worded(response: &Response<Bytes>) -> Option<Failure> {
    let body = || serde_json::from_slice::<Value>(response.body()).ok();
    match media_type(response.headers()).to_ascii_lowercase().as_slice() {
        b"application/json" => enveloped(&body()?["error"]),
        b"application/problem+json" => problem(&body()?),
        _ => None,
    }
}

/// The contract's envelope, and Stripe's.
fn enveloped(error: &Value) -> Option<Failure> {
    let id = |field: &str| error["fields"][field].as_str()?.parse::<RequestId>().ok();
    Some(match error["code"].as_str() {
        Some("idempotency_conflict") => {
            Failure::Conflict { original_request_id: id("conflicts_with") }
        }
        // Stripe has no code for it.
        None if error["type"] == "idempotency_error" => {
            Failure::Conflict { original_request_id: None }
        }
        Some("idempotency_in_progress" | "idempotency_key_in_use") => {
            Failure::InProgress { holder_request_id: id("in_progress_request_id") }
        }
        Some("idempotency_interrupted") => {
            Failure::Interrupted { original_request_id: id("interrupted_request_id") }
        }
        Some("idempotency_result_unavailable") => {
            Failure::ResultUnavailable { original_request_id: id("original_request_id") }
        }
        Some("idempotency_outcome_unknown") => Failure::OutcomeUnknown,
        _ => return None,
    })
}

/// By the titles of the IETF's draft, and by those of this crate's dialect of it for what it does not
/// name.
fn problem(problem: &Value) -> Option<Failure> {
    let id = || {
        let (_, rest) = problem["detail"].as_str()?.rsplit_once("(request ")?;
        rest.split(')').next()?.parse::<RequestId>().ok()
    };
    Some(match problem["title"].as_str()? {
        "Idempotency-Key is already used" => Failure::Conflict { original_request_id: id() },
        "A request is outstanding for this Idempotency-Key" => {
            Failure::InProgress { holder_request_id: id() }
        }
        "A request with this Idempotency-Key was interrupted" => {
            Failure::Interrupted { original_request_id: id() }
        }
        "The result of this Idempotency-Key was not kept" => {
            Failure::ResultUnavailable { original_request_id: id() }
        }
        "The outcome of the request is unknown" => Failure::OutcomeUnknown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], body: &'static str) -> Response<Bytes> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(Bytes::from(body)).unwrap()
    }

    fn passes(response: &Response<Bytes>, keyed: bool) -> Option<bool> {
        refusal(response, keyed).map(|refused| refused.passes)
    }

    #[test]
    fn an_answer_is_one_whatever_its_status() {
        for status in [200, 201, 204, 302, 400, 401, 404, 409, 422, 500, 501] {
            assert_eq!(passes(&response(status, &[], ""), true), None, "{status}");
        }
    }

    #[test]
    fn what_passes_is_tried_again() {
        for status in [425, 429, 502, 503, 504] {
            for keyed in [true, false] {
                assert_eq!(passes(&response(status, &[], "<html>"), keyed), Some(true), "{status}");
            }
        }
        // A key in use, by a server whose words are not known.
        let busy = response(409, &[("retry-after", "1")], "");
        assert_eq!((passes(&busy, true), passes(&busy, false)), (Some(true), None));
    }

    #[test]
    fn what_cannot_be_read_may_say_that_the_call_was_run() {
        let encoded = response(503, &[("content-encoding", "gzip")], "?");
        assert_eq!((passes(&encoded, true), passes(&encoded, false)), (None, Some(true)));
    }

    #[test]
    fn a_server_that_says_whether_to_retry_is_believed() {
        let told =
            |status, told| passes(&response(status, &[("stripe-should-retry", told)], ""), true);
        assert_eq!((told(500, "true"), told(409, "true")), (Some(true), Some(true)));
        assert_eq!((told(503, "false"), told(429, "false")), (None, None));
        // But what it has words for is not to be done again, whatever it says besides.
        let conflict =
            r#"{"error": {"code": "idempotency_conflict", "fields": null, "more": [1]}}"#;
        let headers =
            [("content-type", "Application/JSON; charset=utf-8"), ("stripe-should-retry", "true")];
        let refused = refusal(&response(409, &headers, conflict), true).unwrap();
        assert!(matches!(refused.failure, Failure::Conflict { .. }) && !refused.passes);
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let after = |headers: &[(&str, &str)]| retry_after(response(503, headers, "").headers());
        let date = ("date", "Tue, 24 Nov 2026 10:00:00 GMT");
        assert_eq!(after(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        let at = ("retry-after", "Tue, 24 Nov 2026 10:01:00 GMT");
        assert_eq!(after(&[at, date]), Some(Duration::from_secs(60)));
        assert_eq!(
            after(&[("retry-after", "Tue, 24 Nov 2026 09:00:00 GMT"), date]),
            Some(Duration::ZERO)
        );
        assert_eq!(
            (after(&[at]), after(&[("retry-after", "soon")]), after(&[])),
            (None, None, None)
        );
    }

    #[test]
    fn all_spellings_of_a_replay_are_read() {
        for name in ["Idempotency-Replay", "Idempotent-Replayed", "Idempotency-Replayed"] {
            assert!(is_replay(response(200, &[(name, "true")], "").headers()), "{name}");
            assert!(!is_replay(response(200, &[(name, "false")], "").headers()), "{name}");
        }
    }
}
