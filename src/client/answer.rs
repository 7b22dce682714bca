//! Reads a server's answer: a replay, a refusal, or a time to retry.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::RequestId;
use crate::http::{
    IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED, Meaning, Named, STRIPE_SHOULD_RETRY, media_type,
};

use super::error::Failure;
use super::redirect::location;

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
    if status.is_success() {
        return None;
    }
    if status.is_redirection() {
        return keyed.then(|| redirected(status, headers)).flatten();
    }
    let worded = keyed.then(|| worded(response)).flatten();
    let meaning = worded.as_ref().map(|worded| worded.meaning);
    let transient = is_transient(response, meaning, keyed);
    let later = || Failure::Later { status, retry_after: retry_after(headers) };
    let failure = match worded.and_then(Worded::failure) {
        Some(failure) => failure,
        None if transient => later(),
        None => return None,
    };
    Some(Refused { failure, transient })
}

/// Returns the refusal to act here, if the answer is a redirect. Those that could be followed have
/// been.
fn redirected(status: StatusCode, headers: &HeaderMap) -> Option<Refused> {
    let mut location = location(status, headers)?.clone();
    location.set_sensitive(true);
    Some(Refused { failure: Failure::Redirected { status, location }, transient: false })
}

/// Returns true if another attempt is safe and may succeed.
fn is_transient(response: &Response<Bytes>, meaning: Option<Meaning>, keyed: bool) -> bool {
    let (status, headers) = (response.status(), response.headers());
    let should_retry = headers.get(STRIPE_SHOULD_RETRY).map(|value| value.as_bytes() == b"true");
    let is_timed = headers.contains_key(RETRY_AFTER);
    match meaning {
        Some(meaning) if !meaning.is_retryable() => false,
        // The error code decides, unless the server forbids the retry.
        Some(Meaning::InProgress) => should_retry != Some(false),
        // Other servers may use such a code for another refusal. A time to retry confirms it.
        Some(_) => should_retry.unwrap_or(is_transient_status(status) || is_timed),
        // The unreadable body may say that the call ran.
        None if keyed && is_unreadable(headers) => false,
        // With a key and a time to retry, 409 means that the key is in use.
        None => should_retry.unwrap_or_else(|| {
            is_transient_status(status) || (keyed && is_timed && status == StatusCode::CONFLICT)
        }),
    }
}

/// True if the body is encoded. A client that accepts encodings decodes answers inside the layer.
fn is_unreadable(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_ENCODING)
}

/// Returns true for the statuses that ask for another attempt, with a key or without.
fn is_transient_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 502..=504)
}

/// Parses `Retry-After`: a number of seconds, or a date relative to the answer's own `Date`.
///
/// A fraction is rounded up, and a number that is too large for a duration is the longest one.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Some(seconds) = seconds(value) {
        return Some(seconds);
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// Parses a decimal number of seconds.
fn seconds(value: &str) -> Option<Duration> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    // Digits that are no `u64` are beyond it.
    let whole: u64 = whole.parse().unwrap_or(u64::MAX);
    let begun = fraction.bytes().any(|digit| digit != b'0');
    let seconds = whole.saturating_add(u64::from(begun));
    Some(if seconds == u64::MAX { Duration::MAX } else { Duration::from_secs(seconds) })
}

/// A refusal that the body words in a known dialect.
struct Worded {
    meaning: Meaning,
    /// The other request that the refusal names.
    other: Option<RequestId>,
}

impl Worded {
    /// Returns the failure of a refusal that is more than a delay.
    fn failure(self) -> Option<Failure> {
        let id = self.other;
        Some(match self.meaning {
            Meaning::NotRun => return None,
            Meaning::InProgress => Failure::InProgress { holder_request_id: id },
            Meaning::Conflict => Failure::Conflict { original_request_id: id },
            Meaning::Interrupted => Failure::Interrupted { original_request_id: id },
            Meaning::ResultUnavailable => Failure::ResultUnavailable { original_request_id: id },
            Meaning::OutcomeUnknown => Failure::OutcomeUnknown,
        })
    }
}

/// Returns the refusal that the body words in a known dialect; other members are ignored.
fn worded(response: &Response<Bytes>) -> Option<Worded> {
    let body = || serde_json::from_slice::<Value>(response.body()).ok();
    match &*media_type(response.headers()) {
        "application/json" => enveloped(&body()?["error"]),
        "application/problem+json" => problem(&body()?),
        _ => None,
    }
}

/// Reads the error object of RevDesk and of Stripe.
fn enveloped(error: &Value) -> Option<Worded> {
    let Some(code) = error["code"].as_str() else {
        // Stripe gives a conflict no code.
        let is_conflict = error["type"] == "idempotency_error";
        return is_conflict.then_some(Worded { meaning: Meaning::Conflict, other: None });
    };
    let named = Named::by_code(code)?;
    let other = named.other_request.and_then(|field| error["fields"][field].as_str()?.parse().ok());
    Some(Worded { meaning: named.meaning, other })
}

