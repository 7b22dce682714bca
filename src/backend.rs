//! The seam behind a [`Store`](crate::Store): a [`Backend`] keeps the records, and its [`Claim`]s
//! carry the verdicts.
//!
//! The store's face is the same over every backend, so a program chooses one at run time and a
//! handler never knows which. Requests of one process that share a key meet in a table in front of
//! the backend: the backend sees one request for a key at a time from each process.
//!
//! ```text
//!  begin ──► table: is the key held here? ──yes──► wait for the holder
//!                     │ no
//!                     ▼
//!             Backend::claim(asked, hold) ──► Answer: claimed, recorded, interrupted, elsewhere
//!                     │ claimed
//!                     ▼
//!             Claim::complete / release ──► durable, published, and only then: hold freed
//! ```
//!
//! Answers are [`Ticket`]s: a backend that knows the answer at once returns [`Ticket::ready`], and
//! one that has to ask a disk or a database keeps the [`Promise`] of [`Ticket::new`] and fulfils it
//! from a thread or a task of its own.
//!
//! **Open to change until 1.0.** The shape of this module follows its second and third backend.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Response;

use crate::error::{Error, Result};
use crate::key::{Fingerprint, Key, RequestId, Scope};
use crate::record::{Record, fits};
use crate::stats::Stats;

mod past;

pub use crate::cursor::Cursor;
pub use crate::listed::Listed;
pub use crate::record::Completion;
pub use crate::table::{Hold, InFlight, Limits, Stage};
pub use crate::ticket::{Promise, Ticket};
pub use past::Past;

/// The keeper of a store's records.
///
/// What it answers must be durable by its own rules: an answer that says *claimed* for a durable
/// operation, or a verdict's ticket that is ready, is a promise to the client. A backend that
/// cannot tell fails; it never takes damage or silence for absence.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Claims a key for an operation, or says what is known about the key.
    ///
    /// `hold` is the key, held in this process. The claim carries it, and frees it once the verdict
    /// is durable. Where there is no claim to carry it, it is freed here: by
    /// [`Answer::recorded`] for a record that was found, or by dropping it.
    ///
    /// The ticket must be ready within a time that the backend sets: a caller that gives up waits
    /// for it nevertheless. A backend that has no room for the key yet answers
    /// [`Answer::Delayed`].
    ///
    /// # Errors
    ///
    /// Any. Nothing runs under the claim: a backend that cannot tell whether it was made undoes it,
    /// and
    /// [retains](Hold::retain) the key where it cannot.
    fn claim(&self, asked: Asked, hold: Hold) -> Ticket<Answer>;

    /// Finds the live record of a key.
    fn find(&self, scope: Scope, key: &Key) -> Ticket<Option<Record>>;

    /// Forgets all that is known about a key, an interrupted run included, and frees the hold.
    ///
    /// # Durability
    ///
    /// The record is gone for good once the ticket is ready.
    fn forget(&self, hold: Hold) -> Ticket<()>;

    /// Lists interrupted runs in the order of the bytes of their scopes and keys, from behind
    /// `after` on: `max` of them, or fewer if there are no more. `max` is small. A run expires one
    /// TTL after its last attempt began; checkpoints do not extend that. Expired runs are left out.
    /// The store leaves out those that a request of this process is judging.
    fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>>;

    /// Lists the live records of one scope, or of all, in the order of the bytes of scopes and keys,
    /// from behind `after` on, as they are when this is called. Nothing is read before the list is
    /// asked for its first lines.
    ///
    /// A backend that keeps no such list says so by [`Error::Unavailable`] on the first call.
    fn records(
        &self,
        scope: Option<Scope>,
        after: Option<Cursor>,
        detail: Detail,
    ) -> Box<dyn Listing> {
        let _ = (scope, after, detail);
        Box::new(Unlisted)
    }

    /// Returns the time by the backend's clock. A record is replayed until its
    /// [`expires_at`](Record::expires_at), and not from then on.
    fn now(&self) -> SystemTime;

    /// Returns the limits that callers keep to, the same for as long as the backend lives. The
    /// store stores no body over [`MAX_BODY_BYTES`](crate::codec::MAX_BODY_BYTES), whatever they
    /// say.
    fn rules(&self) -> Rules {
        Rules::default()
    }

    /// Fails if the backend takes no more work, as after an error that it does not survive.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Returns true if [`claim`](Self::claim) and [`find`](Self::find) would read from a disk for
    /// this key before they return. Cheap: no disk is asked. `false` by default, for a backend whose
    /// tickets do the waiting.
    fn reads_disk(&self, _scope: Scope, _key: &Key) -> bool {
        false
    }

    /// Returns the backend's figures, cheap: no disk and no network is asked. All are zero for a
    /// backend that counts nothing; the store counts the operations in flight itself. With
    /// [`check`](Self::check) they make the store's [`Health`](crate::Health).
    fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Reads all that is kept and verifies it. A backend with nothing to verify says so by being
    /// ready at once.
    fn verify(&self) -> Ticket<()> {
        Ticket::ready(Ok(()))
    }

    /// Copies all that is kept into a directory that is empty or missing, while work goes on.
    ///
    /// A backend without files, whose database has tools of its own for this, says so by
    /// [`Error::Unavailable`].
    fn backup(&self, path: &Path) -> Ticket<()> {
        let _ = path;
        Ticket::ready(Err(Error::unavailable("the backend has no files to back up")))
    }

    /// Keeps a note of an operator, durably: one line. A backend that has no place for notes answers
    /// with an error, which is the default.
    fn note(&self, note: &str) -> Ticket<()> {
        let _ = note;
        Ticket::ready(Err(Error::unavailable("the backend has no place for notes")))
    }

    /// Returns the notes of operators that it still keeps, the oldest first.
    fn notes(&self) -> Ticket<Vec<String>> {
        Ticket::ready(Err(Error::unavailable("the backend has no place for notes")))
    }

    /// Does at once what background work would do in time, such as removing expired records.
    fn reap(&self) -> Ticket<()> {
        Ticket::ready(Ok(()))
    }

    /// Removes the bytes of all records that were forgotten, or had expired, before this was
    /// called. A backend that cannot tell when they are gone answers with an error, which is the
    /// default.
    ///
    /// # Durability
    ///
    /// The bytes are gone from the files that the backend writes once the ticket is ready, and a
    /// power cut does not bring them back.
    fn purge(&self) -> Ticket<()> {
        Ticket::ready(Err(Error::unavailable("the backend has no files to purge")))
    }

    /// Takes no more work, and lets go of what the backend holds. The store has refused new
    /// requests before, and waited for those in flight; verdicts of the ones that are left come too
    /// late.
    ///
    /// Every ticket that the backend still owes is answered, with an error at the latest: an
    /// [`Elsewhere`](Answer::Elsewhere) too. Called more than once, also by the last handle as it
    /// is dropped, which does not wait for the ticket.
    fn close(&self) -> Ticket<()> {
        Ticket::ready(Ok(()))
    }
}

