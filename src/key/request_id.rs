//! The server's name for a request.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::random::random_bytes;

/// The server's name for one request: 1 to 128 characters of `A-Z a-z 0-9 . _ -`.
///
/// A conflict names the request that used the key first, so that support can find it.
///
/// ```
/// use refrain::RequestId;
///
/// # fn main() -> Result<(), refrain::key::InvalidRequestId> {
/// let given: RequestId = "req_81".parse()?;
/// assert_eq!(given.as_str(), "req_81");
/// assert_eq!(RequestId::random().as_str().len(), "req_".len() + 32);
/// assert!("two words".parse::<RequestId>().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

/// The digits of each byte.
const HEXADECIMAL: [[u8; 2]; 256] = {
    let (mut all, mut byte) = ([[0; 2]; 256], 0);
    while byte < all.len() {
        all[byte] = [b"0123456789abcdef"[byte >> 4], b"0123456789abcdef"[byte & 0xf]];
        byte += 1;
    }
    all
};

impl RequestId {
    /// The longest request id, in characters.
    pub const MAX_LEN: usize = 128;

    /// The number of ids that a thread draws at a time.
    const DRAWN: usize = 16;
    /// The length of each, in characters.
    const DRAWN_LEN: usize = "req_".len() + 2 * 16;

    /// Creates an id of 128 random bits: `req_` and 32 hexadecimal digits.
    ///
    /// Each thread draws 16 ids at a time. A copy of the process, by `fork` or
    /// from a snapshot of its machine, may therefore repeat up to 16 ids of a thread.
    ///
    /// # Panics
    ///
    /// If the operating system has no random bytes.
    pub fn random() -> Self {
        // Many at a time: a call into the operating system for each is what costs.
        thread_local!(static SPARE: RefCell<String> = const { RefCell::new(String::new()) });
        SPARE.with_borrow_mut(|spare| {
            if spare.is_empty() {
                Self::draw(spare);
            }
            let rest = spare.len() - Self::DRAWN_LEN;
            let id = Self(spare[rest..].into());
            spare.truncate(rest);
            id
        })
    }

    /// Adds new ids, one behind the other.
    fn draw(spare: &mut String) {
        let mut ids = [*b"req_00000000000000000000000000000000"; Self::DRAWN];
        let drawn = random_bytes::<{ 16 * Self::DRAWN }>();
        let (drawn, _) = drawn.as_chunks::<16>();
        for (id, bytes) in ids.iter_mut().zip(drawn) {
            let (digits, _) = id[4..].as_chunks_mut();
            for (digits, byte) in digits.iter_mut().zip(bytes) {
                *digits = HEXADECIMAL[usize::from(*byte)];
            }
        }
        spare.push_str(str::from_utf8(ids.as_flattened()).expect("they are made of digits"));
    }

    /// Returns the request id as text.
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

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
