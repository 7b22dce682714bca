//! Addresses: the name of a key among all of a store's.

use refrain::{Key, Scope};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Gives keys their addresses. The store's id is part of them, so clients cannot aim at one.
#[derive(Debug)]
pub(crate) struct Addresses {
    store: Uuid,
}

impl Addresses {
    pub(crate) fn new(store: Uuid) -> Self {
        Self { store }
    }

    /// The store's id.
    pub(crate) fn store(&self) -> Uuid {
        self.store
    }

    /// Half of a SHA-256: among 10^9 keys, two share an address with odds of 10^-21.
    pub(crate) fn of(&self, scope: Scope, key: &Key) -> Uuid {
        let mut hasher = Sha256::new_with_prefix(self.store.as_bytes());
        hasher.update(scope.as_bytes());
        hasher.update(key.as_str());
        let digest: [u8; 32] = hasher.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Uuid::from_bytes(half)
    }

    /// 24 bytes that name an operation among all of all stores: its first attempt, and this store.
    pub(crate) fn seed(&self, first: Uuid) -> [u8; 24] {
        let mut seed = [0; 24];
        seed[..16].copy_from_slice(first.as_bytes());
        seed[16..].copy_from_slice(&self.store.as_bytes()[..8]);
        seed
    }
}
