//! The digests that prove bytes of a store to be whole.
//!
//! They are keyed and fast. Clients choose the bytes of responses, and do not know the key, so they
//! cannot construct bytes that pass for others. Names are another matter: a scope, a fingerprint
//! and an address are SHA-256.

use bincode::{Decode, Encode};
use highway::{HighwayHash, HighwayHasher, Key};
use sha2::{Digest as _, Sha256};

use crate::key::random_bytes;

/// A digest of 16 bytes.
pub(crate) type Digest = [u8; 16];

/// The key of a store's digests: random, and never on the network.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct DigestKey([u8; 32]);

/// The digests of a file, which its format decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digests {
    /// Format 1: the first half of SHA-256, which needs no key.
    Sha256,
    /// Format 2.
    Keyed(DigestKey),
}

impl DigestKey {
    /// Returns a new random key.
    pub(crate) fn random() -> Self {
        Self(random_bytes())
    }

    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the HighwayHash-128 of these pieces, one after the other.
    pub(crate) fn digest(&self, pieces: &[&[u8]]) -> Digest {
        let mut hasher = HighwayHasher::new(self.expanded());
        pieces.iter().for_each(|piece| hasher.append(piece));
        let [low, high] = hasher.finalize128();
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&low.to_le_bytes());
        digest[8..].copy_from_slice(&high.to_le_bytes());
        digest
    }

    /// The key as the hash takes it.
    fn expanded(&self) -> Key {
        let (words, _) = self.0.as_chunks();
        Key([0, 1, 2, 3].map(|n| u64::from_le_bytes(words[n])))
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey")
    }
}

impl Digests {
    /// Returns the digest of these pieces, one after the other.
    pub(crate) fn digest(&self, pieces: &[&[u8]]) -> Digest {
        match self {
            Self::Sha256 => first_half(&sha256(pieces)),
            Self::Keyed(key) => key.digest(pieces),
        }
    }
}

fn sha256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize().into()
}

/// Returns the first 16 bytes of a SHA-256.
pub(crate) fn first_half(digest: &[u8; 32]) -> Digest {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digest: Digest) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Format 2 is on users' disks: these digests never change.
    #[test]
    fn golden_digests_of_format_2() {
        let key = DigestKey::from_bytes(std::array::from_fn(|n| u8::try_from(n).unwrap()));
        let bytes: Vec<u8> = (0..=255).collect();
        let digests = [0, 1, 31, 256].map(|length| hex(key.digest(&[&bytes[..length]])));
        let golden = [
            "c7fe8f9d8f26ed0f6f3e097f765e5633",
            "a8e7813689a8b0d6b4dc9cebf91d29dc",
            "297ca5e865b4e70646d4f5073a5e4152",
            "90ac01fd8f08cd4618a02921faf04174",
        ];
        assert_eq!(digests, golden);
    }

    #[test]
    fn pieces_are_digested_as_if_they_were_one() {
        let bytes = [7; 100];
        let pieces: [&[u8]; 4] = [&bytes[..1], &bytes[1..40], &[], &bytes[40..]];
        for digests in [Digests::Sha256, Digests::Keyed(DigestKey::from_bytes([3; 32]))] {
            assert_eq!(digests.digest(&pieces), digests.digest(&[&bytes]));
        }
    }
}
