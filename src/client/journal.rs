//! The journal: keys and requests of jobs, kept on disk until the jobs are done.
//!
//! A job is a durable operation that is never completed: its claim holds the key, and the
//! checkpoints of the claim hold the request. A restart finds the claim interrupted, and resumes
//! it.
//!
//! Invariants:
//! - Key and request are durable before [`Journal::key_for`] returns.
//! - An entry whose checkpoints are incomplete was never handed out, so it is released.
//! - The key is derived from the claim, and so it is the same in every process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::clock::{Clock, Reading, SystemClock};
use crate::key::InvalidKey;
use crate::{Attempt, Builder, Fingerprint, Key, Operation, Outcome, Permit, Scope, Store};

/// The longest TTL of a store. Entries end by [`JournalEntry::done`], not by expiry.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// The limits of a claim's checkpoints: their number, and the bytes of each.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 16 * 1024;
/// The header in front of the request: format, time of first use, length.
const HEAD: usize = 1 + (8 + 8 + 16) + 4;
const FORMAT: u8 = 1;
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
}

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

/// An unfinished job, held by this process.
///
/// An entry that is dropped without [`done`](Self::done) stays in the journal, and the next caller
/// of [`Journal::key_for`] gets it.
#[derive(Debug)]
#[must_use = "the job stays in the journal until `done`"]
pub struct JournalEntry {
    permit: Permit,
    key: Key,
    request: Bytes,
    first_sent: SystemTime,
}

/// The error of a [`Journal`].
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
    /// Calling [`Journal::key_for`] again gives the same error. Find out what became of the job,
    /// end its entry with [`Journal::done`], and then ask for a new key if the request must be sent
    /// again.
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

impl Journal {
    /// The longest request that an entry can hold, in bytes (262,107).
    pub const MAX_REQUEST_BYTES: usize = PIECES * PIECE_BYTES - HEAD;

    /// Opens a journal, or creates one, with the defaults for servers that keep keys for 24 hours.
    ///
    /// The parent of `path` must exist. The journal's files take about 192 MiB.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`].
    pub fn open(path: impl AsRef<Path>) -> crate::Result<Self> {
        Self::builder().open(path)
    }

    /// Returns a builder, to open a journal with other limits.
    pub fn builder() -> JournalBuilder {
        JournalBuilder {
            store: Store::builder().ttl(TEN_YEARS).log_bytes(LOG_BYTES),
            clock: Arc::new(SystemClock::new()),
            window: Duration::from_secs(23 * 60 * 60),
            max_jobs: 4096,
        }
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
        let (request, operation) = (request.into(), self.operation(job)?);
        loop {
            match self.begin(&operation).await? {
                Begun::New(permit) => return self.enter(permit, request).await,
                Begun::Known(attempt) => match Kept::of(attempt.checkpoints())? {
                    Some(kept) => return self.resume(attempt, kept).await,
                    // The entry is incomplete, so its key was never handed out.
                    None => attempt.release().await?,
                },
            }
        }
    }

    /// Ends a job's entry, if there is one. The next [`key_for`](Self::key_for) gets a new key.
    ///
    /// # Durability
    ///
    /// The end of the entry is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`JournalError::InvalidJob`], [`JournalError::InUse`] while this process holds the entry,
    /// and [`JournalError::Store`].
    pub async fn done(&self, job: &str) -> Result<(), JournalError> {
        match self.begin(&self.operation(job)?).await? {
            Begun::New(permit) => permit.release().await?,
            Begun::Known(attempt) => attempt.release().await?,
        }
        Ok(())
    }

    /// Returns the durable operation of a job.
    ///
    /// # Errors
    ///
    /// [`JournalError::InvalidJob`].
    fn operation(&self, job: &str) -> Result<Operation, JournalError> {
        let job: Key = job.parse().map_err(JournalError::InvalidJob)?;
        Ok(Operation::new(self.scope, job, Fingerprint::of([LABEL])).durable())
    }

