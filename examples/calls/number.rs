//! Telephone numbers.

use std::str::FromStr;

use serde::Serialize;

/// A number in the form of E.164: a plus and 2 to 15 digits, of which the first is not zero.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Number(String);

impl Number {
    /// Returns true if the carrier lets its owner call from it: all numbers but the reserved ones,
    /// which serve to provoke a refusal.
    pub(crate) fn is_verified(&self) -> bool {
        !self.0.starts_with("+1999")
    }
}

/// A text is not a [`Number`].
#[derive(Debug)]
pub(crate) struct NotE164;

impl FromStr for Number {
    type Err = NotE164;

    fn from_str(text: &str) -> Result<Self, NotE164> {
        let digits = text.strip_prefix('+').ok_or(NotE164)?;
        let formed = (2..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        if formed { Ok(Self(text.to_owned())) } else { Err(NotE164) }
    }
}
