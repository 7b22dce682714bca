//! Keys for the services that an operation calls.

use sha2::{Digest, Sha256};

use super::{Key, Scope};

/// The key that an operation hands to the next service under a label. The seed names the operation,
/// so its key's next use gets another.
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
