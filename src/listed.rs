//! A line of the list of a scope's records.

use std::fmt;

use http::StatusCode;

use crate::error::Error;
use crate::key::Key;
use crate::record::Record;

/// A line of [`Store::records`](crate::Store::records). Complete: a key has a record that can be
/// read, or one that cannot.
///
/// `Debug` does not show the key.
#[derive(Clone)]
pub enum Listed {
    /// The key has a live record.
    Record {
        /// The client's key.
        key: Key,
        /// The record, without its response unless responses were asked for.
        record: Record,
        /// The status of the response; `None` if the response was not kept.
        status: Option<StatusCode>,
    },
    /// A record that cannot be read: asked for, the key is answered with [`Error::Corrupt`].
    Damaged {
        /// The client's key; `None` if that cannot be read either, and the record may belong to
        /// another scope.
        key: Option<Key>,
        /// The file, and the damage.
        error: Error,
    },
}

impl Listed {
    /// Returns the key, if it is known.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Record { key, .. } => Some(key),
            Self::Damaged { key, .. } => key.as_ref(),
        }
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { record, status, .. } => {
                let mut shown = f.debug_struct("Record");
                shown.field("record", record).field("status", status).finish_non_exhaustive()
            }
            Self::Damaged { error, .. } => {
                f.debug_struct("Damaged").field("error", error).finish_non_exhaustive()
            }
        }
    }
}
