//! Who asks, under which key, for what: [`Scope`], [`Key`], [`Fingerprint`], [`RequestId`].
//!
//! Each is parsed once, at the edge, and is its own proof afterwards.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

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

    /// Makes a new one, a random UUID.
    #[cfg(feature = "client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "client")))]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// Parses the bytes of a header value.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] names the first thing that is outside the grammar.
    pub fn from_header(value: &[u8]) -> Result<Self, InvalidKey> {
        let key = match value.strip_prefix(b"\"") {
            Some(rest) => unquote(rest)?,
            None => value.to_vec(),
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

    /// Reads a key back from disk, where it is never quoted.
    pub(crate) fn from_stored(bytes: &[u8]) -> Option<Self> {
        let valid =
            (1..=Self::MAX_LEN).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        valid.then(|| std::str::from_utf8(bytes).ok().map(|key| Self(key.into()))).flatten()
    }

    /// The key as the client may have sent it, unquoted.
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

/// Why a value is not a [`Key`].
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

/// What a key was used for: a SHA-256 over length-prefixed parts, so that no two different lists of
/// parts share one.
///
/// ```
/// use refrain::Fingerprint;
///
/// let call = Fingerprint::of(["POST", "/v1/calls", "{}"]);
/// assert_ne!(call, Fingerprint::of(["POST", "/v1/calls{}", ""]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a request's parts: method, path and query, body.
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

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 lower-case hexadecimal digits, which [`FromStr`] reads back.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidDigest;

    fn from_str(hex: &str) -> Result<Self, InvalidDigest> {
        read_hex(hex).map(Self)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Fingerprint({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// A value is not the hexadecimal form of a [`Scope`] or a [`Fingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct InvalidDigest;

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex(text: &str) -> Result<[u8; 32], InvalidDigest> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(InvalidDigest) };
    if pairs.len() != 32 {
        return Err(InvalidDigest);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high).zip(digit(*low)).map(|(h, l)| h << 4 | l).ok_or(InvalidDigest)?;
    }
    Ok(bytes)
}

/// The server's name for one request: 1 to 128 characters of `A-Z a-z 0-9 . _ -`.
///
/// A conflict names the original's, so that support can find it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The longest request id, in characters.
    pub const MAX_LEN: usize = 128;

    /// How many a thread draws at a time.
    const DRAWN: usize = 16;

    /// Makes a new one from 128 random bits: `req_` and 32 hexadecimal digits. A copy of the process, by
    /// `fork` or from a snapshot of its machine, may repeat up to 16 of a thread's.
    pub fn random() -> Self {
        // Many at a time: a call into the operating system for each is what costs.
        thread_local!(static SPARE: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) });
        let bytes = SPARE.with_borrow_mut(|spare| {
            if spare.is_empty() {
                spare.extend_from_slice(random_bytes::<{ 16 * Self::DRAWN }>().as_chunks().0);
            }
            spare.pop().expect("they were just drawn")
        });
        let mut text = *b"req_00000000000000000000000000000000";
        for (digits, byte) in text[4..].chunks_exact_mut(2).zip(bytes) {
            digits[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            digits[1] = b"0123456789abcdef"[usize::from(byte & 0xf)];
        }
        Self(str::from_utf8(&text).expect("it is made of digits").into())
    }

    /// The request id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(value: &str) -> Result<Self, InvalidRequestId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=Self::MAX_LEN).contains(&value.len()) && value.bytes().all(allowed) {
            Ok(Self(value.into()))
        } else {
            Err(InvalidRequestId)
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

/// A value is not a [`RequestId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request id must be 1 to 128 characters of A-Z a-z 0-9 . _ -")]
pub struct InvalidRequestId;

/// A scope and a key together: the name of one record.
///
/// Carries its 128-bit hash, seeded with the store's uuid, which clients do not know and so cannot
/// aim collisions at. Shards, indexes and filters all take their bits from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) scope: Scope,
    pub(crate) key: Key,
    pub(crate) hash: u128,
}

impl Address {
    pub(crate) fn new(seed: &[u8; 16], scope: Scope, key: Key) -> Self {
        let hash = Self::hash_of(seed, &scope.0, key.as_bytes());
        Self { scope, key, hash }
    }

    pub(crate) fn hash_of(seed: &[u8; 16], scope: &[u8; 32], key: &[u8]) -> u128 {
        let mut hasher = Sha256::new_with_prefix(seed);
        hasher.update(scope);
        hasher.update(key);
        let digest: [u8; 32] = hasher.finalize().into();
        let mut low = [0; 16];
        low.copy_from_slice(&digest[..16]);
        u128::from_le_bytes(low)
    }
}

impl std::hash::Hash for Address {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u128(self.hash);
    }
}

/// The key that an operation hands to the next service under a label. The seed names the operation,
/// so its key's next use gets another.
pub(crate) fn downstream_key(seed: &[u8; 24], scope: Scope, key: &Key, label: &str) -> Key {
    let mut hasher = Sha256::new_with_prefix(seed);
    hasher.update(scope.0);
    hasher.update((key.as_bytes().len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(label);
    let digest: [u8; 32] = hasher.finalize().into();
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().expect("hexadecimal digits are a key")
}

/// Random bytes from the operating system.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the operating system has no randomness: {error}"),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

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
    fn scopes_and_fingerprints_survive_their_hexadecimal_form() {
        let scope = Scope::from_api_key("sk_live_51");
        assert_eq!(scope.to_string().parse(), Ok(scope));
        let fingerprint = Fingerprint::of(["POST"]);
        assert_eq!(fingerprint.to_string().to_uppercase().parse(), Ok(fingerprint));
        assert_eq!(Scope::from_bytes(*scope.as_bytes()), scope);
        for bad in ["", "abc", &"g".repeat(64), &"a".repeat(66), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Scope>(), Err(InvalidDigest), "{bad:?}");
        }
    }

    #[test]
    fn p16_debug_output_shows_no_secret() {
        let scope = format!("{:?}", Scope::from_api_key("sk_live_secret"));
        let key = format!("{:?}", key("key-secret").unwrap());
        assert!(!scope.contains("secret") && !key.contains("secret"), "{scope} {key}");
    }

    #[test]
    fn request_ids_keep_their_grammar() {
        assert!("req_81.a-Z".parse::<RequestId>().is_ok());
        let ids: HashSet<_> = (0..100).map(|_| RequestId::random().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.parse::<RequestId>().is_ok()));
        for bad in ["", "a b", "a/b", "é", &"r".repeat(129)] {
            assert_eq!(bad.parse::<RequestId>(), Err(InvalidRequestId), "{bad:?}");
        }
    }
}
