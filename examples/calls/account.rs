//! The accounts: the check in front of the idempotency layer. Any bearer token is valid, and each
//! has calls of its own.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use refrain::server::scope;

use crate::refusal::Refusal;

/// Accepts requests with a token, and gives the layer and the handlers its account.
pub(crate) async fn authenticate(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(account) = scope::bearer_token(&parts) else {
        let message = "a bearer token is required";
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
            .field("authorization", "Expected Bearer <token>");
        let scheme = HeaderValue::from_static("Bearer");
        return ([(WWW_AUTHENTICATE, scheme)], refusal).into_response();
    };
    parts.extensions.insert(account);
    next.run(Request::from_parts(parts, body)).await
}
