//! A place in a listing.

use crate::key::{Key, Scope};

/// A place in the list of interrupted runs, which is in the order of the bytes of scopes and keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The scope of the last run that was listed.
    pub scope: Scope,
    /// The key of the last run that was listed.
    pub key: Key,
}
