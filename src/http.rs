//! The code that the layers for servers and for clients share: one body type, one reader of bodies,
//! one table of refusals, and one reading of methods and headers.

use http::header::HeaderMap;
use http::{Method, StatusCode};

mod body;
mod headers;
mod reader;
mod refusals;

pub use body::BoxError;
pub(crate) use body::{AnyBody, Whole};
#[cfg(feature = "client")]
pub use body::{Body, BodyError};
#[cfg(any(feature = "canonical-json", feature = "client", feature = "forms"))]
pub(crate) use headers::media_type;
#[cfg(feature = "server")]
pub(crate) use headers::{GRPC_STATUS, REQUEST_ID, is_grpc};
pub(crate) use headers::{
    IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAY, IDEMPOTENT_REPLAYED, Repeated, STRIPE_SHOULD_RETRY,
    has_media_type, only,
};
pub(crate) use reader::BodyReader;
#[cfg(feature = "client")]
pub(crate) use reader::Unread;
#[cfg(feature = "client")]
pub(crate) use refusals::Meaning;
pub(crate) use refusals::Named;

/// Returns an error and its sources.
#[cfg(feature = "server")]
pub(crate) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Returns whether requests with this method carry an idempotency key.
pub(crate) fn is_mutation(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
}

/// Returns whether a response is an endless stream by its head, so that no time limit would let it
/// be collected: server-sent events, or a connection that changes its protocol.
pub(crate) fn is_stream(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || has_media_type(headers, "text/event-stream")
}
