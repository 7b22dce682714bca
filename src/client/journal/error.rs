//! The error of a journal.

use std::time::SystemTime;

use crate::key::InvalidKey;

use super::began::FORMAT;

/// The error of a [`Journal`](super::Journal).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The job's name is not 1 to 255 visible ASCII characters without spaces.
    #[error("the job's name must be 1 to 255 visible ASCII characters without spaces: {0}")]
    InvalidJob(InvalidKey),
    /// This process already holds the job's entry.
    #[error("the job's entry is in use")]
    InUse,
    /// The window has passed: the server may have forgotten the key and would run the request
    /// again.
    ///
    /// [`Journal::key_for`](super::Journal::key_for) gives this error until the job is done. Find
    /// out what became of it, end it with [`Journal::done`](super::Journal::done), and then ask for
    /// a new key if the request must be sent again.
    #[error("the server's window for the job's key has passed")]
    WindowPassed {
        /// The time when the key was first handed out.
        first_sent: SystemTime,
    },
    /// The request is too long for an entry. No entry was made.
    #[error("a request of {len} bytes is too long; the limit is {max} bytes")]
    TooLarge {
        /// The request's length in bytes.
        len: usize,
        /// The longest request that fits, in bytes.
        max: usize,
    },
    /// A newer version of this crate wrote the entry.
    #[error("the job's entry has format {found}, and this version reads up to {FORMAT}")]
    Newer {
        /// The entry's format.
        found: u8,
    },
    /// The journal's store failed; the cause is in the source.
    #[error("the journal's store failed")]
    Store(#[from] crate::Error),
}
