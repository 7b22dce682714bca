//! Errors, all in the one envelope.

use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use refrain::server::Envelope;

/// An error that a handler answers with.
pub(crate) struct Refusal(Envelope);

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self(Envelope::new(status, code, message))
    }

    pub(crate) fn field(self, name: &'static str, explanation: impl Into<String>) -> Self {
        Self(self.0.field(name, explanation))
    }

    pub(crate) fn not_found(message: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the request failed")
    }

    pub(crate) fn unverified() -> Self {
        let message = "the carrier does not know the caller id as yours";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "caller_id_not_verified", message)
            .field("caller_id", "Expected a verified number")
    }

    fn invalid(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "validation_error", message)
    }

    pub(crate) fn not_e164(message: &'static str, field: &'static str) -> Self {
        Self::invalid(message).field(field, "Expected +<country><number>")
    }
}

/// Why a body could not be read as JSON.
impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        match rejection.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body must be JSON",
            )
            .field("content-type", "Expected application/json"),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is too large")
            }
            _ => Self::invalid("the body must be a JSON object of the route's fields")
                .field("body", rejection.body_text()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response().map(axum::body::Body::new)
    }
}
