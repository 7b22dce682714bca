//! Keys for the services that an operation calls.

use sha2::{Digest, Sha256};

use super::{Key, Scope};

/// Derives the key that an operation passes to the next service under a label: 32 hexadecimal
/// digits.
///
/// The seed names the operation, so a later operation under the same key gets another downstream
/// key.
pub(crate) fn downstream_key(seed: &[u8; 24], scope: Scope, key: &Key, label: &str) -> Key {
    let mut hasher = Sha256::new_with_prefix(seed);
    hasher.update(scope.as_bytes());
    hasher.update((key.as_bytes().len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(label);
    let digest: [u8; 32] = hasher.finalize().into();
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().expect("hexadecimal digits are a key")
}
