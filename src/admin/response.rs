//! A stored response as a document.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, StatusCode};
use serde::{Deserialize, Serialize};

use crate::Record;
use crate::record::Trailers;

use super::blob::Blob;
use super::refusal::{Code, Refusal};

/// A stored response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names and values, in the order of the response.
    #[serde(default)]
    pub headers: Vec<(String, Blob)>,
    /// Names and values behind the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, Blob)>,
    /// The body.
    #[serde(default)]
    pub body: Blob,
}

impl From<&http::Response<Bytes>> for Response {
    fn from(response: &http::Response<Bytes>) -> Self {
        let trailers = response.extensions().get::<Trailers>();
        Self {
            status: response.status().as_u16(),
            headers: pairs(response.headers()),
            trailers: trailers.map_or_else(Vec::new, |Trailers(map)| pairs(map)),
            body: Blob(response.body().clone()),
        }
    }
}

impl Response {
    /// Returns the response that this describes.
    ///
    /// # Errors
    ///
    /// [`Code::BadRequest`] if it is not one, or if a record could not hold it.
    pub(super) fn to_http(&self) -> Result<http::Response<Bytes>, Refusal> {
        let refused = |reason: &str| Refusal::new(Code::BadRequest, reason);
        let mut response = http::Response::new(self.body.0.clone());
        *response.status_mut() = StatusCode::from_u16(self.status)
            .map_err(|_| refused("the status is not one of HTTP"))?;
        if !self.is_one_of_http(response.status()) {
            return Err(refused("a response with this status is not one that a client can get"));
        }
        *response.headers_mut() =
            map(&self.headers).ok_or_else(|| refused("a header is not one of HTTP"))?;
        let trailers =
            map(&self.trailers).ok_or_else(|| refused("a trailer is not one of HTTP"))?;
        if !trailers.is_empty() {
            let mut extensions = Extensions::new();
            extensions.insert(Trailers(trailers));
            *response.extensions_mut() = extensions;
        }
        Ok(response)
    }

    /// Returns true if a client can get this as the answer to a request.
    fn is_one_of_http(&self, status: StatusCode) -> bool {
        let has_no_body = matches!(status.as_u16(), 204 | 205 | 304);
        (200..600).contains(&self.status) && (self.body.0.is_empty() || !has_no_body)
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, Blob)> {
    let blob = |value: &HeaderValue| Blob(Bytes::copy_from_slice(value.as_bytes()));
    headers.iter().map(|(name, value)| (name.to_string(), blob(value))).collect()
}

fn map(pairs: &[(String, Blob)]) -> Option<HeaderMap> {
    // A map of more than 32,768 headers would panic.
    if pairs.len() > Record::MAX_HEADERS {
        return None;
    }
    let mut map = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let name: HeaderName = name.parse().ok()?;
        map.append(name, HeaderValue::from_bytes(&value.0).ok()?);
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_survives_its_document() {
        let mut response = http::Response::builder()
            .status(201)
            .header("set-cookie", "a")
            .header("set-cookie", "b")
            .body(Bytes::from_static(&[0xff]))
            .unwrap();
        let trailers = Trailers(response.headers().clone());
        response.extensions_mut().insert(trailers);
        let json = serde_json::to_string(&Response::from(&response)).unwrap();
        let read = serde_json::from_str::<Response>(&json).unwrap().to_http().unwrap();
        assert_eq!(read.status(), response.status());
        assert_eq!(read.headers(), response.headers());
        assert_eq!(read.body(), response.body());
        assert_eq!(
            read.extensions().get::<Trailers>().unwrap().0,
            response.extensions().get::<Trailers>().unwrap().0
        );
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for json in [
            r#"{"status": 99}"#,
            r#"{"status": 101}"#,
            r#"{"status": 204, "body": "x"}"#,
            r#"{"status": 999}"#,
            r#"{"status": 200, "headers": [["a b", "c"]]}"#,
            r#"{"status": 200, "headers": [["a", "b\nc"]]}"#,
            r#"{"status": 200, "trailers": [["", "c"]]}"#,
        ] {
            let read: Response = serde_json::from_str(json).unwrap();
            assert_eq!(read.to_http().unwrap_err().code, Code::BadRequest, "{json}");
        }
        let many = Response {
            headers: vec![("a".into(), Blob::default()); Record::MAX_HEADERS + 1],
            ..serde_json::from_str(r#"{"status": 200}"#).unwrap()
        };
        assert_eq!(many.to_http().unwrap_err().code, Code::BadRequest);
    }
}
