//! What is asked of the database in a batch: claims and completions.

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
    Known(Box<Seen>),
    /// The key is not there. It was, if it could not be claimed: ask again.
    Unknown,
    Done(Done),
    /// The attempt that completes no longer has the key.
    Fenced,
}

/// The party that waits for a job.
pub(crate) trait Reply: Send {
    /// Tells the caller, at its deadline, that the outcome is not known yet.
    fn tell_late(&mut self);

    /// Acts on the outcome, whether or not the caller still waits.
    fn settle(self: Box<Self>, outcome: Result<Outcome, Trouble>);
}

pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) caller: Caller,
}

impl Job {
    pub(crate) fn new(work: Work, until: Option<Instant>, reply: impl Reply + 'static) -> Self {
        Self { work, caller: Caller { until, is_told: false, reply: Box::new(reply) } }
    }
}

pub(crate) struct Caller {
    until: Option<Instant>,
    /// Set once the deadline is over, and the caller knows.
    is_told: bool,
    pub(crate) reply: Box<dyn Reply>,
}

impl Caller {
    /// The time at which the caller is to be told that the outcome is late.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.until.filter(|_| !self.is_told)
    }

    pub(crate) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// Tells the caller, once, if the deadline is over.
    pub(crate) fn tell_if_late(&mut self) {
        if !self.is_told && self.is_late() {
            self.is_told = true;
            self.reply.tell_late();
        }
    }
}

/// A task that waits for the outcome itself, however late it is.
impl Reply for oneshot::Sender<Result<Outcome, Trouble>> {
    fn tell_late(&mut self) {}

    fn settle(self: Box<Self>, outcome: Result<Outcome, Trouble>) {
        // The task may have gone.
        let _ = self.send(outcome);
    }
}
