//! The options of a layer that say which requests are the same.

use std::sync::Arc;

use http::header::HeaderName;
use http::request::Parts;

use crate::Fingerprint;

use super::IdempotencyLayer;

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
    /// the same name does, and so does that of fields which readers may combine: those of a list of
    /// groups, such as `calls[][to]` and `calls[][from]`, and `amount` beside `amount[value]`.
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
