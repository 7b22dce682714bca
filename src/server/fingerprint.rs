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

use super::IdempotencyLayer;
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

/// The parts of a request that count; `docs/http.md` compares the options.
impl IdempotencyLayer {
    /// Adds the values of request headers to the fingerprint, besides method, path, query and body;
    /// none by default.
    ///
    /// A retry must repeat these values, or it is a conflict. `Host` stands for the
    /// [authority](Self::fingerprint_authority).
    pub fn fingerprint_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.options.fingerprinting.headers = names.into_iter().collect();
        self
    }

    /// Sets whether the authority, the host and port that a request is for, is part of the
    /// fingerprint; `false` by default. It is for servers that tell tenants apart by their hosts.
    ///
    /// The authority is that of the URI, as in HTTP/2, or else the value of `Host`. Case does not
    /// matter, and port 80 and port 443 count as no port.
    pub fn fingerprint_authority(mut self, counts: bool) -> Self {
        self.options.fingerprinting.authority = counts;
        self
    }

    /// Sets whether JSON bodies are compared by their values, so that the order of members, white
    /// space and spelling do not matter; `false` by default.
    ///
    /// A JSON body has the media type `application/json`, or one that ends with `+json`. Numbers
    /// are compared as decimals of any length: `1`, `1.0` and `10e-1` are equal,
    /// `100.000000000000001` and `100.000000000000002` are not, nor are `0` and `-0`.
    ///
    /// Any other body is compared byte for byte, and so is JSON that readers may take for different
    /// values: an object that repeats a name, a lone surrogate, an exponent outside `i64`, or
    /// more than 127 levels.
    #[cfg(feature = "canonical-json")]
    #[cfg_attr(docsrs, doc(cfg(feature = "canonical-json")))]
    pub fn fingerprint_canonical_json(mut self, canonical: bool) -> Self {
        self.options.fingerprinting.canonical_json = canonical;
        self
    }

    /// Sets whether HTML forms are compared by their fields; `false` by default. Then the boundary
    /// of a `multipart/form-data` body does not matter, nor the spelling of an
    /// `application/x-www-form-urlencoded` one.
    ///
    /// The order of fields with different names does not matter either. The order of fields with
    /// the same name does, and so does the order of all fields of a list of groups, such as
    /// `calls[][to]` and `calls[][from]`.
    ///
    /// A body is compared byte for byte if it is no such form, or if readers disagree on it: a
    /// urlencoded field without `=`, a broken escape, text that is not UTF-8, a part without a name,
    /// or text in front of the first part or behind the last one.
    #[cfg(feature = "forms")]
    #[cfg_attr(docsrs, doc(cfg(feature = "forms")))]
    pub fn fingerprint_forms(mut self, by_fields: bool) -> Self {
        self.options.fingerprinting.forms = by_fields;
        self
    }

    /// Sets a function that computes the fingerprint from the request's head and its whole body, in
    /// place of the other fingerprint options.
    ///
    /// Requests with equal fingerprints count as the same request.
    pub fn fingerprint_by(
        mut self,
        fingerprint: impl Fn(&Parts, &[u8]) -> Fingerprint + Send + Sync + 'static,
    ) -> Self {
        self.options.fingerprinting.custom = Some(Arc::new(fingerprint));
        self
    }
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

    /// Returns what a body says, with the kind of the form that says it, or `None` if the body
    /// counts as its bytes.
    #[cfg(any(feature = "canonical-json", feature = "forms"))]
    fn form(&self, request: &Parts, body: &Bytes) -> Option<(&'static str, Vec<u8>)> {
        let headers = &request.headers;
        // A body in a coding is not of its media type until it is decoded.
        if headers.contains_key(http::header::CONTENT_ENCODING) {
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

    /// Returns the fingerprint over method, target, body, and the chosen parts of the head.
    fn of_parts(&self, request: &Parts, body: &[&[u8]]) -> Fingerprint {
        let uri = uri(request);
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let mut parts: Vec<Cow<'_, [u8]>> =
            vec![request.method.as_str().as_bytes().into(), target.as_bytes().into()];
        parts.extend(body.iter().copied().map(Cow::from));
        // The header `Host` would be blind: in HTTP/2 the authority is in the URI alone.
        if self.authority || self.headers.contains(&HOST) {
            parts.push(authority(uri, &request.headers).into());
        }
        for name in self.headers.iter().filter(|name| **name != HOST) {
            let values = request.headers.get_all(name);
            // Counted, so that no value can stand for the header that follows.
            let count = (values.iter().count() as u64).to_le_bytes();
            parts.extend([name.as_str().as_bytes().into(), count.to_vec().into()]);
            parts.extend(values.iter().map(|value| value.as_bytes().into()));
        }
        Fingerprint::of(parts)
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
