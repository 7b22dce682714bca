//! The heads of requests and answers, between the `http` 0.2 of actix and the `http` 1 of the
//! layer: by their bytes.

use actix_web::body::BodySize;
use actix_web::dev::{RequestHead, ServiceRequest};
use actix_web::http::header as theirs;
use actix_web::{HttpMessage, HttpResponse, http as actix_http, http::ConnectionType};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method, Request, Response, StatusCode, Uri, Version};

use crate::RequestId;
use crate::http::{IDEMPOTENCY_KEY, REQUEST_ID};
use crate::server::Execution;

/// The headers that decide what becomes of a request, before the layer acts on it.
const DECISIVE: [HeaderName; 3] = [CONTENT_TYPE, IDEMPOTENCY_KEY, REQUEST_ID];

/// A part of a head that actix's version of `http` takes and the layer's does not, or the other way
/// round.
#[derive(Debug, thiserror::Error)]
#[error("the {0} has no form in the other version of http")]
pub(super) struct Unlike(&'static str);

/// Returns so much of a request's head as decides whether the layer acts on it.
pub(super) fn decisive(request: &ServiceRequest) -> Result<Request<()>, Unlike> {
    let mut decisive = Request::new(());
    *decisive.method_mut() = method(request.head())?;
    *decisive.version_mut() = version(request.version());
    for name in DECISIVE {
        for value in request.headers().get_all(name.as_str()) {
            append(decisive.headers_mut(), &name, value)?;
        }
    }
    let outer = request.extensions();
    copy::<RequestId>(&outer, decisive.extensions_mut());
    copy::<Execution>(&outer, decisive.extensions_mut());
    Ok(decisive)
}

/// Copies an extension that an outer middleware has set.
pub(super) fn copy<T: Clone + Send + Sync + 'static>(
    from: &actix_web::dev::Extensions,
    to: &mut Extensions,
) {
    if let Some(extension) = from.get::<T>() {
        to.insert(extension.clone());
    }
}

/// Completes a decisive head with the target and all headers of its request.
pub(super) fn complete(head: &mut Request<()>, request: &ServiceRequest) -> Result<(), Unlike> {
    *head.uri_mut() = uri(request.uri())?;
    *head.headers_mut() = headers(request.headers())?;
    Ok(())
}

/// Returns headers with the values of one name in their order.
fn headers(theirs: &theirs::HeaderMap) -> Result<HeaderMap, Unlike> {
    let mut headers = HeaderMap::new();
    for (name, value) in theirs {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        append(&mut headers, &name.map_err(|_| Unlike("name of a header"))?, value)?;
    }
    Ok(headers)
}

fn method(head: &RequestHead) -> Result<Method, Unlike> {
    Method::from_bytes(head.method.as_str().as_bytes()).map_err(|_| Unlike("method"))
}

fn version(version: actix_http::Version) -> Version {
    match version {
        actix_http::Version::HTTP_09 => Version::HTTP_09,
        actix_http::Version::HTTP_10 => Version::HTTP_10,
        actix_http::Version::HTTP_2 => Version::HTTP_2,
        actix_http::Version::HTTP_3 => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}

fn uri(uri: &actix_http::Uri) -> Result<Uri, Unlike> {
    let uri = match (uri.authority(), uri.path_and_query()) {
        (None, Some(target)) => target.as_str().parse(),
        _ => uri.to_string().parse(),
    };
    uri.map_err(|_| Unlike("target"))
}

fn append(
    headers: &mut HeaderMap,
    name: &HeaderName,
    value: &theirs::HeaderValue,
) -> Result<(), Unlike> {
    let value = HeaderValue::from_bytes(value.as_bytes());
    let value = value.map_err(|_| Unlike("value of a header"))?;
    headers.try_append(name, value).map_err(|_| Unlike("number of headers")).map(drop)
}

/// Returns the status and the headers of an answer.
pub(super) fn of_answer<B>(answer: &HttpResponse<B>) -> Result<Response<()>, Unlike> {
    let mut head = Response::new(());
    let status = StatusCode::from_u16(answer.status().as_u16());
    *head.status_mut() = status.map_err(|_| Unlike("status"))?;
    *head.headers_mut() = headers(answer.headers())?;
    Ok(head)
}

/// Returns true if actix sends the `Content-Length` of an answer with a body of this size. To a body
/// whose size it knows it gives that size, and any other it sends in chunks unless told not to.
pub(super) fn sends_length<B>(answer: &HttpResponse<B>, size: BodySize) -> bool {
    let is_unchunked = size == BodySize::Stream && !answer.head().chunked();
    is_unchunked || answer.status() == actix_http::StatusCode::NOT_MODIFIED
}

/// Returns an answer of actix with this head.
pub(super) fn to_answer(head: &http::response::Parts) -> Result<HttpResponse<()>, Unlike> {
    let mut answer = HttpResponse::Ok().finish().drop_body();
    replace(&mut answer, head)?;
    Ok(answer)
}

/// Gives an answer of actix this status and these headers, and no others.
pub(super) fn replace<B>(
    answer: &mut HttpResponse<B>,
    head: &http::response::Parts,
) -> Result<(), Unlike> {
    let status = actix_http::StatusCode::from_u16(head.status.as_u16());
    *answer.status_mut() = status.map_err(|_| Unlike("status"))?;
    let headers = answer.headers_mut();
    headers.clear();
    for (name, value) in &head.headers {
        let name = theirs::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = theirs::HeaderValue::from_bytes(value.as_bytes());
        headers.append(
            name.map_err(|_| Unlike("name of a header"))?,
            value.map_err(|_| Unlike("value of a header"))?,
        );
    }
    // Actix sends no header of this name, but what the head says of the connection.
    if head.headers.get(CONNECTION).is_some_and(|value| value == "close") {
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(())
}
