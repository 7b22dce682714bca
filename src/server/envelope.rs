//! The contract's error envelope: `{"error": {"code", "message", "fields"}}`.

use std::borrow::Cow;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::Error;

use super::dialect::Reason;
use super::observe;

/// An error in the contract's envelope, for handlers. It does not depend on the layer's dialect.
///
/// In axum an envelope is a response, and in actix-web, with feature `actix`, an error with one;
/// elsewhere [`into_bytes`](Self::into_bytes) makes one.
///
/// ```
/// use http::StatusCode;
/// use refrain::server::Envelope;
///
/// async fn place_call(caller_id: String) -> Result<String, Envelope> {
///     if !caller_id.starts_with('+') {
///         let message = "caller_id must be E.164 format";
///         return Err(Envelope::new(StatusCode::BAD_REQUEST, "validation_error", message)
///             .field("caller_id", "Expected +<country><number>"));
///     }
///     Ok("placed".into())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let refused = place_call("4155551234".into()).await.unwrap_err();
/// assert_eq!(
///     refused.to_json(),
///     r#"{"error":{"code":"validation_error","message":"caller_id must be E.164 format","fields":{"caller_id":"Expected +<country><number>"}}}"#,
/// );
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Envelope {
    status: StatusCode,
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    fields: Vec<(Cow<'static, str>, String)>,
}

impl Envelope {
    /// Creates an error without fields.
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code: code.into(), message: message.into(), fields: Vec::new() }
    }

    /// Adds an explanation for a field of the request, in place of an earlier one for that field.
    #[must_use]
    pub fn field(
        mut self,
        name: impl Into<Cow<'static, str>>,
        explanation: impl Into<String>,
    ) -> Self {
        let name = name.into();
        self.fields.retain(|(said, _)| *said != name);
        self.fields.push((name, explanation.into()));
        self
    }

    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the body of the response: JSON, on one line.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct ErrorBody<'a> {
            error: ErrorFields<'a>,
        }
        #[derive(Serialize)]
        struct ErrorFields<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(serialize_with = "as_map")]
            fields: &'a [(Cow<'static, str>, String)],
        }
        fn as_map<S: serde::Serializer>(
            fields: &&[(Cow<'static, str>, String)],
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serializer.collect_map(fields.iter().map(|(name, text)| (name, text)))
        }
        let error = ErrorFields { code: &self.code, message: &self.message, fields: &self.fields };
        serde_json::to_string(&ErrorBody { error }).expect("strings are always JSON")
    }

    /// Returns the response: the status, `content-type: application/json`, and the JSON as its
    /// body.
    pub fn into_bytes(self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.to_json()));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

/// The answer of a handler that could not use the store. It has no verdict: before the handler has
/// acted, answer with [`Verdict::Release`](super::Verdict::Release) beside it, which in a later run
/// interrupts the key again.
///
/// Most errors are 503 `idempotency_unavailable`. [`Error::Volatile`] is a mistake in the program,
/// which no retry mends: 500 `internal_error`. With feature `tracing` an event has the error with its
/// causes.
impl From<Error> for Envelope {
    fn from(error: Error) -> Self {
        let reason = Reason::from(&error);
        match reason {
            Reason::Misused(_) => observe::mistaken(&reason),
            _ => observe::troubled(&error),
        }
        let message = match reason {
            // The handler that asks runs.
            Reason::Unavailable => "idempotency cannot be guaranteed now".to_owned(),
            _ => reason.to_string(),
        };
        Self::new(reason.status(), reason.code(), message)
    }
}

impl IntoResponse for Envelope {
    fn into_response(self) -> axum::response::Response {
        self.into_bytes().map(axum::body::Body::from)
    }
}
