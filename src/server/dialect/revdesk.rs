//! The contract's own dialect.

use bytes::Bytes;
use http::Response;

use crate::key::InvalidKey;
use crate::server::envelope::Envelope;
use crate::server::scope::Credentials;

use super::{Dialect, Reason, Refusal, advise};

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
            Reason::Unauthorized { expected } => name(envelope, expected),
            _ => envelope,
        };
        let mut response = envelope.into_bytes();
        advise(reason, response.headers_mut());
        response
    }
}

/// Names the header that the missing credentials are sent in.
fn name(envelope: Envelope, expected: &Credentials) -> Envelope {
    match expected {
        Credentials::Bearer => envelope.field("authorization", "Expected Bearer <token>"),
        Credentials::BearerOrBasic => {
            let explanation = "Expected Bearer <API key>, or Basic with the API key as the user";
            envelope.field("authorization", explanation)
        }
        Credentials::Header(name) => envelope.field(name.to_string(), "Expected an API key, once"),
        Credentials::Unnamed => envelope,
    }
}
