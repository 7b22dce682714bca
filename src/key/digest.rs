//! The hexadecimal form of a digest.

use std::fmt;

/// A value is not the hexadecimal form of a [`Scope`](super::Scope) or a
/// [`Fingerprint`](super::Fingerprint).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct InvalidDigest;

/// Prints bytes as lower-case hexadecimal digits.
pub(super) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads 64 hexadecimal digits, in either case.
///
/// # Errors
///
/// [`InvalidDigest`] for any other length or character.
pub(super) fn read_hex(text: &str) -> Result<[u8; 32], InvalidDigest> {
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
