//! The routes, and the order of the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use refrain::Store;
use refrain::server::{IdempotencyLayer, request_id, scope};

use crate::account;
use crate::book::Book;
use crate::calls::{self, Office};
use crate::carrier::Carrier;
use crate::manner::{Manner, speak};
use crate::readiness;
use crate::refusal::Refusal;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest body of a request without an idempotency key; with one the layer has the same limit.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The whole application.
///
/// A request reaches the layers from the outside in:
///
/// 1. [`identify`], so that the errors of every layer inside carry the request's id;
/// 2. [`account::authenticate`], so that nobody claims a key, or has a response replayed, under a
///    token that is no longer valid;
/// 3. the idempotency layer, which takes that id and that account;
/// 4. the handlers.
///
/// `/readyz` is outside of them all, for a load balancer.
pub(crate) fn router(
    idempotency: IdempotencyLayer,
    store: Store,
    carrier: Carrier,
    manner: Manner,
) -> Router {
    let office = Arc::new(Office { book: Book::new(), carrier, manner });
    let idempotency = manner.configure(idempotency.scope(scope::extension));
    let speaking = from_fn_with_state(manner, speak);
    let v1 = Router::new()
        .route("/calls", post(calls::place).get(calls::list))
        .route(
            "/calls/{id}",
            get(calls::read).put(calls::replace).patch(calls::amend).delete(calls::hang_up),
        )
        .route("/{*path}", any(not_found))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(speaking.clone())
        .layer(idempotency)
        .layer(from_fn_with_state(manner, account::authenticate))
        .with_state(office);
    let app = Router::new().nest("/v1", v1).fallback(not_found);
    let app = app.layer(from_fn(identify)).layer(speaking);
    app.route("/readyz", get(readiness::ready).with_state(store))
}

/// Gives the request an id, and adds the id to the response.
async fn identify(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let value = HeaderValue::from_str(id.as_str()).expect("request ids are header values");
    request.extensions_mut().insert(id);
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
