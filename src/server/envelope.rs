//! The one envelope of every error: `{"error": {"code", "message", "fields"}}`.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::error::{Error, Limit};
use crate::key::{InvalidKey, RequestId};

use super::body::{Body, Whole};

/// What a client is told to wait before it asks again with the same key.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error as the contract words it, for the layer's own and for handlers'.
///
/// ```
/// use http::StatusCode;
/// use refrain::server::Envelope;
///
/// let envelope = Envelope::new(
///     StatusCode::BAD_REQUEST,
///     "validation_error",
///     "caller_id must be E.164 format",
/// )
/// .field("caller_id", "Expected +<country><number>");
/// assert_eq!(
///     envelope.to_json(),
///     r#"{"error":{"code":"validation_error","message":"caller_id must be E.164 format","fields":{"caller_id":"Expected +<country><number>"}}}"#,
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Envelope {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    fields: Vec<(&'static str, String)>,
    retry: bool,
}

impl Envelope {
    /// An error without fields.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into(), fields: Vec::new(), retry: false }
    }

    /// Adds what is to be said about a field of the request.
    #[must_use]
    pub fn field(mut self, name: &'static str, explanation: impl Into<String>) -> Self {
        self.fields.push((name, explanation.into()));
        self
    }

    /// The status that it is sent with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body that is sent.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Outer<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(serialize_with = "as_map")]
            fields: &'a [(&'static str, String)],
        }
        fn as_map<S: serde::Serializer>(
            fields: &&[(&'static str, String)],
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serializer.collect_map(fields.iter().map(|(name, text)| (name, text)))
        }
        let error = Inner { code: self.code, message: &self.message, fields: &self.fields };
        serde_json::to_string(&Outer { error }).expect("strings are always JSON")
    }

    /// Tells the client to ask again, with the same key.
    fn and_retry(mut self) -> Self {
        self.retry = true;
        self
    }

    /// The response, for a handler to return.
    pub fn into_response(self) -> Response<Body> {
        let body = Whole::new(Bytes::from(self.to_json()), None).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.retry {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }

    pub(super) fn conflict(original: &RequestId) -> Self {
        let message = "this key was already used for a different request";
        Self::new(StatusCode::CONFLICT, "idempotency_conflict", message)
            .field("conflicts_with", original.as_str())
    }

    pub(super) fn in_progress(holder: &RequestId) -> Self {
        let message = "a request with this key is still running; retry with the same key";
        Self::new(StatusCode::CONFLICT, "idempotency_in_progress", message)
            .field("in_progress_request_id", holder.as_str())
            .and_retry()
    }

    pub(super) fn interrupted(original: &RequestId) -> Self {
        let message =
            "an earlier request with this key was interrupted, and its outcome is unknown";
        Self::new(StatusCode::CONFLICT, "idempotency_interrupted", message)
            .field("interrupted_request_id", original.as_str())
    }

    pub(super) fn result_unavailable(original: &RequestId) -> Self {
        let message = "the request with this key succeeded, and its response was not kept";
        Self::new(StatusCode::CONFLICT, "idempotency_result_unavailable", message)
            .field("original_request_id", original.as_str())
    }

    pub(super) fn outcome_unknown() -> Self {
        let message = "the request ran, and its outcome could not be recorded";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "idempotency_outcome_unknown", message)
    }

    pub(super) fn unauthorized() -> Self {
        let message = "a request with an idempotency key needs one bearer token";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
            .field("authorization", "Expected Bearer <token>")
    }

    pub(super) fn key_invalid(error: InvalidKey) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "idempotency_key_invalid", error.to_string())
            .field("idempotency-key", "Expected 1 to 255 visible ASCII characters")
    }

    pub(super) fn key_repeated() -> Self {
        let message = "the idempotency key is given more than once";
        Self::new(StatusCode::BAD_REQUEST, "idempotency_key_invalid", message)
            .field("idempotency-key", "Expected the header once")
    }

    pub(super) fn body_too_large(max: usize) -> Self {
        let message = format!("a request with an idempotency key takes at most {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    pub(super) fn body_unreadable() -> Self {
        let message = "the request's body could not be read to its end";
        Self::new(StatusCode::BAD_REQUEST, "body_unreadable", message)
    }

    pub(super) fn handler_panicked() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the request failed")
    }

    /// Why a key was not granted. Nothing ran, so the same key may be tried again.
    pub(super) fn refused(error: &Error) -> Self {
        match error {
            Error::Limit { limit: Limit::InFlightPerScope | Limit::WaitersPerKey, .. } => {
                let message = "too many requests with idempotency keys are in flight";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
            }
            _ => {
                let message = "idempotency cannot be guaranteed now, so nothing was run";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "idempotency_unavailable", message)
            }
        }
        .and_retry()
    }
}
