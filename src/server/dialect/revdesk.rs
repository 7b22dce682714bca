//! The contract's own dialect.

use bytes::Bytes;
use http::Response;
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use crate::key::InvalidKey;
use crate::server::envelope::Envelope;

use super::{Dialect, Reason, Refusal};

/// RevDesk's v1 API: 409 for conflicts, the envelope `{"error": {"code", "message", "fields"}}`,
/// and `Idempotency-Replay: true`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RevDesk;

impl Dialect for RevDesk {
    fn refuse(&self, refusal: &Refusal) -> Response<Bytes> {
        let reason = &refusal.reason;
        let mut envelope = Envelope::new(reason.status(), reason.code(), reason.to_string());
        if let Some((name, request_id)) = reason.other_request() {
            envelope = envelope.field(name, request_id.as_str());
        }
        envelope = match reason {
            Reason::KeyMissing => envelope.field("idempotency-key", "Expected the header"),
            Reason::KeyInvalid(InvalidKey::Quoting) => {
                envelope.field("idempotency-key", "Expected one quoted string without parameters")
            }
            Reason::KeyInvalid(_) => {
                envelope.field("idempotency-key", "Expected 1 to 255 visible ASCII characters")
            }
            Reason::KeyRepeated => envelope.field("idempotency-key", "Expected the header once"),
            Reason::Unauthorized => envelope.field("authorization", "Expected Bearer <token>"),
            _ => envelope,
        };
        let mut response = envelope.into_bytes();
        let headers = response.headers_mut();
        if let Some(delay) = reason.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs()));
        }
        if matches!(reason, Reason::Unauthorized) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