/// A list of records that is read a page at a time.
pub trait Listing: fmt::Debug + Send {
    /// Reads the next lines: at most `max`, which is not zero, and none after the last one. A page
    /// with responses may be shorter, so that it stays small.
    ///
    /// # Errors
    ///
    /// Any. Nobody asks again after one.
    fn next(&mut self, max: usize) -> Ticket<Vec<Listed>>;
}

/// The parts of each record that are listed. Complete: a response is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All but the response.
    Summaries,
    /// The whole record.
    Responses,
}

/// The list of a backend that has none.
#[derive(Debug)]
struct Unlisted;

impl Listing for Unlisted {
    fn next(&mut self, _max: usize) -> Ticket<Vec<Listed>> {
        Ticket::ready(Err(Error::unavailable("the backend does not list its records")))
    }
}

/// A request to claim a key: what the operation says about itself, its key apart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// The use that the key is put to.
    pub fingerprint: Fingerprint,
    /// The request that asks.
    pub request_id: RequestId,
    /// The time for which the record will be kept, within the backend's [`Rules`].
    pub ttl: Duration,
    /// Set if the claim must be durable before the answer is ready.
    pub durable: bool,
}

impl Asked {
    pub(crate) fn new(
        fingerprint: Fingerprint,
        request_id: RequestId,
        ttl: Duration,
        durable: bool,
    ) -> Self {
        Self { fingerprint, request_id, ttl, durable }
    }
}

/// The state of a key that was asked for. Complete: each calls for something else.
#[derive(Debug)]
pub enum Answer {
    /// The key was free and unknown, and is the caller's.
    Claimed(Granted),
    /// The key has a live record, whatever its fingerprint.
    Recorded(Record),
    /// An earlier run was interrupted: the claim of that run, with the key in hand.
    Interrupted(Box<dyn Claim>),
    /// A request on another node has the key. The face waits for `changed` with the key in hand, so
    /// that one request a process and key watches the other node, and then asks again.
    Elsewhere {
        /// The request that holds the key there.
        holder: RequestId,
        /// The key, held in this process, as it was given to [`Backend::claim`].
        hold: Hold,
        /// Ready when asking again may bring another answer; its value and its errors mean nothing.
        /// The backend paces it: a ticket that is ready at once makes a busy loop over the
        /// database. Dropped when the caller gives up.
        changed: Ticket<()>,
    },
    /// The key is free and unknown, and the backend has no room for it yet. The face waits until it
    /// has, or until the caller gives up.
    Delayed(Box<Delayed>),
}

