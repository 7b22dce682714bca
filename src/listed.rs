//! A line of a list of records.

use std::fmt;

use http::StatusCode;

use crate::cursor::Cursor;
use crate::error::Error;
use crate::key::{Key, Scope};
use crate::record::Record;

/// A line of [`Store::records`](crate::Store::records) and
/// [`Store::all_records`](crate::Store::all_records). Complete: a key has a record that can be read,
/// or one that cannot.
///
/// `Debug` does not show the key.
#[derive(Clone)]
pub enum Listed {
    /// The key has a live record.
    Record {
        /// The owner of the key.
        scope: Scope,
        /// The client's key.
        key: Key,
        /// The record, without its response unless responses were asked for.
        record: Record,
        /// The status of the response; `None` if the response was not kept.
        status: Option<StatusCode>,
    },
    /// A record that cannot be read: asked for, the key is answered with [`Error::Corrupt`].
    Damaged {
        /// The scope and the key; `None` if they cannot be read either, and the record may belong to
        /// another scope.
        at: Option<Cursor>,
        /// The file, and the damage.
        error: Error,
    },
}

impl Listed {
    /// Returns the key, if it is known.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Record { key, .. } => Some(key),
            Self::Damaged { at, .. } => at.as_ref().map(|at| &at.key),
        }
    }

    /// Returns the place of the line, if the key is known: a list can go on behind it.
    pub fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::Record { scope, key, .. } => Some(Cursor { scope: *scope, key: key.clone() }),
            Self::Damaged { at, .. } => at.clone(),
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
