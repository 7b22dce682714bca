//! The identity of a request: its [`Scope`], [`Key`], [`Fingerprint`] and [`RequestId`].
//!
//! Each type is parsed once, at the edge of the program; afterwards its value is valid by its type.
//! `Debug` prints neither keys nor whole digests.
//!
//! | type | bytes | stored |
//! | --- | --- | --- |
//! | [`Scope`] | 32, the SHA-256 of an API key or of another principal | yes; the API key is not |
//! | [`Key`] | 1 to 255, visible ASCII | yes |
//! | [`Fingerprint`] | 32, a digest of the request | yes |
//! | [`RequestId`] | 1 to 128, `A-Z a-z 0-9 . _ -` | yes |

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

mod address;
mod digest;
mod downstream;
mod fingerprint;
mod random;
mod request_id;
mod scope;
mod text;

pub(crate) use address::Address;
pub use digest::InvalidDigest;
pub(crate) use downstream::downstream_key;
pub use fingerprint::Fingerprint;
pub(crate) use random::random_bytes;
pub use request_id::{InvalidRequestId, RequestId};
pub use scope::Scope;

/// The client's idempotency key: 1 to 255 visible ASCII characters (0x21 to 0x7E).
///
/// A value that begins with a quote is read as a structured-field string (RFC 9651), so the quoted
/// and the bare form are the same key.
///
/// ```
/// use refrain::Key;
///
/// # fn main() -> Result<(), refrain::key::InvalidKey> {
/// let bare: Key = "9b8cfa7a-1c2d-4a88-b3c0-1d2e3f4a5b6c".parse()?;
/// let quoted: Key = "\"9b8cfa7a-1c2d-4a88-b3c0-1d2e3f4a5b6c\"".parse()?;
/// assert_eq!(bare, quoted);
/// assert!("two words".parse::<Key>().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The longest key, in characters.
    pub const MAX_LEN: usize = 255;

    /// Creates a key for a new operation: a random UUID.
    #[cfg(feature = "client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "client")))]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// Parses the value of an `Idempotency-Key` header: bare, or as a structured-field string in
    /// quotes.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] names the first part of the value that is outside the grammar.
    pub fn from_header(value: &[u8]) -> Result<Self, InvalidKey> {
        let key = match value.strip_prefix(b"\"") {
            Some(rest) => Cow::Owned(unquote(rest)?),
            None => Cow::Borrowed(value),
        };
        if key.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if key.len() > Self::MAX_LEN {
            return Err(InvalidKey::TooLong { len: key.len(), max: Self::MAX_LEN });
        }
        Self::from_stored(&key).ok_or_else(|| InvalidKey::Character {
            at: key.iter().take_while(|byte| byte.is_ascii_graphic()).count(),
        })
    }

    /// Reads a key back from where a backend has stored its bytes, which are never quoted: the
    /// exact way back from [`as_str`](Self::as_str). `None` if they are outside the grammar.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        let valid =
            (1..=Self::MAX_LEN).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        valid.then(|| std::str::from_utf8(bytes).ok().map(|key| Self(key.into()))).flatten()
    }

    /// Returns the key as text: without quotes, and with its escapes resolved.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Reads the rest of a structured-field string whose opening quote is gone.
fn unquote(rest: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let mut key = Vec::with_capacity(rest.len());
    let mut bytes = rest.iter().copied();
    loop {
        match bytes.next() {
            Some(b'"') if bytes.len() == 0 => return Ok(key),
            Some(b'\\') => match bytes.next() {
                Some(escaped @ (b'"' | b'\\')) => key.push(escaped),
                _ => return Err(InvalidKey::Quoting),
            },
            Some(b'"') | None => return Err(InvalidKey::Quoting),
            Some(byte) => key.push(byte),
        }
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(value: &str) -> Result<Self, InvalidKey> {
        Self::from_header(value.as_bytes())
    }
}

/// Keys may be guessable, so they are not printed.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// The reason why a value is not a [`Key`]. `Display` is a message for the client, without the
/// value itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It has no characters.
    #[error("idempotency key is empty")]
    Empty,
    /// It is too long.
    #[error("idempotency key has {len} characters, and at most {max} are allowed")]
    TooLong {
        /// Its length.
        len: usize,
        /// [`Key::MAX_LEN`].
        max: usize,
    },
    /// It holds something else than visible ASCII.
    #[error("idempotency key has a character outside visible ASCII at position {at}")]
    Character {
        /// The offset of the character, after unquoting.
        at: usize,
    },
    /// It begins with a quote and is not one complete structured-field string.
    #[error("idempotency key begins with a quote and is not one quoted string and nothing else")]
    Quoting,
    /// It is not quoted, where the dialect takes structured-field strings only.
    #[error("idempotency key is not a quoted string")]
    Unquoted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Result<Key, InvalidKey> {
        value.parse()
    }

    #[test]
    fn quoted_and_bare_forms_are_the_same_key() {
        assert_eq!(key("abc"), key("\"abc\""));
        assert_eq!(key(r#""a\"b\\c""#).unwrap().as_str(), r#"a"b\c"#);
    }

    #[test]
    fn keys_outside_the_grammar_are_refused() {
        let long = "k".repeat(256);
        for (value, error) in [
            ("", InvalidKey::Empty),
            ("\"\"", InvalidKey::Empty),
            (long.as_str(), InvalidKey::TooLong { len: 256, max: 255 }),
            ("a b", InvalidKey::Character { at: 1 }),
            ("\"a b\"", InvalidKey::Character { at: 1 }),
            ("a\u{7f}", InvalidKey::Character { at: 1 }),
            ("clé", InvalidKey::Character { at: 2 }),
            ("\"abc", InvalidKey::Quoting),
            ("\"abc\";p=1", InvalidKey::Quoting),
            ("\"abc\" ", InvalidKey::Quoting),
            ("\"a\\n\"", InvalidKey::Quoting),
            ("\"", InvalidKey::Quoting),
            ("\"abc\\", InvalidKey::Quoting),
        ] {
            assert_eq!(key(value), Err(error), "{value:?}");
        }
        assert_eq!(key(&"k".repeat(255)).unwrap().as_str().len(), 255);
    }

    #[test]
    fn p16_debug_output_shows_no_secret() {
        let scope = format!("{:?}", Scope::from_api_key("sk_live_secret"));
        let key = format!("{:?}", key("key-secret").unwrap());
        assert!(!scope.contains("secret") && !key.contains("secret"), "{scope} {key}");
    }
}
