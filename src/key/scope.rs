//! The owner of a key.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::digest::{InvalidDigest, read_hex, write_hex};

/// Whose key it is: the SHA-256 of an API key, or of another principal's name.
///
/// A record is visible in its own scope only. The API key itself is neither kept nor printed.
///
/// ```
/// use refrain::Scope;
///
/// let scope = Scope::from_api_key("sk_live_51");
/// assert_ne!(scope, Scope::from_api_key("sk_live_52"));
/// assert_ne!(scope, Scope::new("sk_live_51"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope([u8; 32]);

impl Scope {
    /// The scope of an API key. Keys of at least 128 random bits are safe to store as a plain
    /// SHA-256; hand over a keyed hash by [`new`](Self::new) where they are guessable.
    pub fn from_api_key(api_key: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(api_key).into())
    }

    /// The scope of any other principal: a tenant, a user, an account. Distinct from the scope of
    /// an API key of the same bytes.
    pub fn new(principal: impl AsRef<[u8]>) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"refrain principal\0");
        hasher.update(principal);
        Self(hasher.finalize().into())
    }

    /// The scope of a principal with a number: the primary key of a tenant or of a user. Distinct
    /// from the scope of the same number as text.
    ///
    /// ```
    /// use refrain::Scope;
    ///
    /// assert_eq!(Scope::from_id(42_i64), Scope::from_id(42_u32));
    /// assert_ne!(Scope::from_id(42_i64), Scope::new("42"));
    /// ```
    pub fn from_id(id: impl Into<i128>) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"refrain id\0");
        hasher.update(id.into().to_le_bytes());
        Self(hasher.finalize().into())
    }

    /// Restores a scope from the bytes that [`as_bytes`](Self::as_bytes) gave.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 lower-case hexadecimal digits, which [`FromStr`] reads back.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for Scope {
    type Err = InvalidDigest;

    fn from_str(hex: &str) -> Result<Self, InvalidDigest> {
        read_hex(hex).map(Self)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({:02x}{:02x}{:02x}{:02x}..)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_survives_its_hexadecimal_form() {
        let scope = Scope::from_api_key("sk_live_51");
        assert_eq!(scope.to_string().parse(), Ok(scope));
        assert_eq!(Scope::from_bytes(*scope.as_bytes()), scope);
        for bad in ["", "abc", &"g".repeat(64), &"a".repeat(66), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Scope>(), Err(InvalidDigest), "{bad:?}");
        }
    }
}
