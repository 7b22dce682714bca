//! The journal: keys and requests of jobs, kept on disk until the jobs are done.
//!
//! A job is a durable operation that is not completed while its key may be sent: its claim holds
//! the key, and the checkpoints of the claim hold the request. A restart finds the claim
//! interrupted, and resumes it. A job whose window has passed is completed where a new one needs
//! its place: its record holds the key, and keeps another from being handed out.
//!
//! Invariants:
//! - Key and request are durable before [`Journal::key_for`] returns.
//! - An entry whose checkpoints are incomplete was never handed out, so it is released.
//! - The key is derived from the claim, and so it is the same in every process.
//! - A job gets another key only after its end was asked for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, Reading};
use crate::key::InvalidKey;
use crate::{Attempt, Fingerprint, Key, Operation, Outcome, Permit, Record, Scope, Store};

mod began;
mod builder;
mod entry;
mod error;
mod expired;
mod held;
mod job;
mod kept;
mod listing;
mod retirement;

pub use builder::JournalBuilder;
pub use entry::JournalEntry;
pub use error::JournalError;
pub use job::{Job, JobState};

use began::Began;
use expired::Expired;
use held::HeldJobs;
use kept::Kept;

/// The most jobs with a claim: one for each 8 KiB of a log.
const MAX_OPEN: usize = 8192;
const LABEL: &str = "job";

/// A durable list of unfinished jobs, each with its key and its request, in a store of its own.
///
/// A worker that dies after sending a request, and before the answer, cannot know if the server
/// acted. After its restart it asks the journal for the same job, gets the same key and the same
/// request, and sends them again. The server runs the request once.
///
/// One process at a time can open a journal, and the directory must be on a local disk, as for
/// [`Store`]. An entry that is not used for ten years expires.
///
/// ```
/// use refrain::client::Journal;
///
/// # async fn send(_: &refrain::Key, _: &[u8]) -> std::io::Result<()> { Ok(()) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("journal");
/// let journal = Journal::open(path)?;
/// let entry = journal.key_for("invoice-42", r#"{"amount": 1200}"#).await?;
/// send(entry.key(), entry.request()).await?; // until the server has answered
/// entry.done().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Journal {
    store: Store,
    clock: Arc<dyn Clock>,
    window: Duration,
    scope: Scope,
    held: Arc<HeldJobs>,
}

impl Journal {
    /// The longest request that an entry can hold, in bytes (262,107).
    pub const MAX_REQUEST_BYTES: usize = Kept::MAX_REQUEST_BYTES;

    /// Opens a journal, or creates one, with the defaults for servers that keep keys for 24 hours.
    ///
    /// The parent of `path` must exist. The journal's files begin with
    /// about 2 MiB, and grow with its jobs.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`].
    pub fn open(path: impl AsRef<Path>) -> crate::Result<Self> {
        Self::builder().open(path)
    }

    /// Returns a builder, to open a journal with other limits.
    pub fn builder() -> JournalBuilder {
        JournalBuilder::new()
    }

    /// Returns the entry of a job: its key and its request.
    ///
    /// If the journal has the job, the entry holds the key and the request that were stored first,
    /// and `request` is ignored. Otherwise the job gets a new key, and `request` is stored. A job's
    /// name is 1 to 255 visible ASCII characters without spaces.
    ///
    /// # Durability
    ///
    /// Key and request are durable when this returns.
    ///
    /// # Errors
    ///
    /// See [`JournalError`].
    pub async fn key_for(
        &self,
        job: &str,
        request: impl Into<Bytes>,
    ) -> Result<JournalEntry, JournalError> {
        let (request, name) = (request.into(), name(job)?);
        match self.entry_of(&name, &request).await {
            // Those that nobody asks for again must not keep new jobs out for ever.
            Err(JournalError::Store(full @ crate::Error::Limit { .. })) => {
                match self.retire_expired().await? {
                    0 => Err(full.into()),
                    _ => self.entry_of(&name, &request).await,
                }
            }
            asked => asked,
        }
    }

    /// Ends a job, if the journal has it, whether its window has passed or not. The next
    /// [`key_for`](Self::key_for) gets a new key.
    ///
    /// # Durability
    ///
    /// The end of the job is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`JournalError::InvalidJob`], [`JournalError::InUse`] while this process holds the entry,
    /// and [`JournalError::Store`].
    pub async fn done(&self, job: &str) -> Result<(), JournalError> {
        match self.store.forget(self.scope, &name(job)?).await {
            Err(crate::Error::InFlight { .. }) => Err(JournalError::InUse),
            ended => Ok(ended?),
        }
    }

