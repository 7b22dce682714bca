//! The dialect of draft-ietf-httpapi-idempotency-key-header-07.

use bytes::Bytes;
use http::header::{CONTENT_LANGUAGE, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::Key;
use crate::key::InvalidKey;

use super::{Dialect, Reason, Refusal, json};

/// The IETF's draft 07: `application/problem+json` (RFC 9457), 422 for conflicts, and keys that are
/// structured-field strings, which are quoted.
///
/// The draft names no header for replays; `Idempotency-Replay: true` is sent.
#[derive(Clone, Debug)]
pub struct Ietf {
    documentation: String,
}

impl Ietf {
    /// Creates the dialect with the URL of the API's documentation on idempotency, which is the
    /// `type` of each problem.
    pub fn new(documentation: impl Into<String>) -> Self {
        Self { documentation: documentation.into() }
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    detail: &'a str,
}

impl Dialect for Ietf {
    fn parse_key(&self, value: &[u8]) -> Result<Key, InvalidKey> {
        if !value.starts_with(b"\"") {
            return Err(InvalidKey::Unquoted);
        }
        Key::from_header(value)
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Bytes> {
        let reason = &refusal.reason;
        let detail = detail(reason);
        let body = Problem { r#type: &self.documentation, title: title(reason), detail: &detail };
        let status = match reason {
            Reason::Conflict { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            _ => reason.status(),
        };
        let mut response = json(reason, status, &body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
        response
    }
}

/// Returns the draft's title for a reason that the draft names, and one like it for the others.
fn title(reason: &Reason) -> &'static str {
    match reason {
        Reason::KeyMissing => "Idempotency-Key is missing",
        Reason::KeyInvalid(_) | Reason::KeyRepeated => "Idempotency-Key is malformed",
        Reason::Conflict { .. } => "Idempotency-Key is already used",
        Reason::InProgress { .. } => "A request is outstanding for this Idempotency-Key",
        Reason::Interrupted { .. } => "A request with this Idempotency-Key was interrupted",
        Reason::ResultUnavailable { .. } => "The result of this Idempotency-Key was not kept",
        Reason::OutcomeUnknown => "The outcome of the request is unknown",
        Reason::RecordDamaged => "The record of this Idempotency-Key is damaged",
        Reason::Unauthorized { .. } => "Unauthorized",
        Reason::Forbidden => "Forbidden",
        Reason::BodyTooLarge { .. } => "The request is too large",
        Reason::BodyTooSlow => "The request is too slow",
        Reason::BodyUnreadable => "The request broke off",
        Reason::TooManyRequests => "Too many requests",
        Reason::Unavailable => "Idempotency is unavailable",
        Reason::Panicked | Reason::Misused(_) => "Internal server error",
    }
}

fn detail(reason: &Reason) -> String {
    match reason {
        Reason::KeyMissing => "This operation is idempotent and it requires correct usage of \
                               Idempotency Key."
            .to_owned(),
        Reason::Conflict { .. } => "This operation is idempotent and it requires correct usage of \
                                    Idempotency Key. Idempotency Key MUST not be reused across \
                                    different payloads of this operation."
            .to_owned(),
        Reason::InProgress { .. } => "A request with the same Idempotency-Key for the same \
                                      operation is being processed or is outstanding."
            .to_owned(),
        _ => match reason.other_request() {
            Some((_, request_id)) => format!("{reason} (request {request_id})."),
            None => format!("{reason}."),
        },
    }
}
