//! Errors, all in one envelope.

use std::borrow::Cow;

use axum::Extension;
use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use refrain::server::Envelope;

/// An error that a handler answers with.
#[derive(Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
    /// The explanation for a field of the request.
    pub(crate) field: Option<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into(), field: None }
    }

    pub(crate) fn field(self, name: &'static str, explanation: impl Into<String>) -> Self {
        Self { field: Some((name, explanation.into())), ..self }
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

    fn unreadable(status: StatusCode, text: String) -> Self {
        match status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::new(status, "unsupported_media_type", "the body must be JSON")
                    .field("content-type", "Expected application/json")
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, "body_too_large", "the body is too large")
            }
            _ => Self::invalid("the body must be a JSON object of the route's fields")
                .field("body", text),
        }
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::unreadable(rejection.status(), rejection.body_text())
    }
}

impl From<FormRejection> for Refusal {
    fn from(rejection: FormRejection) -> Self {
        Self::unreadable(rejection.status(), rejection.body_text())
    }
}

/// The contract's envelope. The refusal is in the response's extensions, so that another dialect
/// can word it.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let envelope = Envelope::new(self.status, self.code, self.message.clone());
        let envelope = match &self.field {
            Some((name, explanation)) => envelope.field(*name, explanation),
            None => envelope,
        };
        (Extension(self), envelope).into_response()
    }
}