    fn has_expired(&self, began: &Began, now: &Reading) -> bool {
        began.age(now) >= self.window
    }

    /// Returns the entry of a job: a new one, or the one that an earlier holder left.
    ///
    /// # Errors
    ///
    /// See [`JournalError`].
    async fn entry_of(&self, name: &Key, request: &Bytes) -> Result<JournalEntry, JournalError> {
        loop {
            match self.begin(name).await? {
                Begun::New(permit) => return self.enter(name, permit, request.clone()).await,
                Begun::Known(attempt) => match Kept::of(attempt.checkpoints())? {
                    Some(kept) => return self.resume(name, attempt, kept).await,
                    // The entry is incomplete, so its key was never handed out.
                    None => attempt.release().await?,
                },
                Begun::Retired(record) => {
                    let first_sent = Expired::of(&record)?.began.wall();
                    return Err(JournalError::WindowPassed { first_sent });
                }
            }
        }
    }

    /// Claims a job without waiting for another holder.
    ///
    /// # Errors
    ///
    /// [`JournalError::InUse`] if this process holds the entry, and [`JournalError::Store`].
    async fn begin(&self, name: &Key) -> Result<Begun, JournalError> {
        let fingerprint = Fingerprint::of([LABEL]);
        let operation = Operation::new(self.scope, name.clone(), fingerprint).durable();
        let mut begin = self.store.begin(&operation);
        begin.give_up();
        match begin.await? {
            Outcome::Execute(permit) => Ok(Begun::New(permit)),
            Outcome::Interrupted(attempt) => Ok(Begun::Known(attempt)),
            Outcome::Replay(record) => Ok(Begun::Retired(record)),
            // All jobs have one fingerprint, so there are no conflicts.
            _ => Err(JournalError::InUse),
        }
    }

    /// Stores the request of a new job, in pieces.
    ///
    /// # Errors
    ///
    /// [`JournalError::TooLarge`], and [`JournalError::Store`]; the job is released then.
    async fn enter(
        &self,
        name: &Key,
        mut permit: Permit,
        request: Bytes,
    ) -> Result<JournalEntry, JournalError> {
        let (len, max) = (request.len(), Self::MAX_REQUEST_BYTES);
        if len > max {
            permit.release().await?;
            return Err(JournalError::TooLarge { len, max });
        }
        let kept = Kept { began: Began::at(self.clock.read()), request };
        for piece in kept.pieces() {
            if let Err(error) = permit.checkpoint(piece).await {
                // Free the incomplete entry's place. If that fails too, report the first error.
                let _ = permit.release().await;
                return Err(error.into());
            }
        }
        self.hold(name, permit, kept)
    }

    /// Resumes a job that an earlier holder left.
    ///
    /// # Errors
    ///
    /// [`JournalError::WindowPassed`], and [`JournalError::Store`].
    async fn resume(
        &self,
        name: &Key,
        attempt: Attempt,
        kept: Kept,
    ) -> Result<JournalEntry, JournalError> {
        if self.has_expired(&kept.began, &self.clock.read()) {
            return Err(JournalError::WindowPassed { first_sent: kept.began.wall() });
        }
        self.hold(name, attempt.retry().await?, kept)
    }

    /// # Errors
    ///
    /// [`JournalError::Store`].
    fn hold(&self, name: &Key, permit: Permit, kept: Kept) -> Result<JournalEntry, JournalError> {
        let key = permit.downstream_key(LABEL)?;
        let holding = self.held.hold(name.clone(), key.clone(), kept.began);
        Ok(JournalEntry::new(permit, holding, key, kept))
    }
}

/// A job as the store has it: new, known from an earlier holder, or one that has given up its place.
enum Begun {
    New(Permit),
    Known(Attempt),
    Retired(Record),
}

/// # Errors
///
/// [`JournalError::InvalidJob`].
fn name(job: &str) -> Result<Key, JournalError> {
    // As it is, quotes included: the name of a listed job is the same job's when it is asked for.
    let (len, max) = (job.len(), Key::MAX_LEN);
    let invalid = || match job.bytes().position(|byte| !byte.is_ascii_graphic()) {
        _ if job.is_empty() => InvalidKey::Empty,
        Some(at) => InvalidKey::Character { at },
        None => InvalidKey::TooLong { len, max },
    };
    Key::from_stored(job.as_bytes()).ok_or_else(|| JournalError::InvalidJob(invalid()))
}
