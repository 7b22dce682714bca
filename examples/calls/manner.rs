//! The dialects that the server can use, each for its own clients.

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use clap::ValueEnum;
use refrain::Scope;
use refrain::server::scope::{self, Credentials};
use refrain::server::{IdempotencyLayer, Ietf, RevDesk, Stripe};
use serde_json::json;

use crate::refusal::Refusal;

/// The `type` of the IETF dialect's problems.
const DOCUMENTATION: &str = "https://developer.example.com/idempotency";
const STRIPE_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manner {
    /// The contract's own dialect.
    Revdesk,
    /// The dialect of IETF draft 07: problem+json, quoted keys.
    Ietf,
    /// The dialect of Stripe's v1 API, for its SDKs: bodies may be forms.
    Stripe,
}

impl Manner {
    pub(crate) fn configure(self, layer: IdempotencyLayer) -> IdempotencyLayer {
        match self {
            Self::Revdesk => layer.dialect(RevDesk),
            Self::Ietf => layer.dialect(Ietf::new(DOCUMENTATION)),
            Self::Stripe => layer.dialect(Stripe).fingerprint_forms(true),
        }
    }

    /// Returns the account that a request is for.
    pub(crate) fn scope(self, request: &Parts) -> Result<Scope, Credentials> {
        match self {
            Self::Revdesk | Self::Ietf => scope::bearer_token(request),
            Self::Stripe => scope::bearer_or_basic(request),
        }
    }

    /// Words a handler's error in this dialect. The handler uses the contract's envelope.
    fn word(self, refusal: &Refusal) -> Option<(&'static str, String)> {
        let Refusal { status, code, message, field } = refusal;
        match self {
            Self::Revdesk => None,
            Self::Ietf => {
                let problem = json!({ "type": "about:blank", "title": message, "code": code });
                Some(("application/problem+json", problem.to_string()))
            }
            Self::Stripe => {
                let kind =
                    if status.is_server_error() { "api_error" } else { "invalid_request_error" };
                let param = field.as_ref().map(|(name, _)| name);
                let error =
                    json!({ "type": kind, "code": code, "message": message, "param": param });
                Some(("application/json", json!({ "error": error }).to_string()))
            }
        }
    }
}

/// Words errors in the dialect of the server. It stands inside the idempotency layer, so that an
/// error is stored as it was sent, and outside it, for errors of the layers in front.
pub(crate) async fn speak(State(manner): State<Manner>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let (mut parts, mut body) = response.into_parts();
    if let Some(refusal) = parts.extensions.remove::<Refusal>()
        && let Some((content_type, text)) = manner.word(&refusal)
    {
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        body = text.into();
    }
    if manner == Manner::Stripe
        && let Some(id) = parts.headers.get(X_REQUEST_ID).cloned()
    {
        parts.headers.insert(STRIPE_REQUEST_ID, id);
    }
    Response::from_parts(parts, body)
}
