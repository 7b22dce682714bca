//! What a request says: its id, and whether and how it is to be done once.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName};
use http::{Method, Request, request};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::key::{Fingerprint, Key, RequestId, Scope};

use super::body::{Body, BoxError, Whole};
use super::envelope::Envelope;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client's request id, if it is given once and well formed and may be trusted, or a new one.
pub(super) fn request_id(headers: &HeaderMap, trusted: bool) -> RequestId {
    let mut given = headers.get_all(REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if trusted => {
            id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or_else(RequestId::random)
        }
        _ => RequestId::random(),
    }
}

/// Whether the request is a mutation with a key.
pub(super) fn is_keyed(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
        && headers.contains_key(IDEMPOTENCY_KEY)
}

/// A request with a key, its body collected.
pub(super) struct Keyed {
    pub(super) scope: Scope,
    pub(super) key: Key,
    pub(super) fingerprint: Fingerprint,
    pub(super) request: Request<Body>,
}

impl Keyed {
    /// Reads scope, key and body. Nothing is claimed before all of it is good.
    pub(super) async fn read<B>(request: Request<B>, max_bytes: usize) -> Result<Self, Envelope>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let scope = scope(&parts.headers).ok_or_else(Envelope::unauthorized)?;
        let key = key(&parts.headers)?;
        if declared_length(&parts.headers).is_some_and(|length| length > max_bytes as u64) {
            return Err(Envelope::body_too_large(max_bytes));
        }
        let collected = Limited::new(body, max_bytes).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Envelope::body_too_large(max_bytes)
            } else {
                Envelope::body_unreadable()
            }
        })?;
        let trailers = collected.trailers().cloned();
        let body = collected.to_bytes();
        let fingerprint = fingerprint(&parts, &body);
        parts.extensions.insert(key.clone());
        let request = Request::from_parts(parts, Whole::new(body, trailers).boxed());
        Ok(Self { scope, key, fingerprint, request })
    }
}

/// Method, path and query as sent, and body.
fn fingerprint(parts: &request::Parts, body: &[u8]) -> Fingerprint {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    Fingerprint::of([parts.method.as_str().as_bytes(), target.as_bytes(), body])
}

/// One `Authorization` header: `Bearer` in any case, spaces, and the token's bytes.
fn scope(headers: &HeaderMap) -> Option<Scope> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let (scheme, rest) = value.as_bytes().split_at_checked("Bearer".len())?;
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let token = &rest[spaces..];
    (scheme.eq_ignore_ascii_case(b"Bearer") && spaces > 0 && !token.is_empty())
        .then(|| Scope::from_api_key(token))
}

fn key(headers: &HeaderMap) -> Result<Key, Envelope> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (given.next(), given.next()) {
        (Some(value), None) => Key::from_header(value.as_bytes()).map_err(Envelope::key_invalid),
        _ => Err(Envelope::key_repeated()),
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn scope_of(values: &[&str]) -> Option<Scope> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        scope(&headers)
    }

    #[test]
    fn the_scope_is_one_bearer_token() {
        let expected = Some(Scope::from_api_key("sk_live"));
        for value in ["Bearer sk_live", "bearer sk_live", "BEARER   sk_live"] {
            assert_eq!(scope_of(&[value]), expected, "{value}");
        }
        for value in ["", "Bearer", "Bearer ", "Bearersk_live", "Basic sk_live", "sk_live"] {
            assert_eq!(scope_of(&[value]), None, "{value}");
        }
        assert_eq!(scope_of(&[]), None);
        assert_ne!(scope_of(&["Bearer \tsk_live"]), expected, "only spaces are skipped");
        assert_eq!(scope_of(&["Bearer sk_live", "Bearer sk_live"]), None);
    }

    #[test]
    fn a_request_id_is_taken_if_it_is_one_and_well_formed() {
        let mut headers = HeaderMap::new();
        let made = |headers: &HeaderMap, trusted| {
            request_id(headers, trusted).as_str().starts_with("req_")
        };
        assert!(made(&headers, true));
        headers.insert(REQUEST_ID, HeaderValue::from_static("mine-1"));
        assert_eq!(request_id(&headers, true).as_str(), "mine-1");
        assert!(made(&headers, false));
        headers.append(REQUEST_ID, HeaderValue::from_static("mine-2"));
        assert!(made(&headers, true));
        headers.insert(REQUEST_ID, HeaderValue::from_static("not mine"));
        assert!(made(&headers, true));
    }
}