    /// Claims a job without waiting for another holder.
    ///
    /// # Errors
    ///
    /// [`JournalError::InUse`] if this process holds the entry, and [`JournalError::Store`].
    async fn begin(&self, operation: &Operation) -> Result<Begun, JournalError> {
        let mut begin = self.store.begin(operation);
        begin.give_up();
        match begin.await? {
            Outcome::Execute(permit) => Ok(Begun::New(permit)),
            Outcome::Interrupted(attempt) => Ok(Begun::Known(attempt)),
            // The journal never completes a job, so there are no replays and no conflicts.
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
        mut permit: Permit,
        request: Bytes,
    ) -> Result<JournalEntry, JournalError> {
        let (len, max) = (request.len(), Self::MAX_REQUEST_BYTES);
        if len > max {
            permit.release().await?;
            return Err(JournalError::TooLarge { len, max });
        }
        let kept = Kept { first_sent: self.clock.read(), request };
        for piece in kept.pieces() {
            if let Err(error) = permit.checkpoint(piece).await {
                // Free the incomplete entry's place. If that fails too, report the first error.
                let _ = permit.release().await;
                return Err(error.into());
            }
        }
        JournalEntry::new(permit, kept)
    }

    /// Resumes a job that an earlier holder left.
    ///
    /// # Errors
    ///
    /// [`JournalError::WindowPassed`], and [`JournalError::Store`].
    async fn resume(&self, attempt: Attempt, kept: Kept) -> Result<JournalEntry, JournalError> {
        if kept.age(&self.clock.read()) >= self.window {
            return Err(JournalError::WindowPassed { first_sent: kept.first_sent() });
        }
        JournalEntry::new(attempt.retry().await?, kept)
    }
}

/// A job as the store has it: new, or known from an earlier holder.
enum Begun {
    New(Permit),
    Known(Attempt),
}

impl JournalBuilder {
    /// Sets how long after first use a job's key may be reused (default 23 h).
    ///
    /// The window must be shorter than the server's retention by the longest possible call. Past it
    /// [`Journal::key_for`] returns [`JournalError::WindowPassed`].
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the maximum number of unfinished jobs (default 4096, at most 8192).
    ///
    /// Beyond it, [`Journal::key_for`] returns [`JournalError::Store`] with
    /// [`Error::Limit`](crate::Error::Limit).
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
        Ok(Journal { store, clock, window, scope: Scope::new("refrain journal") })
    }
}

impl JournalEntry {
    fn new(permit: Permit, kept: Kept) -> Result<Self, JournalError> {
        let key = permit.downstream_key(LABEL)?;
        let first_sent = kept.first_sent();
        Ok(Self { permit, key, request: kept.request, first_sent })
    }

    /// Returns the key to send with every attempt of this job.
    ///
    /// Do not send it once the journal's window has passed since [`first_sent`](Self::first_sent);
    /// find out what became of the job instead.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the request that was stored first, byte for byte.
    pub fn request(&self) -> &Bytes {
        &self.request
    }

    /// Returns the wall-clock time when the key was first handed out.
    pub fn first_sent(&self) -> SystemTime {
        self.first_sent
    }

    /// Returns true if an earlier holder, which died or gave up, may have sent the request.
    pub fn is_resumed(&self) -> bool {
        self.permit.attempt() > 1
    }

    /// Ends the entry. The next [`Journal::key_for`] with the job's name starts a new job.
    ///
    /// # Durability
    ///
    /// The end of the entry is durable when this returns. Store the answer first, because a
    /// finished job is not sent again.
    ///
    /// # Errors
    ///
    /// [`JournalError::Store`]; the entry may then still be in the journal.
    pub async fn done(self) -> Result<(), JournalError> {
        Ok(self.permit.release().await?)
    }
}

/// An entry's content, stored as the checkpoints of its claim.
struct Kept {
    first_sent: Reading,
    request: Bytes,
}

impl Kept {
    fn first_sent(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.first_sent.wall
    }

    /// The age by the boot clock while the machine stays up. Across a reboot, or in an unknown boot,
    /// it is the age by the wall clock, or by the boot clock if that is more.
    fn age(&self, now: &Reading) -> Duration {
        let then = &self.first_sent;
        let boot = now.boot.checked_sub(then.boot);
        if let Some(boot) = boot.filter(|_| now.shares_boot(then)) {
            return boot;
        }
        // A wall clock that went backwards proves nothing, so the entry counts as too old.
        let wall = now.wall.checked_sub(then.wall).unwrap_or(Duration::MAX);
        wall.max(boot.unwrap_or_default())
    }

    /// Decodes an entry; `None` if the checkpoints are incomplete.
    fn of(pieces: &[Bytes]) -> Result<Option<Self>, JournalError> {
        let mut bytes = pieces.iter().fold(BytesMut::new(), |mut all, piece| {
            all.extend_from_slice(piece);
            all
        });
        if bytes.len() < HEAD {
            return Ok(None);
        }
        let format = bytes.get_u8();
        if format != FORMAT {
            return Err(JournalError::Newer { found: format });
        }
        let wall = Duration::from_millis(bytes.get_u64_le());
        let boot = Duration::from_millis(bytes.get_u64_le());
        let mut boot_id = [0; 16];
        bytes.copy_to_slice(&mut boot_id);
        let len = bytes.get_u32_le() as usize;
        let whole = bytes.len() == len;
        let first_sent = Reading { boot_id, boot, wall };
        Ok(whole.then(|| Self { first_sent, request: bytes.freeze() }))
    }

    /// Encodes an entry, in pieces of the size of a checkpoint.
    fn pieces(&self) -> impl Iterator<Item = Bytes> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = BytesMut::with_capacity(HEAD + self.request.len());
        bytes.put_u8(FORMAT);
        bytes.put_u64_le(millis(self.first_sent.wall));
        bytes.put_u64_le(millis(self.first_sent.boot));
        bytes.put_slice(&self.first_sent.boot_id);
        bytes.put_u32_le(u32::try_from(self.request.len()).expect("the request fits an entry"));
        bytes.put_slice(&self.request);
        let bytes = bytes.freeze();
        (0..bytes.len())
            .step_by(PIECE_BYTES)
            .map(move |at| bytes.slice(at..bytes.len().min(at + PIECE_BYTES)))
    }
}
