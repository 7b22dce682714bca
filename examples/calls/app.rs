//! The routes, and the order of the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{any, get, post};
use refrain::RequestId;
use refrain::server::IdempotencyLayer;

use crate::account;
use crate::book::Book;
use crate::calls::{self, Office};
use crate::carrier::Carrier;
use crate::refusal::Refusal;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest body of a request without an idempotency key; with one the layer has the same limit.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The whole application.
///
/// A request passes the layers from the outside in:
///
/// 1. [`identify`], so that the errors of every layer inside carry the request's id;
/// 2. [`account::authenticate`], so that nobody claims a key, or has a response replayed, under a
///    token that is no longer good;
/// 3. the idempotency layer, which reads the same request id and the same token;
/// 4. the handlers.
///
/// The paths are whole rather than nested, since nesting strips the prefix that belongs to what a
/// key was used for.
pub(crate) fn router(idempotency: IdempotencyLayer, carrier: Carrier) -> Router {
    let office = Arc::new(Office { book: Book::new(), carrier });
    let v1 = Router::new()
        .route("/v1/calls", post(calls::place).get(calls::list))
        .route(
            "/v1/calls/{id}",
            get(calls::read).put(calls::replace).patch(calls::amend).delete(calls::hang_up),
        )
        .route("/v1/{*path}", any(not_found))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(idempotency)
        .layer(from_fn(account::authenticate))
        .with_state(office);
    Router::new().merge(v1).fallback(not_found).layer(from_fn(identify))
}

/// Gives the request one well-formed id, the client's if that is one, and says it in the response.
async fn identify(mut request: Request, next: Next) -> Response {
    let mut given = request.headers().get_all(X_REQUEST_ID).iter();
    let id: RequestId = match (given.next(), given.next()) {
        (Some(id), None) => id.to_str().ok().and_then(|id| id.parse().ok()),
        _ => None,
    }
    .unwrap_or_else(RequestId::random);
    let value = HeaderValue::from_str(id.as_str()).expect("request ids are header values");
    request.headers_mut().insert(X_REQUEST_ID, value.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_REQUEST_ID, value);
    response
}

async fn not_found() -> Refusal {
    Refusal::not_found("no such route")
}

async fn method_not_allowed() -> Refusal {
    let message = "the route does not take this method";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
