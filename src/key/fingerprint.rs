//! The content of a request, as a digest.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::digest::{InvalidDigest, read_hex, write_hex};

/// The bytes of a fingerprint that tell its endpoint.
const ENDPOINT_BYTES: usize = 8;

/// The content of the request that a key was used for, as a digest.
///
/// The digest covers a list of parts, each with its length in front, so different lists never give
/// the same bytes. A retry must have the same fingerprint; another one under the same key is a
/// conflict.
///
/// ```
/// use refrain::Fingerprint;
///
/// let call = Fingerprint::of(["POST", "/v1/calls", "{}"]);
/// assert_eq!(call, Fingerprint::of(["POST", "/v1/calls", "{}"]));
/// assert_ne!(call, Fingerprint::of(["POST", "/v1/calls{}", ""]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the fingerprint of any parts: their SHA-256, each with its length (8 bytes, little
    /// endian) in front.
    pub fn of<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            add(&mut digest, part.as_ref());
        }
        Self(digest.finalize().into())
    }

    /// Returns the fingerprint of an HTTP request, as the server layer does: of the method, the
    /// target, which is path and query as sent, and the other parts that count, usually the body
    /// alone.
    ///
    /// It tells the request's endpoint, which is method and path: the first 8 bytes are those of
    /// `of([method, path])`. The other 24 are the first of `of([method, path, query, ...parts])`,
    /// where the query is empty or begins with its `?`.
    ///
    /// ```
    /// use refrain::Fingerprint;
    ///
    /// let [call, dry] = ["/v1/calls", "/v1/calls?dry=1"]
    ///     .map(|target| Fingerprint::of_request("POST", target, ["{}"]));
    /// assert!(call != dry && call.has_endpoint_of(&dry));
    /// assert!(!call.has_endpoint_of(&Fingerprint::of_request("POST", "/v1/texts", ["{}"])));
    /// ```
    pub fn of_request<P: AsRef<[u8]>>(
        method: &str,
        target: &str,
        parts: impl IntoIterator<Item = P>,
    ) -> Self {
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let mut digest = Sha256::new();
        add(&mut digest, method.as_bytes());
        add(&mut digest, path.as_bytes());
        let endpoint = digest.clone().finalize();
        add(&mut digest, query.as_bytes());
        for part in parts {
            add(&mut digest, part.as_ref());
        }
        let mut bytes: [u8; 32] = digest.finalize().into();
        bytes.copy_within(..32 - ENDPOINT_BYTES, ENDPOINT_BYTES);
        bytes[..ENDPOINT_BYTES].copy_from_slice(&endpoint[..ENDPOINT_BYTES]);
        Self(bytes)
    }

    /// Returns true if both are of requests to the same endpoint. Only fingerprints of
    /// [`of_request`](Self::of_request) tell.
    pub fn has_endpoint_of(&self, other: &Self) -> bool {
        self.0[..ENDPOINT_BYTES] == other.0[..ENDPOINT_BYTES]
    }

    /// Restores a fingerprint from the bytes that [`as_bytes`](Self::as_bytes) gave.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the digest, for a column of a database.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Adds a part with its length in front, so that no part can stand for another one's beginning.
fn add(digest: &mut Sha256, part: &[u8]) {
    digest.update((part.len() as u64).to_le_bytes());
    digest.update(part);
}

/// Prints 64 lower-case hexadecimal digits, which [`FromStr`] reads back.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// Parses 64 hexadecimal digits, in either case.
impl FromStr for Fingerprint {
    type Err = InvalidDigest;

    fn from_str(hex: &str) -> Result<Self, InvalidDigest> {
        read_hex(hex).map(Self)
    }
}

/// Prints the first eight hexadecimal digits.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Fingerprint({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_of_different_part_lists_differ() {
        let parts: [&[&str]; 5] = [
            &["POST", "/a", ""],
            &["POST", "/a?"],
            &["POST/a"],
            &["POST", "/a"],
            &["", "POST", "/a"],
        ];
        for (i, a) in parts.iter().enumerate() {
            for b in &parts[i + 1..] {
                assert_ne!(Fingerprint::of(*a), Fingerprint::of(*b), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn fingerprints_of_different_requests_differ_and_tell_their_endpoints() {
        let requests: [(&str, &str, &[&str]); 9] = [
            ("POST", "/a", &["x"]),
            ("POST", "/a", &["y"]),
            ("POST", "/a", &["x", ""]),
            ("POST", "/a", &[]),
            ("POST", "/a?", &["x"]),
            ("POST", "/a?b", &["x"]),
            ("PUT", "/a", &["x"]),
            ("POST", "/a/b", &["x"]),
            ("POS", "T/a", &["x"]),
        ];
        let path = |target: &'static str| target.split('?').next();
        for (i, a) in requests.iter().enumerate() {
            for b in &requests[i + 1..] {
                let [one, other] = [a, b].map(|(method, target, parts)| {
                    Fingerprint::of_request(method, target, parts.iter())
                });
                assert_ne!(one, other, "{a:?} {b:?}");
                let is_same = (a.0, path(a.1)) == (b.0, path(b.1));
                assert_eq!(one.has_endpoint_of(&other), is_same, "{a:?} {b:?}");
            }
        }
    }

    /// Stores have them, and other programs compute them.
    #[test]
    fn a_requests_fingerprint_is_the_heads_of_two_digests() {
        let one = Fingerprint::of_request("POST", "/v1/calls?dry=1", ["{}"]);
        let endpoint = Fingerprint::of(["POST", "/v1/calls"]);
        let whole = Fingerprint::of(["POST", "/v1/calls", "?dry=1", "{}"]);
        assert_eq!(one.as_bytes()[..8], endpoint.as_bytes()[..8]);
        assert_eq!(one.as_bytes()[8..], whole.as_bytes()[..24]);
    }

    #[test]
    fn a_fingerprint_survives_its_hexadecimal_form() {
        let fingerprint = Fingerprint::of(["POST"]);
        assert_eq!(fingerprint.to_string().to_uppercase().parse(), Ok(fingerprint));
    }
}
