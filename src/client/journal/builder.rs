//! The limits of a journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::{Builder, Scope, Store};

use super::Journal;
use super::held::HeldJobs;

/// The longest TTL of a store. Entries end by [`JournalEntry::done`](super::JournalEntry::done), not
/// by expiry.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const LOG_BYTES: u64 = 64 * 1024 * 1024;

/// A builder for a [`Journal`] with other limits than the defaults.
///
/// ```
/// use std::time::Duration;
/// use refrain::client::Journal;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("journal");
/// // For a server that keeps keys for 7 days, and calls that take up to an hour.
/// let window = Duration::from_secs((7 * 24 - 1) * 60 * 60);
/// let journal = Journal::builder().window(window).max_jobs(100).open(path)?;
/// # let _ = journal;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct JournalBuilder {
    store: Builder,
    clock: Arc<dyn Clock>,
    window: Duration,
    max_jobs: usize,
}

impl JournalBuilder {
    pub(super) fn new() -> Self {
        Self {
            store: Store::builder().ttl(TEN_YEARS).log_bytes(LOG_BYTES),
            clock: Arc::new(SystemClock::new()),
            window: Duration::from_secs(23 * 60 * 60),
            max_jobs: 4096,
        }
    }

    /// Sets how long after first use a job's key may be reused (default 23 h).
    ///
    /// The window must be shorter than the server's retention by the longest possible call. Past it
    /// [`Journal::key_for`] returns
    /// [`JournalError::WindowPassed`](super::JournalError::WindowPassed).
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the maximum number of unfinished jobs (default 4096, at most 8192).
    ///
    /// Beyond it, [`Journal::key_for`] returns
    /// [`JournalError::Store`](super::JournalError::Store) with
    /// [`Error::Limit`](crate::Error::Limit). Jobs whose window has passed give up their places.
    pub fn max_jobs(mut self, max: usize) -> Self {
        self.max_jobs = max;
        self
    }

    /// Sets the clock, for tests.
    pub fn clock(mut self, clock: impl Clock + Clone) -> Self {
        self.store = self.store.clock(clock.clone());
        self.clock = Arc::new(clock);
        self
    }

    /// Opens the journal, or creates it. The parent of `path` must exist.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`], and [`Error::Setting`](crate::Error::Setting) for a number of jobs
    /// out of range.
    pub fn open(self, path: impl AsRef<Path>) -> crate::Result<Journal> {
        let Self { store, clock, window, max_jobs } = self;
        let store = store
            .max_open_claims(max_jobs)
            .max_open_claims_per_scope(max_jobs)
            .max_in_flight(max_jobs)
            .max_in_flight_per_scope(max_jobs)
            .open(path)?;
        let (scope, held) = (Scope::new("refrain journal"), Arc::<HeldJobs>::default());
        Ok(Journal { store, clock, window, scope, held })
    }
}
