//! Keys that outlive their process: which job was sent under which key, until it is done.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::clock::{Clock, Reading, SystemClock};
use crate::key::InvalidKey;
use crate::{Attempt, Builder, Fingerprint, Key, Operation, Outcome, Permit, Scope, Store};

/// As long as a store keeps anything: entries are to end by [`JournalEntry::done`].
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// What a claim keeps: so many pieces, so long.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 16 * 1024;
/// In front of the request: format, when its key was handed out first, length.
const HEAD: usize = 1 + (8 + 8 + 16) + 4;
const FORMAT: u8 = 1;
const LABEL: &str = "job";

/// The keys and requests of jobs that are not done, in a store of its own.
///
/// A worker that dies after it sent a request, and before it heard back, cannot know whether the
/// server acted. Started again, it asks the journal for the same job, gets the same key and the same
/// bytes, and sends them again: the server runs it once.
///
/// One process has a journal open at a time, and the directory must be local, as for
/// [`Store`]. Entries that nobody asks for in ten years are forgotten.
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

/// Opens a journal otherwise than [`Journal::open`] does.
#[derive(Debug)]
#[must_use]
pub struct JournalBuilder {
    store: Builder,
    clock: Arc<dyn Clock>,
    window: Duration,
    max_jobs: usize,
}

/// A job that is not done, and is this process's to do.
///
/// Dropped without [`done`](Self::done) it stays in the journal, for the next who asks.
#[derive(Debug)]
#[must_use = "a job is in the journal until it is done"]
pub struct JournalEntry {
    permit: Permit,
    key: Key,
    request: Bytes,
    first_sent: SystemTime,
}

/// Why a journal cannot say which key a job has.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// A job's name is 1 to 255 visible ASCII characters.
    #[error("the job's name is no key, 1 to 255 visible ASCII characters without spaces: {0}")]
    InvalidJob(InvalidKey),
    /// This process has the job's entry out already.
    #[error("the job is being done")]
    InUse,
    /// The server may have forgotten the key, and would run the request again under it, or under any
    /// other; to ask again does not change that. Find out what became of the job, end its entry with [`Journal::done`], and then ask for a new
    /// key if it must be sent again.
    #[error("the server's window for the job's key has passed")]
    WindowPassed {
        /// When the key was first handed out.
        first_sent: SystemTime,
    },
    /// The request is too long to be kept. Nothing was written.
    #[error("a request of {len} bytes is too long to be kept; {max} fit")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The longest.
        max: usize,
    },
    /// A later version of this crate wrote the entry.
    #[error("the job's entry has format {found}, and this version reads up to {FORMAT}")]
    Newer {
        /// The format.
        found: u8,
    },
    /// The store could not do what it was asked.
    #[error("the journal's store failed")]
    Store(#[from] crate::Error),
}

impl Journal {
    /// The longest request that an entry keeps.
    pub const MAX_REQUEST_BYTES: usize = PIECES * PIECE_BYTES - HEAD;

    /// Opens a journal, or makes one, for servers whose window is 24 hours. Its files take some 192 MiB.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`].
    pub fn open(path: impl AsRef<Path>) -> crate::Result<Self> {
        Self::builder().open(path)
    }

    /// A journal with other limits.
    pub fn builder() -> JournalBuilder {
        JournalBuilder {
            store: Store::builder().ttl(TEN_YEARS).log_bytes(LOG_BYTES),
            clock: Arc::new(SystemClock::new()),
            window: Duration::from_secs(23 * 60 * 60),
            max_jobs: 4096,
        }
    }

