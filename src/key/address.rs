//! The name of a record: a scope and a key.

use sha2::{Digest, Sha256};

use super::{Key, Scope};

/// A scope and a key together: the name of one record.
///
/// An address carries its 128-bit hash, seeded with the store's uuid. Clients do not know the uuid,
/// so they cannot construct collisions. Shards, indexes and filters all take their bits from this
/// hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) scope: Scope,
    pub(crate) key: Key,
    pub(crate) hash: u128,
}

impl Address {
    /// Returns the address of a key; `seed` is the store's uuid.
    pub(crate) fn new(seed: &[u8; 16], scope: Scope, key: Key) -> Self {
        let hash = Self::hash_of(seed, scope.as_bytes(), key.as_bytes());
        Self { scope, key, hash }
    }

    /// Returns the first 128 bits of SHA-256(seed, scope, key).
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
