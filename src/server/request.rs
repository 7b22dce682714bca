//! The reading of a request: its id, its key, and its body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http::header::HeaderMap;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::{AnyBody, IDEMPOTENCY_KEY, REQUEST_ID, Repeated, Whole, only};
use crate::{Key, Operation, RequestId, Scope};

use super::budget::Share;
use super::dialect::{Dialect, Reason};
use super::options::LayerOptions;
use super::unread::Refused;

/// Returns the request id that a client sent in `x-request-id`, or a new id if the header is
/// missing, repeated or malformed.
///
/// A layer outside this one, whose answers should carry the same id, can put the id into the
/// request's extensions: [`Idempotent`](super::Idempotent) takes it from there.
pub fn request_id(headers: &HeaderMap) -> RequestId {
    if !headers.contains_key(&REQUEST_ID) {
        return RequestId::random();
    }
    let given = only(headers, &REQUEST_ID).ok().flatten();
    let given = given.and_then(|id| id.to_str().ok()?.parse().ok());
    given.unwrap_or_else(RequestId::random)
}

/// Reads the key from the headers, in the words of a dialect.
///
/// # Errors
///
/// [`Reason::KeyMissing`], [`Reason::KeyInvalid`] or [`Reason::KeyRepeated`].
pub(super) fn key(headers: &HeaderMap, dialect: &dyn Dialect) -> Result<Key, Reason> {
    match only(headers, &IDEMPOTENCY_KEY) {
        Ok(Some(value)) => dialect.parse_key(value.as_bytes()).map_err(Reason::KeyInvalid),
        Ok(None) => Err(Reason::KeyMissing),
        Err(Repeated) => Err(Reason::KeyRepeated),
    }
}

/// A request with a key that was read to its end.
pub(super) struct Asked {
    pub(super) head: Parts,
    body: Held,
    pub(super) scope: Scope,
}

impl Asked {
    /// Reads the scope and the body of a request with a key, and returns the operation that it asks
    /// for. No key is claimed before the body is complete.
    ///
    /// # Errors
    ///
    /// [`Reason::Unauthorized`], a [`Reason`] whose name begins with `Body` if the body is too large,
    /// too slow or broken, and [`Reason::Unavailable`] or [`Reason::TooManyRequests`] if the memory
    /// budget is used up.
    pub(super) async fn read<B: AnyBody>(
        request: Request<B>,
        (key, id): (Key, RequestId),
        options: &LayerOptions,
    ) -> Result<(Operation, Self), Refused> {
        let (head, body) = request.into_parts();
        let scope = match (options.scope)(&head) {
            Ok(scope) => scope,
            Err(expected) => {
                let reason = Reason::Unauthorized { expected };
                return Err(Refused::unread_parts(reason, &head.headers, body));
            }
        };
        let (whole, share) = options.collector.collect(scope, &head.headers, body).await?;
        let fingerprint = options.fingerprinting.of(&head, &whole.data);
        let mut operation = Operation::new(scope, key, fingerprint).request_id(id);
        if let Some(ttl) = options.ttl {
            operation = operation.ttl(ttl);
        }
        if options.is_durable() {
            operation = operation.durable();
        }
        let body = Held { whole, _share: share };
        Ok((operation, Self { head, body, scope }))
    }

    /// Returns the request, for the handler.
    pub(super) fn into_request(self) -> Request<Body> {
        Request::from_parts(self.head, Body::new(self.body))
    }
}

/// A body that was read, and its share of the memory budget.
struct Held {
    whole: Whole,
    _share: Share,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.whole).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.whole.size_hint()
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
