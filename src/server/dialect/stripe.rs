//! The dialect of Stripe's v1 API.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::http::{IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED, STRIPE_SHOULD_RETRY};

use super::{Dialect, Exchange, Reason, Refusal, json};

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Stripe's v1 API: 400 `idempotency_error` for conflicts, `Idempotent-Replayed: true`, the key
/// echoed, `Request-Id` on every answer, and `Stripe-Should-Retry` where its SDKs would decide
/// otherwise.
///
/// Stripe's clients send API keys as bearer tokens and as users of HTTP Basic, and parameters as
/// forms, in any order. [`scope::bearer_or_basic`] reads the former, and
/// `IdempotencyLayer::fingerprint_forms` (feature `forms`) compares the latter as Stripe does:
///
/// ```
/// # #[cfg(feature = "forms")]
/// # fn main() -> refrain::Result<()> {
/// use refrain::server::{IdempotencyLayer, Stripe, scope};
///
/// # let store = refrain::Store::builder().open_in_memory()?;
/// let layer = IdempotencyLayer::new(store)
///     .dialect(Stripe)
///     .scope(scope::bearer_or_basic)
///     .fingerprint_forms(true);
/// # let _ = layer;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "forms"))]
/// # fn main() {}
/// ```
///
/// [`scope::bearer_or_basic`]: crate::server::scope::bearer_or_basic
///
/// As with Stripe, a key that was used at another endpoint has a message of its own. It does not
/// name the two endpoints as Stripe's does, because of the first one only a digest is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stripe;

#[derive(Serialize)]
struct StripeBody<'a> {
    error: StripeError<'a>,
}

#[derive(Serialize)]
struct StripeError<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    message: &'a str,
}

impl Dialect for Stripe {
    fn refuse(&self, refusal: &Refusal) -> Response<Bytes> {
        let reason = &refusal.reason;
        let message = message(refusal);
        let error = StripeError { r#type: kind(reason), code: code(reason), message: &message };
        let status = match reason {
            Reason::Conflict { .. } => StatusCode::BAD_REQUEST,
            _ => reason.status(),
        };
        let mut response = json(reason, status, &StripeBody { error });
        if let Some(should_retry) = should_retry(reason) {
            let should_retry = HeaderValue::from_static(should_retry);
            response.headers_mut().insert(STRIPE_SHOULD_RETRY, should_retry);
        }
        response
    }

    fn sign(&self, exchange: &Exchange<'_>, headers: &mut HeaderMap) {
        let id = HeaderValue::from_str(exchange.request_id.as_str());
        headers.insert(REQUEST_ID, id.expect("request ids are header values"));
        if let Some(key) = exchange.key {
            let key = HeaderValue::from_str(key.as_str()).expect("keys are header values");
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        if exchange.is_replay {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
    }
}

/// Returns Stripe's type for a reason. By Stripe's definition `idempotency_error` is a key that is
/// used for another request, and nothing else.
fn kind(reason: &Reason) -> &'static str {
    match reason {
        Reason::Conflict { .. } => "idempotency_error",
        // Something ran, so that the request is not what is wrong.
        Reason::Interrupted { .. }
        | Reason::ResultUnavailable { .. }
        | Reason::OutcomeUnknown
        | Reason::RecordDamaged
        | Reason::Unavailable
        | Reason::Panicked
        | Reason::Misused(_) => "api_error",
        _ => "invalid_request_error",
    }
}

/// Returns Stripe's code for a reason, or the contract's where Stripe has none. Conflicts have no
/// code.
fn code(reason: &Reason) -> Option<&'static str> {
    match reason {
        Reason::Conflict { .. }
        | Reason::Panicked
        | Reason::Misused(_)
        | Reason::Unauthorized { .. } => None,
        Reason::InProgress { .. } => Some("idempotency_key_in_use"),
        Reason::TooManyRequests => Some("rate_limit"),
        _ => Some(reason.code()),
    }
}

fn message(refusal: &Refusal) -> String {
    let key = refusal.key.as_ref().map_or("", |key| key.as_str());
    match &refusal.reason {
        Reason::Conflict { other_endpoint: true, .. } => format!(
            "Keys for idempotent requests can only be used for the same endpoint they were first \
             used for. Try using a key other than '{key}' if you meant to execute a different \
             request."
        ),
        Reason::Conflict { .. } => format!(
            "Keys for idempotent requests can only be used with the same parameters they were first \
             used with. Try using a key other than '{key}' if you meant to execute a different \
             request."
        ),
        Reason::InProgress { .. } => format!(
            "There is currently another in-progress request using this Idempotent Key (that \
             probably means you submitted twice, and the other request is still going through): \
             {key}. Please try again later."
        ),
        reason => reason.to_string(),
    }
}

/// Returns `Stripe-Should-Retry` for reasons whose status would mislead Stripe's SDKs, which retry
/// every 409 and 5xx.
fn should_retry(reason: &Reason) -> Option<&'static str> {
    match reason {
        Reason::Conflict { .. }
        | Reason::Interrupted { .. }
        | Reason::ResultUnavailable { .. }
        | Reason::OutcomeUnknown
        | Reason::RecordDamaged => Some("false"),
        _ => reason.retry_after().map(|_| "true"),
    }
}

#[cfg(test)]
mod tests {
    use crate::RequestId;
    use crate::key::InvalidKey;

    use super::*;

    /// Clients take the type for a key that is used for another request, and make a new key, which
    /// runs the request again.
    #[test]
    fn an_idempotency_error_is_a_conflict_and_nothing_else() {
        let id = RequestId::random;
        for other_endpoint in [false, true] {
            let conflict = Reason::Conflict { original: id(), other_endpoint };
            assert_eq!(kind(&conflict), "idempotency_error");
        }
        for (reason, expected) in [
            (Reason::InProgress { holder: id() }, "invalid_request_error"),
            (Reason::KeyMissing, "invalid_request_error"),
            (Reason::KeyRepeated, "invalid_request_error"),
            (Reason::KeyInvalid(InvalidKey::Empty), "invalid_request_error"),
            (Reason::TooManyRequests, "invalid_request_error"),
            (Reason::Interrupted { original: id() }, "api_error"),
            (Reason::ResultUnavailable { original: id() }, "api_error"),
            (Reason::OutcomeUnknown, "api_error"),
        ] {
            assert_eq!(kind(&reason), expected, "{reason:?}");
        }
    }
}
