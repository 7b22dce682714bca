//! The owner of keys, as a digest.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::digest::{InvalidDigest, read_hex, write_hex};

/// The owner of a key: the SHA-256 of an API key, or of the name of another principal.
///
/// Records are visible in their own scope only. The API key itself is neither stored nor printed.
///
/// ```
/// use refrain::Scope;
///
/// # fn main() -> Result<(), refrain::key::InvalidDigest> {
/// let scope = Scope::from_api_key("sk_live_51");
/// assert_ne!(scope, Scope::from_api_key("sk_live_52"));
/// assert_ne!(scope, Scope::new("sk_live_51"));
///
/// let hex = scope.to_string();
/// assert_eq!(hex.parse::<Scope>()?, scope);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope([u8; 32]);

impl Scope {
    /// Returns the scope of an API key.
    ///
    /// The digest is a plain SHA-256. That is safe for keys of at least 128 random bits; if API
    /// keys can be guessed, pass a keyed hash of them to [`new`](Self::new).
    pub fn from_api_key(api_key: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(api_key).into())
    }

    /// Returns the scope of any other principal: a tenant, a user, an account.
    ///
    /// It differs from the scope of an API key with the same bytes.
    pub fn new(principal: impl AsRef<[u8]>) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"refrain principal\0");
        hasher.update(principal);
        Self(hasher.finalize().into())
    }

    /// Returns the scope of a principal with a number, such as the primary key of a tenant or of a
    /// user.
    ///
    /// It differs from the scope of the same number as text.
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

    /// Returns the 32 bytes of the digest, for a column of a database or for a log.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Prints 64 lower-case hexadecimal digits, which [`FromStr`] reads back.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// Parses 64 hexadecimal digits, in either case.
impl FromStr for Scope {
    type Err = InvalidDigest;

    fn from_str(hex: &str) -> Result<Self, InvalidDigest> {
        read_hex(hex).map(Self)
    }
}

/// Prints the first eight hexadecimal digits.
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
