//! The secret by which operators are known.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

/// The secret that a request on a TCP port has to bring, as `Authorization: Bearer TOKEN`.
///
/// `Debug` does not show it.
#[derive(Clone)]
pub struct Token {
    /// Digests are compared, so the time that this takes tells nothing about the secret.
    digest: [u8; 32],
}

/// A token that could be guessed: it has less than [`Token::MIN_LEN`] characters, or one that is not
/// visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has at least {} characters of visible ASCII", Token::MIN_LEN)]
pub struct WeakToken;

impl Token {
    /// The least number of characters.
    pub const MIN_LEN: usize = 16;

    /// Takes the secret; white space around it, as from a file, is not part of it.
    ///
    /// # Errors
    ///
    /// [`WeakToken`].
    pub fn new(secret: &str) -> Result<Self, WeakToken> {
        let secret = secret.trim();
        let is_visible = secret.bytes().all(|byte| byte.is_ascii_graphic());
        let is_token = secret.len() >= Self::MIN_LEN && is_visible;
        is_token.then(|| Self { digest: digest(secret.as_bytes()) }).ok_or(WeakToken)
    }

    /// Returns true if a request brings the token.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let Some((scheme, secret)) = value.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && digest(secret) == self.digest
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let token = Token::new(" 0123456789abcdef\n").unwrap();
        let opens = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            token.is_in(&headers)
        };
        assert!(opens("Bearer 0123456789abcdef"));
        assert!(opens("bearer 0123456789abcdef"));
        for wrong in ["", "Bearer", "Bearer ", "Basic 0123456789abcdef", "Bearer 0123456789abcdeF"]
        {
            assert!(!opens(wrong), "{wrong}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_token_that_could_be_guessed_is_none() {
        for weak in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdéf"] {
            assert_eq!(Token::new(weak).unwrap_err(), WeakToken, "{weak}");
        }
    }
}