    /// The key of a job, and its request: those of the journal if it has the job, whatever `request` is
    /// now, and otherwise a new key for `request`. A job's name is 1 to 255 visible ASCII characters,
    /// without spaces.
    ///
    /// # Durability
    ///
    /// Both are on disk before they are handed out.
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
                    // It broke off before its key was handed out.
                    None => attempt.release().await?,
                },
            }
        }
    }

    /// Ends a job's entry, if it has one, whatever became of it.
    ///
    /// # Errors
    ///
    /// [`JournalError::InUse`] while this process has the entry out, and those of the store.
    pub async fn done(&self, job: &str) -> Result<(), JournalError> {
        match self.begin(&self.operation(job)?).await? {
            Begun::New(permit) => permit.release().await?,
            Begun::Known(attempt) => attempt.release().await?,
        }
        Ok(())
    }

    fn operation(&self, job: &str) -> Result<Operation, JournalError> {
        let job: Key = job.parse().map_err(JournalError::InvalidJob)?;
        Ok(Operation::new(self.scope, job, Fingerprint::of([LABEL])).durable())
    }

    async fn begin(&self, operation: &Operation) -> Result<Begun, JournalError> {
        let mut begin = self.store.begin(operation);
        begin.give_up();
        match begin.await? {
            Outcome::Execute(permit) => Ok(Begun::New(permit)),
            Outcome::Interrupted(attempt) => Ok(Begun::Known(attempt)),
            // Nothing here completes a job, so nothing is replayed or conflicts.
            _ => Err(JournalError::InUse),
        }
    }

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
                // What is there of it takes room that another job may need. If that cannot be given back,
                // the error at hand is the one to tell.
                let _ = permit.release().await;
                return Err(error.into());
            }
        }
        JournalEntry::new(permit, kept)
    }

    async fn resume(&self, attempt: Attempt, kept: Kept) -> Result<JournalEntry, JournalError> {
        if kept.age(&self.clock.read()) >= self.window {
            return Err(JournalError::WindowPassed { first_sent: kept.first_sent() });
        }
        JournalEntry::new(attempt.retry().await?, kept)
    }
}

enum Begun {
    New(Permit),
    Known(Attempt),
}

impl JournalBuilder {
    /// Until how long after a job's key was first handed out it is handed out again: 23 hours. That must be
    /// less than what the server keeps its records for, by as long as a call may take with all its
    /// attempts.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// How many jobs may be in the journal at once: 4096, and 8192 at most.
    pub fn max_jobs(mut self, max: usize) -> Self {
        self.max_jobs = max;
        self
    }

    /// Another clock, for tests.
    pub fn clock(mut self, clock: impl Clock + Clone) -> Self {
        self.store = self.store.clock(clock.clone());
        self.clock = Arc::new(clock);
        self
    }

    /// Opens the journal.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`].
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

    /// The key to send the request under, each time, until the journal's window has passed since
    /// [`first_sent`](Self::first_sent); after that look what became of the job.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The request as it was first asked for.
    pub fn request(&self) -> &Bytes {
        &self.request
    }

    /// When the key was first handed out.
    pub fn first_sent(&self) -> SystemTime {
        self.first_sent
    }

    /// Whether the request may have been sent before: by a process that died, or one that gave up.
    pub fn is_resumed(&self) -> bool {
        self.permit.attempt() > 1
    }

    /// Ends the entry: the job's outcome is known, and the next time that it is asked for it is another.
    ///
    /// # Durability
    ///
    /// What is to be done with the answer should be done before, for a job that is done is not sent again.
    ///
    /// # Errors
    ///
    /// Those of the store; the entry may then still be there.
    pub async fn done(self) -> Result<(), JournalError> {
        Ok(self.permit.release().await?)
    }
}

/// What a claim's checkpoints say.
struct Kept {
    first_sent: Reading,
    request: Bytes,
}

impl Kept {
    fn first_sent(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.first_sent.wall
    }

    /// While the machine is up, whatever is done to its wall clock; over a reboot that is all there is.
    fn age(&self, now: &Reading) -> Duration {
        let then = &self.first_sent;
        let boot = now.boot.checked_sub(then.boot).filter(|_| now.boot_id == then.boot_id);
        // A clock that is behind what it said before says nothing.
        boot.or_else(|| now.wall.checked_sub(then.wall)).unwrap_or(Duration::MAX)
    }

    /// `None` if they break off.
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

    fn pieces(&self) -> impl Iterator<Item = Bytes> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = BytesMut::with_capacity(HEAD + self.request.len());
        bytes.put_u8(FORMAT);
        bytes.put_u64_le(millis(self.first_sent.wall));
        bytes.put_u64_le(millis(self.first_sent.boot));
        bytes.put_slice(&self.first_sent.boot_id);
        bytes.put_u32_le(u32::try_from(self.request.len()).expect("it was measured"));
        bytes.put_slice(&self.request);
        let bytes = bytes.freeze();
        (0..bytes.len())
            .step_by(PIECE_BYTES)
            .map(move |at| bytes.slice(at..bytes.len().min(at + PIECE_BYTES)))
    }
}
