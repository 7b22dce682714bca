//! What a request says: its id, whose key it has, and what the key is for.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Request};
use http_body::Body as HttpBody;

use crate::key::{Key, RequestId, Scope};
use crate::operation::Operation;

use super::Options;
use super::body::{Body, BoxError};
use super::collect::Uncollected;
use super::dialect::{Dialect, Reason};
use super::memory::OutOfMemory;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request id that a client sent in `x-request-id`, once and well formed, or a new one.
///
/// For a layer outside this one, whose answers should carry it too: put it into the request's
/// extensions, where [`Idempotent`](super::Idempotent) takes it from.
pub fn request_id(headers: &HeaderMap) -> RequestId {
    let mut given = headers.get_all(REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) => {
            id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or_else(RequestId::random)
        }
        _ => RequestId::random(),
    }
}

pub(super) fn is_mutation(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
}

pub(super) fn key(headers: &HeaderMap, dialect: &dyn Dialect) -> Result<Key, Reason> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (given.next(), given.next()) {
        (Some(value), None) => dialect.parse_key(value.as_bytes()).map_err(Reason::KeyInvalid),
        (None, _) => Err(Reason::KeyMissing),
        _ => Err(Reason::KeyRepeated),
    }
}

/// A request with a key, its body collected, and what it asks to be done once.
pub(super) struct Keyed {
    pub(super) operation: Operation,
    pub(super) request: Request<Body>,
}

impl Keyed {
    /// Reads the body. Nothing is claimed before all of it is there.
    pub(super) async fn collect<B>(
        (parts, body): (Parts, B),
        (scope, key, id): (Scope, Key, RequestId),
        options: &Options,
    ) -> Result<Self, Reason>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let max = options.collector.max_bytes;
        let body = options.collector.collect(scope, &parts.headers, body).await;
        let body = body.map_err(|why| match why {
            Uncollected::TooLarge => Reason::BodyTooLarge { max },
            Uncollected::TooSlow => Reason::BodyTooSlow,
            Uncollected::OutOfMemory(OutOfMemory::All) => Reason::Unavailable,
            Uncollected::OutOfMemory(OutOfMemory::Scope) => Reason::TooManyRequests,
            Uncollected::Broken => Reason::BodyUnreadable,
        })?;
        let fingerprint = options.fingerprinting.of(&parts, body.data());
        let mut operation = Operation::new(scope, key, fingerprint).request_id(id);
        if let Some(ttl) = options.ttl {
            operation = operation.ttl(ttl);
        }
        if options.is_durable() {
            operation = operation.durable();
        }
        Ok(Self { operation, request: Request::from_parts(parts, body.boxed()) })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_id_is_taken_if_it_is_one_and_well_formed() {
        let mut headers = HeaderMap::new();
        let is_made = |headers: &HeaderMap| request_id(headers).as_str().starts_with("req_");
        assert!(is_made(&headers));
        headers.insert(REQUEST_ID, HeaderValue::from_static("mine-1"));
        assert_eq!(request_id(&headers).as_str(), "mine-1");
        headers.append(REQUEST_ID, HeaderValue::from_static("mine-2"));
        assert!(is_made(&headers));
        headers.insert(REQUEST_ID, HeaderValue::from_static("not mine"));
        assert!(is_made(&headers));
    }
}
