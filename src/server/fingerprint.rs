//! Fingerprints: the parts of a request that a retry must repeat.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use axum::extract::OriginalUri;
use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::request::Parts;
use http::uri::Uri;

use crate::Fingerprint;

use super::authority::authority;

type Custom = Arc<dyn Fn(&Parts, &[u8]) -> Fingerprint + Send + Sync>;

/// Computes fingerprints from method, path and query as sent, body, and the choices made here.
#[derive(Clone, Default)]
pub(crate) struct Fingerprinting {
    pub(crate) headers: Arc<[HeaderName]>,
    pub(crate) authority: bool,
    #[cfg(feature = "canonical-json")]
    pub(crate) canonical_json: bool,
    #[cfg(feature = "forms")]
    pub(crate) forms: bool,
    /// Replaces all other choices.
    pub(crate) custom: Option<Custom>,
}

impl Fingerprinting {
    /// Returns the fingerprint of a request from its head and its whole body.
    pub(crate) fn of(&self, request: &Parts, body: &Bytes) -> Fingerprint {
        if let Some(custom) = &self.custom {
            return custom(request, body);
        }
        #[cfg(any(feature = "canonical-json", feature = "forms"))]
        if let Some((kind, form)) = self.form(request, body) {
            // With its kind, so that no body is the same as another one's form.
            return self.of_parts(request, &[&form, kind.as_bytes()]);
        }
        self.of_parts(request, &[body])
    }

    /// Returns the form of a body and its kind, or `None` if the body counts as its bytes.
    #[cfg(any(feature = "canonical-json", feature = "forms"))]
    fn form(&self, request: &Parts, body: &Bytes) -> Option<(&'static str, Vec<u8>)> {
        let mut asked_for = false;
        #[cfg(feature = "canonical-json")]
        {
            asked_for |= self.canonical_json;
        }
        #[cfg(feature = "forms")]
        {
            asked_for |= self.forms;
        }
        let headers = &request.headers;
        // A body in a coding is not of its media type until it is decoded.
        if !asked_for || headers.contains_key(http::header::CONTENT_ENCODING) {
            return None;
        }
        let media_type = crate::http::media_type(headers);
        #[cfg(feature = "canonical-json")]
        if self.canonical_json
            && (media_type == "application/json" || media_type.ends_with("+json"))
        {
            return super::canonical::canonical(body).map(|form| ("json", form));
        }
        #[cfg(feature = "forms")]
        if self.forms {
            return match &*media_type {
                "application/x-www-form-urlencoded" => super::forms::urlencoded(body),
                "multipart/form-data" => super::forms::multipart(headers, body),
                _ => None,
            }
            .map(|fields| ("form", fields.as_bytes().to_vec()));
        }
        None
    }

    /// Returns true if the fingerprints of two requests say that they are to different endpoints. A
    /// function of the program's says nothing of endpoints.
    pub(super) fn tells_endpoints_apart(&self, one: Fingerprint, other: Fingerprint) -> bool {
        self.custom.is_none() && !one.has_endpoint_of(&other)
    }

    /// Returns the fingerprint over method, target, body, and the chosen parts of the head.
    fn of_parts(&self, request: &Parts, body: &[&[u8]]) -> Fingerprint {
        let uri = uri(request);
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        // The header `Host` would be blind: in HTTP/2 the authority is in the URI alone.
        let authority = (self.authority || self.headers.contains(&HOST))
            .then(|| Cow::Owned(authority(uri, &request.headers)));
        let headers = self.headers.iter().filter(|name| **name != HOST).flat_map(|name| {
            let values = request.headers.get_all(name);
            // Counted, so that no value can stand for the header that follows.
            let count = (values.iter().count() as u64).to_le_bytes();
            let head = [Cow::Borrowed(name.as_str().as_bytes()), Cow::Owned(count.to_vec())];
            head.into_iter().chain(values.iter().map(|value| Cow::Borrowed(value.as_bytes())))
        });
        let body = body.iter().copied().map(Cow::Borrowed);
        let parts = body.chain(authority).chain(headers);
        Fingerprint::of_request(request.method.as_str(), target, parts)
    }
}

/// Returns the URI that the client sent. axum cuts a nested router's prefix off the URI, and keeps
/// the full URI in an extension.
fn uri(request: &Parts) -> &Uri {
    request.extensions.get().map_or(&request.uri, |OriginalUri(uri)| uri)
}