/// Reads a problem document by its title.
fn problem(problem: &Value) -> Option<Worded> {
    let named = Named::by_title(problem["title"].as_str()?)?;
    let id = || {
        let (_, rest) = problem["detail"].as_str()?.rsplit_once("(request ")?;
        rest.split(')').next()?.parse::<RequestId>().ok()
    };
    Some(Worded { meaning: named.meaning, other: named.other_request.and_then(|_| id()) })
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
        for status in [200, 201, 204, 300, 302, 304, 307, 400, 401, 404, 409, 422, 500, 501] {
            assert_eq!(transient(&response(status, &[], ""), true), None, "{status}");
        }
    }

    #[test]
    fn transient_refusals_are_retried() {
        for status in [408, 425, 429, 502, 503, 504] {
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
        assert_eq!((after(&[at]), after(&[])), (None, None));
    }

    /// A number that did not fit was taken for none, and the server was asked again at once.
    #[test]
    fn retry_after_beyond_a_duration_is_the_longest_and_a_fraction_is_rounded_up() {
        let after = |value| retry_after(response(503, &[("retry-after", value)], "").headers());
        for endless in ["18446744073709551615", "99999999999999999999999", "99999999999999999999.5"]
        {
            assert_eq!(after(endless), Some(Duration::MAX), "{endless}");
        }
        for (value, seconds) in [("1.5", 2), ("0.001", 1), ("7.0", 7), (" 3 ", 3)] {
            assert_eq!(after(value), Some(Duration::from_secs(seconds)), "{value}");
        }
        for garbage in ["", "soon", "-1", "+1", "1.", ".5", "1.5.2", "1e3", "1,5", "0x10"] {
            assert_eq!(after(garbage), None, "{garbage}");
        }
    }

    /// The server's 408 and 400 `body_unreadable`, which say that nothing was run, were taken for
    /// the answer to the call.
    #[cfg(feature = "server")]
    #[test]
    fn what_the_server_half_calls_retryable_is_retried_in_each_dialect_and_nothing_else() {
        use crate::server::{Dialect, Ietf, RevDesk, Stripe};
        let dialects: [&dyn Dialect; 3] = [&RevDesk, &Ietf::new("https://calls.test"), &Stripe];
        for dialect in dialects {
            for refusal in refusals() {
                let reason = &refusal.reason;
                let read = transient(&dialect.refuse(&refusal), true);
                let retried = read == Some(true);
                assert_eq!(retried, reason.retry_after().is_some(), "{dialect:?}: {reason:?}");
            }
        }
    }

    /// Refusals with each reason of the server half.
    #[cfg(feature = "server")]
    fn refusals() -> Vec<crate::server::Refusal> {
        use crate::server::{Reason, Refusal};
        let id = || RequestId::random();
        let invalid = "two words".parse::<crate::Key>().unwrap_err();
        let reasons = [
            Reason::KeyMissing,
            Reason::KeyInvalid(invalid),
            Reason::KeyRepeated,
            Reason::Unauthorized { expected: crate::server::scope::Credentials::Bearer },
            Reason::Forbidden,
            Reason::BodyTooLarge { max: Some(1) },
            Reason::BodyTooSlow,
            Reason::BodyUnreadable,
            Reason::Conflict { original: id(), other_endpoint: false },
            Reason::Conflict { original: id(), other_endpoint: true },
            Reason::InProgress { holder: id() },
            Reason::Interrupted { original: id() },
            Reason::ResultUnavailable { original: id() },
            Reason::OutcomeUnknown,
            Reason::RecordDamaged,
            Reason::TooManyRequests,
            Reason::Unavailable,
            Reason::Panicked,
            Reason::Misused("it is"),
        ];
        let refusal = |reason| Refusal { reason, request_id: id(), key: None };
        reasons.into_iter().map(refusal).collect()
    }

    #[test]
    fn a_code_without_a_time_to_retry_may_be_another_servers_own() {
        let unreadable = r#"{"error": {"code": "body_unreadable", "message": "no JSON"}}"#;
        let json = ("content-type", "application/json");
        let timed = response(400, &[json, ("retry-after", "1")], unreadable);
        assert_eq!((transient(&timed, true), transient(&timed, false)), (Some(true), None));
        assert_eq!(transient(&response(400, &[json], unreadable), true), None);
        let forbidden = [json, ("retry-after", "1"), ("stripe-should-retry", "false")];
        assert_eq!(transient(&response(400, &forbidden, unreadable), true), None);
    }

    #[test]
    fn all_replay_headers_are_read() {
        for name in ["Idempotency-Replay", "Idempotent-Replayed", "Idempotency-Replayed"] {
            assert!(is_replay(response(200, &[(name, "true")], "").headers()), "{name}");
            assert!(!is_replay(response(200, &[(name, "false")], "").headers()), "{name}");
        }
    }
}
