//! A place in a listing.

use crate::key::{Key, Scope};

/// A place in a list of interrupted runs or of records, which are in the order of the bytes of scopes
/// and keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The scope of the last line.
    pub scope: Scope,
    /// The key of the last line.
    pub key: Key,
}
