//! The content of a request, as a digest.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::digest::{InvalidDigest, read_hex, write_hex};

/// The content of the request that a key was used for, as a SHA-256.
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
    /// Returns the fingerprint of the parts of a request: usually method, path with query, and
    /// body.
    pub fn of<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            let part = part.as_ref();
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
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
    fn a_fingerprint_survives_its_hexadecimal_form() {
        let fingerprint = Fingerprint::of(["POST"]);
        assert_eq!(fingerprint.to_string().to_uppercase().parse(), Ok(fingerprint));
    }
}
