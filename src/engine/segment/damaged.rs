//! The addresses of a segment whose latest entry is damaged: they are known by their hash alone.

use crate::clock::Moment;

use super::binding::Binding;

/// An address whose latest entry in a segment is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Damaged {
    pub(crate) hash: u128,
    /// The moment at which the entry has expired, whatever it was.
    pub(crate) expires: Moment,
}

/// The bytes of one of them: hash and expiry.
const LEN: usize = 16 + 8;
/// The bytes of a digest.
const DIGEST: usize = 16;

/// Returns a list as bytes, with a digest bound to the segment.
pub(super) fn encode(list: &[Damaged], binding: &Binding) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(list.len() * LEN + DIGEST);
    for damaged in list {
        bytes.extend_from_slice(&damaged.hash.to_le_bytes());
        bytes.extend_from_slice(&damaged.expires.0.to_le_bytes());
    }
    let digest = binding.digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// Decodes a list of `count`, or returns `None` if it is damaged itself.
pub(super) fn decode(bytes: &[u8], count: u64, binding: &Binding) -> Option<Vec<Damaged>> {
    let (bytes, digest) = bytes.split_last_chunk::<DIGEST>()?;
    let (list, []) = bytes.as_chunks::<LEN>() else { return None };
    if binding.digest(bytes) != *digest || list.len() as u64 != count {
        return None;
    }
    let read = |bytes: &[u8; LEN]| {
        let (hash, expires) = bytes.split_first_chunk()?;
        let expires = Moment(u64::from_le_bytes(expires.try_into().ok()?));
        Some(Damaged { hash: u128::from_le_bytes(*hash), expires })
    };
    list.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BASE, KEY};
    use super::*;

    #[test]
    fn p5_a_list_that_is_damaged_itself_is_none() {
        let binding = Binding::new(&BASE, KEY);
        let list = [1, 2].map(|hash| Damaged { hash, expires: Moment(9) });
        let mut bytes = encode(&list, &binding);
        assert_eq!(decode(&bytes, 2, &binding), Some(list.to_vec()));
        assert_eq!(decode(&bytes, 1, &binding), None);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes, 2, &binding), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