impl fmt::Debug for Fingerprinting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fingerprinting")
            .field("headers", &self.headers)
            .field("authority", &self.authority)
            .field("custom", &self.custom.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn chosen_headers_belong_to_the_fingerprint_and_none_stands_for_another() {
        let names = ["a", "b"].map(|name| HeaderName::try_from(name).unwrap());
        let fingerprinting = Fingerprinting { headers: names.into(), ..Default::default() };
        let of = |headers: &[(&str, &str)]| {
            let head = Request::post("/");
            let head = headers.iter().fold(head, |head, (name, value)| head.header(*name, *value));
            fingerprinting.of(&head.body(()).unwrap().into_parts().0, &Bytes::from("{}"))
        };
        let all: [&[(&str, &str)]; 6] = [
            &[],
            &[("a", "x")],
            &[("b", "x")],
            &[("a", "x"), ("a", "b")],
            &[("a", "x"), ("b", "b")],
            &[("a", "b"), ("a", "x")],
        ];
        for (i, one) in all.iter().enumerate() {
            for other in &all[i + 1..] {
                assert_ne!(of(one), of(other), "{one:?} {other:?}");
            }
        }
        assert_eq!(of(&[("a", "x"), ("c", "1")]), of(&[("a", "x"), ("c", "2")]));
    }

    #[test]
    fn the_authority_counts_where_it_or_the_host_is_asked_for() {
        let head = |target: &str, host: &str| {
            Request::post(target).header(HOST, host).body(()).unwrap().into_parts().0
        };
        let of = |fingerprinting: &Fingerprinting, (target, host)| {
            fingerprinting.of(&head(target, host), &Bytes::new())
        };
        let plain = Fingerprinting::default();
        let asked = Fingerprinting { authority: true, ..Default::default() };
        let by_header = Fingerprinting { headers: [HOST].into(), ..Default::default() };
        let (one, other) = (("http://a.test/", "c.test"), ("http://b.test/", "c.test"));
        assert_eq!(of(&plain, one), of(&plain, other));
        for fingerprinting in [asked, by_header] {
            assert_ne!(of(&fingerprinting, one), of(&fingerprinting, other));
            assert_eq!(of(&fingerprinting, one), of(&fingerprinting, ("/", "A.test:80")));
        }
    }

    /// The bytes of a program's own fingerprints say nothing that the layer could read.
    #[test]
    fn the_layers_own_fingerprints_tell_endpoints_apart_and_those_of_a_function_do_not() {
        let own = Fingerprinting { authority: true, headers: [HOST].into(), ..Default::default() };
        let of = |method: &str, target: &str, body: &'static str| {
            let head = Request::builder().method(method).uri(target).body(()).unwrap();
            let mut head = head.into_parts().0;
            // As axum leaves the URI inside a nested router.
            head.extensions.insert(OriginalUri(head.uri.clone()));
            head.uri = "/".parse().unwrap();
            own.of(&head, &Bytes::from(body))
        };
        let first = of("POST", "http://a.test/v1/calls", "{}");
        let parameters = [
            of("POST", "http://a.test/v1/calls", "[]"),
            of("POST", "http://a.test/v1/calls?dry=1", "{}"),
            of("POST", "http://b.test/v1/calls", "{}"),
        ];
        let endpoints = [
            of("PUT", "http://a.test/v1/calls", "{}"),
            of("POST", "http://a.test/v1/calls/", "{}"),
        ];
        let function: Custom = Arc::new(|_, _| Fingerprint::of(["any"]));
        let custom = Fingerprinting { custom: Some(function), ..Default::default() };
        for (others, is_other) in [(&parameters[..], false), (&endpoints, true)] {
            for other in others {
                assert_ne!(*other, first);
                assert_eq!(own.tells_endpoints_apart(first, *other), is_other);
                assert!(!custom.tells_endpoints_apart(first, *other));
            }
        }
    }

    /// A body that is the form of another one is not that other one.
    #[cfg(feature = "canonical-json")]
    #[test]
    fn a_body_counts_as_json_only_if_its_media_type_says_so_and_it_has_no_coding() {
        let of = |headers: &[(&str, &str)], body: &'static str| {
            let head = Request::post("/");
            let head = headers.iter().fold(head, |head, (name, value)| head.header(*name, *value));
            let fingerprinting = Fingerprinting { canonical_json: true, ..Default::default() };
            fingerprinting.of(&head.body(()).unwrap().into_parts().0, &Bytes::from(body))
        };
        let json = of(&[("content-type", "application/json")], "{\"a\":null}");
        for media_type in ["Application/JSON; charset=utf-8", "application/vnd.calls+Json"] {
            assert_eq!(of(&[("content-type", media_type)], "{ \"a\" : null }"), json);
        }
        assert_ne!(of(&[("content-type", "text/plain")], "{\"a\":null}"), json);
        assert_ne!(of(&[], "{\"a\":null}"), json);
        let coded = [("content-type", "application/json"), ("content-encoding", "x")];
        assert_ne!(of(&coded, "{\"a\":null}"), of(&coded, "{ \"a\":null}"));
    }
}
