//! Failures of the work behind the commits, told apart by whether the store may go on.

use crate::error::Error;

/// Why preparing, sealing or dropping a file failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nothing has changed, and the store goes on: the work may be tried again.
    Transient(Error),
    /// It is unknown what is on disk: the store must stop.
    Fatal(Error),
}

impl Trouble {
    /// Classifies the failure of a step that left every listed file as it was: a shortage that may
    /// end is transient, and anything else is fatal.
    pub(crate) fn classify(error: Error) -> Self {
        if error.is_transient() { Self::Transient(error) } else { Self::Fatal(error) }
    }

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
