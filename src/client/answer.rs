//! Reads a server's answer: a replay, a refusal, or a time to retry.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::RequestId;
use crate::http::{IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED, STRIPE_SHOULD_RETRY, media_type};

use super::error::Failure;

/// Replay headers of the RevDesk contract, of Stripe, and of other servers.
const REPLAYED: [HeaderName; 3] =
    [IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED, HeaderName::from_static("idempotency-replayed")];

/// Returns true if the answer is marked as a replay, by any of the known headers.
pub(super) fn is_replay(headers: &HeaderMap) -> bool {
    let says_so = |name| headers.get(name).is_some_and(|value| value.as_bytes() == b"true");
    REPLAYED.iter().any(says_so)
}

/// An answer that refuses the call.
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// True if another attempt is safe and may succeed.
    pub(super) transient: bool,
}

/// Returns the refusal that an answer states, or `None` if it answers the call, whatever its
/// status.
///
/// `keyed` is true if the request carried a key.
pub(super) fn refusal(response: &Response<Bytes>, keyed: bool) -> Option<Refused> {
    let (status, headers) = (response.status(), response.headers());
    if status.is_success() || status.is_redirection() {
        return None;
    }
    let retry_after = retry_after(headers);
    let later = Failure::Later { status, retry_after };
    let worded = keyed.then(|| worded(response)).flatten();
    let should_retry = headers.get(STRIPE_SHOULD_RETRY).map(|value| value.as_bytes() == b"true");
    let transient = match &worded {
        // The error code decides, unless the server forbids the retry.
        Some(failure) => {
            matches!(failure, Failure::InProgress { .. }) && should_retry != Some(false)
        }
        // The unreadable body may say that the call ran.
        None if keyed && is_unreadable(headers) => false,
        None => should_retry.unwrap_or_else(|| {
            is_transient(status) || (keyed && is_busy(status) && retry_after.is_some())
        }),
    };
    match worded {
        Some(failure) => Some(Refused { failure, transient }),
        None if transient => Some(Refused { failure: later, transient }),
        None => None,
    }
}

/// True if the body is encoded. A client that accepts encodings decodes answers inside the layer.
fn is_unreadable(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_ENCODING)
}

/// Returns true for the statuses that ask for another attempt, with a key or without.
fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 425 | 429 | 502..=504)
}

/// With a key and a `Retry-After`, 409 means that the key is in use.
fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::CONFLICT
}

/// Parses `Retry-After`: a number of seconds, or a date relative to the answer's own `Date`.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// Returns the failure that the body names in a known dialect; other members are ignored.
fn worded(response: &Response<Bytes>) -> Option<Failure> {
    let body = || serde_json::from_slice::<Value>(response.body()).ok();
    match &*media_type(response.headers()) {
        "application/json" => enveloped(&body()?["error"]),
        "application/problem+json" => problem(&body()?),
        _ => None,
    }
}

/// Reads the error object of RevDesk and of Stripe.
fn enveloped(error: &Value) -> Option<Failure> {
    let id = |field: &str| error["fields"][field].as_str()?.parse::<RequestId>().ok();
    Some(match error["code"].as_str() {
        Some("idempotency_conflict") => {
            Failure::Conflict { original_request_id: id("conflicts_with") }
        }
        // Stripe gives a conflict no code.
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
        Some("idempotency_outcome_unknown" | "idempotency_record_damaged") => {
            Failure::OutcomeUnknown
        }
        _ => return None,
    })
}

/// Reads a problem document by its title: the IETF draft's titles, and the ones that this crate's
/// IETF dialect adds.
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
        "The outcome of the request is unknown"
        | "The record of this Idempotency-Key is damaged" => Failure::OutcomeUnknown,
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

    fn transient(response: &Response<Bytes>, keyed: bool) -> Option<bool> {
        refusal(response, keyed).map(|refused| refused.transient)
    }

    #[test]
    fn an_answer_without_a_refusal_answers_the_call_whatever_its_status() {
        for status in [200, 201, 204, 302, 400, 401, 404, 409, 422, 500, 501] {
            assert_eq!(transient(&response(status, &[], ""), true), None, "{status}");
        }
    }

    #[test]
    fn transient_refusals_are_retried() {
        for status in [425, 429, 502, 503, 504] {
            for keyed in [true, false] {
                assert_eq!(
                    transient(&response(status, &[], "<html>"), keyed),
                    Some(true),
                    "{status}"
                );
            }
        }
        // A key in use, reported by a server whose dialect is unknown.
        let busy = response(409, &[("retry-after", "1")], "");
        assert_eq!((transient(&busy, true), transient(&busy, false)), (Some(true), None));
    }

    #[test]
    fn an_encoded_refusal_of_a_keyed_request_is_not_retried() {
        let encoded = response(503, &[("content-encoding", "gzip")], "?");
        assert_eq!((transient(&encoded, true), transient(&encoded, false)), (None, Some(true)));
    }

    #[test]
    fn stripe_should_retry_decides_unless_the_error_code_does() {
        let told =
            |status, told| transient(&response(status, &[("stripe-should-retry", told)], ""), true);
        assert_eq!((told(500, "true"), told(409, "true")), (Some(true), Some(true)));
        assert_eq!((told(503, "false"), told(429, "false")), (None, None));
        // A conflict is final, even if the server asks for a retry.
        let conflict =
            r#"{"error": {"code": "idempotency_conflict", "fields": null, "more": [1]}}"#;
        let headers =
            [("content-type", "Application/JSON; charset=utf-8"), ("stripe-should-retry", "true")];
        let refused = refusal(&response(409, &headers, conflict), true).unwrap();
        assert!(matches!(refused.failure, Failure::Conflict { .. }) && !refused.transient);
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
    fn all_replay_headers_are_read() {
        for name in ["Idempotency-Replay", "Idempotent-Replayed", "Idempotency-Replayed"] {
            assert!(is_replay(response(200, &[(name, "true")], "").headers()), "{name}");
            assert!(!is_replay(response(200, &[(name, "false")], "").headers()), "{name}");
        }
    }
}
