//! The accounts: the check in front of the idempotency layer. Any API key is valid, and each has
//! calls of its own.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use refrain::server::scope::Credentials;

use crate::manner::Manner;
use crate::refusal::Refusal;

/// Accepts requests with an API key, and gives the layer and the handlers its account.
pub(crate) async fn authenticate(
    State(manner): State<Manner>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match manner.scope(&parts) {
        Ok(account) => parts.extensions.insert(account),
        Err(expected) => return refuse(&expected),
    };
    next.run(Request::from_parts(parts, body)).await
}

fn refuse(expected: &Credentials) -> Response {
    let message = format!("{expected} is required");
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        .field("authorization", "Expected Bearer <token>");
    let mut response = refusal.into_response();
    for challenge in expected.challenges() {
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().append(WWW_AUTHENTICATE, challenge);
    }
    response
}
