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

/// Returns the media type of `Content-Type` in lower case, without its parameters; empty without
/// the header.
#[cfg(any(feature = "canonical-json", feature = "client", feature = "forms", test))]
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    String::from_utf8_lossy(sent_media_type(headers)).to_ascii_lowercase()
}

/// Returns whether `Content-Type` is this media type, in any case and with any parameters.
pub(crate) fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    sent_media_type(headers).eq_ignore_ascii_case(media_type.as_bytes())
}

/// Returns whether a message is gRPC: `application/grpc`, also with a suffix such as `+proto`.
/// gRPC-Web is not.
#[cfg(feature = "server")]
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    const SUBTYPE: usize = "application/".len();
    let value = headers.get(CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes().trim_ascii());
    // Most are `application/json`, and end here.
    let has_subtype = |value: &[u8]| value[SUBTYPE..].eq_ignore_ascii_case(&GRPC[SUBTYPE..]);
    if !value.get(..GRPC.len()).is_some_and(has_subtype) {
        return false;
    }
    sent_media_type(headers).split_at_checked(GRPC.len()).is_some_and(|(media_type, suffix)| {
        media_type.eq_ignore_ascii_case(GRPC) && (suffix.is_empty() || suffix.starts_with(b"+"))
    })
}

fn sent_media_type(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    #[test]
    fn the_case_and_the_parameters_of_a_media_type_do_not_matter() {
        for content_type in ["text/plain", "Text/PLAIN", " text/plain ; charset=utf-8"] {
            assert_eq!(media_type(&typed(content_type)), "text/plain", "{content_type}");
        }
        assert_eq!(media_type(&HeaderMap::new()), "");
    }

    #[cfg(feature = "server")]
    #[test]
    fn grpc_is_told_by_its_whole_media_type() {
        for content_type in [
            "application/grpc",
            "Application/gRPC",
            "application/grpc+proto",
            "application/grpc;v=1",
        ] {
            assert!(is_grpc(&typed(content_type)), "{content_type}");
        }
        for content_type in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpcx",
            "text/plain",
        ] {
            assert!(!is_grpc(&typed(content_type)), "{content_type}");
        }
    }
}
