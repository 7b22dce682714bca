//! Header names that both layers use, and the reading of header values.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks a replay in the contract's dialect.
pub(crate) const IDEMPOTENCY_REPLAY: HeaderName = HeaderName::from_static("idempotency-replay");
/// Marks a replay in Stripe's dialect.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Tells Stripe's clients whether to retry, where the status would mislead them.
pub(crate) const STRIPE_SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
#[cfg(feature = "server")]
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
#[cfg(feature = "server")]
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A header that may be sent once was sent more than once.
#[derive(Debug)]
pub(crate) struct Repeated;

/// Returns the value of a header that may be sent once, or `None` without the header.
pub(crate) fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Repeated),
    }
}

/// Returns the media type of `Content-Type` without its parameters, in the case that was sent;
/// empty without the header.
pub(crate) fn media_type(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}
