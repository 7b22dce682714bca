//! Whose calls they are: the bearer token, as the check in front of the idempotency layer reads it.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::refusal::Refusal;

/// A token. Any is good: each has calls of its own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Token(Arc<[u8]>);

/// Lets requests with a token pass, and tells the handlers which.
pub(crate) async fn authenticate(mut request: Request, next: Next) -> Response {
    let Some(token) = Token::of(request.headers()) else {
        let message = "a bearer token is required";
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
            .field("authorization", "Expected Bearer <token>");
        let scheme = HeaderValue::from_static("Bearer");
        return ([(WWW_AUTHENTICATE, scheme)], refusal).into_response();
    };
    request.extensions_mut().insert(token);
    next.run(request).await
}

impl Token {
    /// Reads one `Authorization` header: `Bearer` in any case, spaces, and the token's bytes.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return None };
        let (scheme, rest) = value.as_bytes().split_at_checked("Bearer".len())?;
        if !scheme.eq_ignore_ascii_case(b"Bearer") {
            return None;
        }
        let token = rest.iter().position(|byte| *byte != b' ').filter(|spaces| *spaces > 0)?;
        Some(Self(rest[token..].into()))
    }
}