/// A wait for room, as part of [`Answer::Delayed`].
#[derive(Debug)]
pub struct Delayed {
    /// Ready once there is room, with the ticket of the answer. It has the key: dropped, it frees
    /// the key and gives up its place at once, and nothing runs.
    pub turn: Ticket<Ticket<Answer>>,
    /// The error for a caller who gives up.
    pub refused: Error,
}

impl Answer {
    /// Returns the answer for a record that was found, and frees the key: all who wait for the key
    /// get the record.
    pub fn recorded(record: Record, hold: Hold) -> Self {
        hold.answer(&record);
        Self::Recorded(record)
    }
}

/// A new claim, under which nothing has run yet.
///
/// Dropped, as by a request that was cancelled while its claim became durable, the claim is
/// released, because nothing ran.
#[derive(Debug)]
pub struct Granted(Option<Box<dyn Claim>>);

impl Granted {
    /// Wraps a claim on its way to the caller.
    pub fn new(claim: Box<dyn Claim>) -> Self {
        Self(Some(claim))
    }

    /// Takes the claim, under which the caller runs.
    pub fn into_claim(mut self) -> Box<dyn Claim> {
        self.0.take().expect("a claim is taken once, with its wrapper")
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(claim) = self.0.take() {
            // Nobody is left to wait for it.
            drop(claim.release());
        }
    }
}

/// A key that was claimed for one run.
///
/// Each method that takes the claim is a verdict, and ends with the hold: [`Hold::answer_with`] and
/// [`Hold::free_with`] do what the outcome demands. A claim that is dropped without a verdict
/// leaves its key interrupted if it was durable. If it was volatile, the key is free, unless its
/// hold
/// [is retained](Hold::is_retained).
pub trait Claim: Any + fmt::Debug + Send + Sync {
    /// Returns the facts about the run under this claim, its checkpoints included.
    fn past(&self) -> &Past;

    /// Lends the key in hand.
    fn hold(&mut self) -> &mut Hold;

    /// Records the response, or with `None` that the operation is done and its response was not
    /// kept.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] if another node has taken the key over: nothing was
    /// recorded. After any other error the outcome is unknown, and the key is retained;
    /// [`Hold::answer_with`] does both.
    ///
    /// # Durability
    ///
    /// The record survives a power cut once the ticket is ready.
    fn complete(self: Box<Self>, response: Option<Response<Bytes>>) -> Ticket<Record>;

    /// Frees the key, durably if the claim was, because nothing happened.
    ///
    /// # Errors
    ///
    /// As for [`complete`](Self::complete); [`Hold::free_with`] does what they demand.
    fn release(self: Box<Self>) -> Ticket<()>;

    /// Makes the key interrupted, durably, because nobody knows what happened.
    ///
    /// # Errors
    ///
    /// As for [`complete`](Self::complete); [`Hold::free_with`] does what they demand.
    fn interrupt(self: Box<Self>) -> Ticket<()>;

    /// Stores a recovery point of this run. It is asked only of a durable claim, and within the
    /// limits of [`Past`].
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] over a limit of the backend's own.
    fn checkpoint(&mut self, data: Bytes) -> Ticket<()>;

    /// Begins the next attempt of an interrupted run, as the request that asks.
    ///
    /// If the ticket is dropped before it is ready, the new claim stays durable and the key
    /// interrupted.
    fn retry(self: Box<Self>, asked: Asked) -> Ticket<Box<dyn Claim>>;
}

/// The limits of a backend that callers keep to: 24 hours and 1 MiB by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The longest TTL of a record, and the default.
    pub ttl: Duration,
    /// The longest response body that is stored, in bytes.
    pub max_response_bytes: usize,
}

impl Rules {
    /// Returns whether a response is within the limits for storing it: those of its body here, and
    /// those of its headers in [`Record`].
    pub fn keep(&self, response: &Response<Bytes>) -> bool {
        fits(response, self.max_response_bytes)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(24 * 60 * 60), max_response_bytes: 1024 * 1024 }
    }
}
