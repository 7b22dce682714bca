//! Maps by [`Address`] that do not hash what is hashed already.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::key::Address;

/// A map by address. The address's own hash is keyed and uniform, so the map takes its bits as they
/// are.
pub(crate) type AddressMap<V> = HashMap<Address, V, BuildHasherDefault<OwnHash>>;

/// A map by the hash of an address alone.
pub(crate) type AddressHashMap<V> = HashMap<u128, V, BuildHasherDefault<OwnHash>>;

/// Passes on the low half of an [`Address`]'s own hash. The shard of the table is taken from the
/// high half.
#[derive(Default)]
pub(crate) struct OwnHash(u64);

impl Hasher for OwnHash {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an address hashes as one u128");
    }

    fn write_u128(&mut self, hash: u128) {
        let [low @ .., _, _, _, _, _, _, _, _] = hash.to_le_bytes();
        self.0 = u64::from_le_bytes(low);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
