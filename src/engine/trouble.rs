//! The failures of background work, transient or fatal.
//!
//! A failure is transient if it comes from a shortage that may end and has left all listed files as
//! they were. Any other failure is fatal, because it is unknown which bytes are on the disk.

use crate::error::Error;

/// The failure to prepare, seal or drop a file.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No listed file has changed. The store goes on, and the work is tried again.
    Transient(Error),
    /// The bytes on the disk are unknown, so the store must stop.
    Fatal(Error),
}

impl Trouble {
    /// Classifies the failure of a step that left every listed file as it was: a shortage that may
    /// end is transient, and anything else is fatal.
    pub(crate) fn classify(error: Error) -> Self {
        if error.is_transient() { Self::Transient(error) } else { Self::Fatal(error) }
    }

    /// Returns true if the store must stop.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal(_))
    }

    /// Returns the error alone, for callers that stop on either kind.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Transient(error) | Self::Fatal(error) => error,
        }
    }
}
