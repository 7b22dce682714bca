//! Fingerprints: the parts of a request that a retry must repeat.

use std::fmt;
use std::sync::Arc;

use axum::extract::OriginalUri;
use http::HeaderName;
use http::request::Parts;

use crate::Fingerprint;

type Custom = Arc<dyn Fn(&Parts, &[u8]) -> Fingerprint + Send + Sync>;

/// Computes fingerprints from method, path and query as sent, body, and the choices made here.
#[derive(Clone, Default)]
pub(crate) struct Fingerprinting {
    pub(crate) headers: Arc<[HeaderName]>,
    #[cfg(feature = "canonical-json")]
    pub(crate) canonical_json: bool,
    /// Replaces all other choices.
    pub(crate) custom: Option<Custom>,
}

impl Fingerprinting {
    /// Returns the fingerprint of a request from its head and its whole body.
    pub(crate) fn of(&self, request: &Parts, body: &[u8]) -> Fingerprint {
        if let Some(custom) = &self.custom {
            return custom(request, body);
        }
        #[cfg(feature = "canonical-json")]
        if self.canonical_json
            && let Some(canonical) = super::canonical::canonical(request, body)
        {
            return self.of_parts(request, &canonical);
        }
        self.of_parts(request, body)
    }

    /// Returns the fingerprint over method, target, body, and the chosen headers with their counts.
    fn of_parts(&self, request: &Parts, body: &[u8]) -> Fingerprint {
        let mut parts: Vec<&[u8]> =
            vec![request.method.as_str().as_bytes(), target(request).as_bytes(), body];
        let counts: Vec<[u8; 8]> = self
            .headers
            .iter()
            .map(|name| (request.headers.get_all(name).iter().count() as u64).to_le_bytes())
            .collect();
        for (name, count) in self.headers.iter().zip(&counts) {
            // Counted, so that no value can stand for the header that follows.
            parts.extend([name.as_str().as_bytes(), count]);
            parts.extend(request.headers.get_all(name).iter().map(|value| value.as_bytes()));
        }
        Fingerprint::of(parts)
    }
}

/// Returns the path and query that the client sent. axum cuts a nested router's prefix off the URI,
/// and keeps the full URI in an extension.
fn target(request: &Parts) -> &str {
    let uri = request.extensions.get().map_or(&request.uri, |OriginalUri(uri)| uri);
    uri.path_and_query().map_or("", |target| target.as_str())
}

impl fmt::Debug for Fingerprinting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fingerprinting")
            .field("headers", &self.headers)
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
            fingerprinting.of(&head.body(()).unwrap().into_parts().0, b"{}")
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
}
