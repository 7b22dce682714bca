//! The jobs of a batch, which the database does at once: claims and completions.

use std::sync::{Arc, Mutex};

use refrain::backend::{Asked, Hold};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::session::millis;
use crate::statements::{Done, Seen, state};
use crate::trouble::Trouble;

/// A claim to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) address: Uuid,
    pub(crate) attempt: Uuid,
    pub(crate) state: i16,
    pub(crate) ttl_ms: i64,
    /// The scope and the key, kept while a durable claim is open.
    pub(crate) scope: Option<Vec<u8>>,
    pub(crate) key: Option<String>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) request_id: String,
}

impl Wanted {
    pub(crate) fn new(asked: &Asked, hold: &Hold, address: Uuid, attempt: Uuid) -> Self {
        let (scope, key) = (hold.scope(), hold.key());
        Self {
            address,
            attempt,
            state: if asked.durable { state::DURABLE } else { state::CLAIMED },
            ttl_ms: millis(asked.ttl),
            scope: asked.durable.then(|| scope.as_bytes().to_vec()),
            key: asked.durable.then(|| key.as_str().to_owned()),
            fingerprint: asked.fingerprint.as_bytes().to_vec(),
            request_id: asked.request_id.as_str().to_owned(),
        }
    }
}

/// A completion to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Completion {
    pub(crate) address: Uuid,
    pub(crate) attempt: Uuid,
    pub(crate) ttl_ms: i64,
    pub(crate) scope: Vec<u8>,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// Given up at its deadline, unless it is on its way.
    Claim(Wanted),
    /// Repeated until its outcome is known.
    Complete(Completion),
    /// The row of a key is read. Given up at its deadline.
    Find(Uuid),
}

impl Work {
    /// The bytes that it adds to a statement, roughly.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Complete(completion) => completion.payload.len(),
            Self::Claim(_) | Self::Find(_) => 0,
        }
    }

    pub(crate) fn address(&self) -> Uuid {
        match self {
            Self::Claim(wanted) => wanted.address,
            Self::Complete(completion) => completion.address,
            Self::Find(address) => *address,
        }
    }
}

/// The database's answer to a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The attempt has its key.
    Won,
    /// The key is there, and was before.
    Known(Arc<Seen>),
    /// The key is not there. It was, if it could not be claimed: ask again.
    Unknown,
    Done(Done),
    /// The attempt that completes no longer has the key.
    Fenced,
}

/// The party that waits for a job.
pub(crate) trait Reply: Send {
    /// Tells the caller, if that is still to be done, that the outcome is not known yet, and why.
    fn tell(&mut self, trouble: Trouble);

    /// Acts on the outcome, whether or not the caller still waits. Called once. What was never sent
    /// has had no effect.
    fn end(&mut self, outcome: Result<Outcome, Trouble>, is_sent: bool);
}

pub(crate) type SharedReply = Arc<Mutex<dyn Reply>>;

pub(crate) struct Job {
    pub(crate) work: Work,
    /// The time from which on the work is not begun any more, unless it is a completion.
    pub(crate) until: Option<Instant>,
    pub(crate) reply: SharedReply,
    /// Set once the database may have been told.
    pub(crate) is_sent: bool,
}

impl Job {
    pub(crate) fn new(work: Work, until: Option<Instant>, reply: impl Reply + 'static) -> Self {
        Self { work, until, reply: Arc::new(Mutex::new(reply)), is_sent: false }
    }

    /// Returns whether nobody wants the job done any more.
    pub(crate) fn is_over(&self) -> bool {
        let is_late = self.until.is_some_and(|until| until <= Instant::now());
        is_late && !matches!(self.work, Work::Complete(_))
    }
}

/// A task that waits for the outcome itself.
impl Reply for Option<oneshot::Sender<Result<Outcome, Trouble>>> {
    fn tell(&mut self, _trouble: Trouble) {}

    fn end(&mut self, outcome: Result<Outcome, Trouble>, _is_sent: bool) {
        if let Some(sender) = self.take() {
            // The task may have gone.
            let _ = sender.send(outcome);
        }
    }
}
