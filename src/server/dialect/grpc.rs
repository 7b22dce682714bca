//! Refusals in gRPC's terms: a status in the headers, and no message.

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use crate::http::GRPC_STATUS;

use super::{Dialect, Reason, Refusal};

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// From gRPC's proposal A6: the delay before an automatic retry, or -1 to forbid it.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const ERROR: HeaderName = HeaderName::from_static("idempotency-error");
const OTHER_REQUEST: HeaderName = HeaderName::from_static("idempotency-other-request-id");

/// The dialect for requests of type `application/grpc`.
#[derive(Debug)]
pub(crate) struct Grpc;

impl Dialect for Grpc {
    fn refuse(&self, refusal: &Refusal) -> Response<Bytes> {
        let reason = &refusal.reason;
        let text = |text: &str| HeaderValue::from_str(text).expect("it is visible ASCII");
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(status(reason)));
        headers.insert(GRPC_MESSAGE, text(&reason.to_string()));
        headers.insert(ERROR, HeaderValue::from_static(reason.code()));
        if let Some((_, request_id)) = reason.other_request() {
            headers.insert(OTHER_REQUEST, text(request_id.as_str()));
        }
        let pushback = match reason.retry_after() {
            Some(delay) => text(&delay.as_millis().to_string()),
            None => HeaderValue::from_static("-1"),
        };
        headers.insert(PUSHBACK, pushback);
        response
    }
}

/// Returns one of gRPC's status codes.
fn status(reason: &Reason) -> u16 {
    const UNKNOWN: u16 = 2;
    const INVALID_ARGUMENT: u16 = 3;
    const DEADLINE_EXCEEDED: u16 = 4;
    const ALREADY_EXISTS: u16 = 6;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const FAILED_PRECONDITION: u16 = 9;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const DATA_LOSS: u16 = 15;
    const UNAUTHENTICATED: u16 = 16;
    match reason {
        Reason::KeyMissing
        | Reason::KeyInvalid(_)
        | Reason::KeyRepeated
        | Reason::BodyUnreadable => INVALID_ARGUMENT,
        Reason::BodyTooSlow => DEADLINE_EXCEEDED,
        Reason::ResultUnavailable { .. } => ALREADY_EXISTS,
        Reason::Forbidden => PERMISSION_DENIED,
        Reason::BodyTooLarge { .. } | Reason::TooManyRequests => RESOURCE_EXHAUSTED,
        Reason::Conflict { .. } => FAILED_PRECONDITION,
        Reason::Interrupted { .. } | Reason::OutcomeUnknown => UNKNOWN,
        Reason::InProgress { .. } | Reason::Unavailable => UNAVAILABLE,
        Reason::RecordDamaged => DATA_LOSS,
        Reason::Panicked | Reason::Misused(_) => INTERNAL,
        Reason::Unauthorized { .. } => UNAUTHENTICATED,
    }
}
