//! The right to run an operation: a [`Permit`].
//!
//! A permit is the face of a backend's claim. Its methods end the claim by a verdict, or add to it;
//! all of their commits are the backend's.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use http::Response;

use crate::backend::{Claim, Past, Rules};
use crate::error::{Error, Limit, Result};
use crate::key::{Key, RequestId, downstream_key};
use crate::observe;
use crate::record::{Record, to_store};
use crate::ticket::Ticket;

/// The right to run an operation, and the duty to report its outcome.
///
/// A verdict ends a permit: [`complete`](Self::complete) or [`release`](Self::release). If a permit
/// is dropped without a verdict, as by a panic or an early return, a volatile operation frees its
/// key and the next request runs; a durable one leaves the key interrupted, and the next request is
/// told.
///
/// ```
/// use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::builder().open_in_memory()?;
/// let scope = Scope::from_api_key("sk_live_51");
/// let operation = Operation::new(scope, "9b8cfa7a".parse()?, Fingerprint::of(["POST"])).durable();
/// let Outcome::Execute(mut permit) = store.begin(&operation).wait()? else { unreachable!() };
/// permit.checkpoint("asked the carrier").wait()?;
/// assert_eq!((permit.attempt(), permit.checkpoints().len()), (1, 1));
/// permit.release().wait()?; // the carrier refused, and nothing happened
/// assert!(matches!(store.begin(&operation).wait()?, Outcome::Execute(_)));
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a permit gives the key to the next request"]
pub struct Permit {
    claim: Box<dyn Claim>,
    rules: Rules,
}

impl Permit {
    pub(crate) fn new(claim: Box<dyn Claim>, rules: Rules) -> Self {
        Self { claim, rules }
    }

    /// Records the response of the operation. It is replayed until its TTL is over.
    ///
    /// A response over the store's limits is recorded as done without its response, and so is one
    /// whose body does not fit on a full disk: the operation never runs again, and
    /// [`Record::response`] is `None`. [`Trailers`](crate::record::Trailers) are taken from the
    /// response's extensions.
    ///
    /// # Durability
    ///
    /// Once the ticket is ready, the record survives a kill, a crash of the system and a power cut.
    /// Send no byte of the response before.
    ///
    /// # Errors
    ///
    /// - [`Error::Stopped`]: it is unknown until the store is reopened if the record is durable,
    ///   and the key stays in flight until then.
    /// - [`Error::Foreign`]: the path of the store leads elsewhere. The record is written where the
    ///   store is now, so that a retry finds it once the path leads back.
    /// - [`Error::Fenced`]: another node has taken the key over, and nothing was recorded.
    pub fn complete(self, response: &Response<Bytes>) -> Ticket<Record> {
        let kept = self.rules.keep(response).then(|| to_store(response));
        self.finish(kept)
    }

    /// Records that the operation is done, without a response to replay.
    ///
    /// Use it for a response that is streamed. Durability and errors are those of
    /// [`complete`](Self::complete).
    pub fn complete_without_response(self) -> Ticket<Record> {
        self.finish(None)
    }

    fn finish(mut self, response: Option<Response<Bytes>>) -> Ticket<Record> {
        self.claim.hold().retain_if_dropped();
        // Counted where its record answers those who wait: by then it is known what was kept.
        self.claim.complete(response)
    }

    /// Frees the key, because nothing happened. The next request with the key runs.
    ///
    /// # Durability
    ///
    /// Once the ticket is ready, a durable claim is gone for good. A volatile claim leaves nothing
    /// behind, and its ticket is ready at once.
    ///
    /// # Errors
    ///
    /// For a durable claim [`Error::Stopped`]: it is unknown until the store is reopened if the
    /// claim is gone; and [`Error::Foreign`] if the path of the store leads elsewhere: the key is
    /// interrupted.
    pub fn release(self) -> Ticket<()> {
        counted("released", self.claim.release())
    }

    /// Gives up the key because its outcome is unknown. The key becomes interrupted, even if its
    /// claim was volatile, and the next request is told.
    ///
    /// # Durability
    ///
    /// Once the ticket is ready, the interruption survives a kill, a crash of the system and a
    /// power cut.
    ///
    /// # Errors
    ///
    /// - [`Error::Limit`] for the store's durable claims, or [`Error::Stopped`]. The key then stays
    ///   claimed for as long as the process lives.
    /// - [`Error::Foreign`], as with [`complete`](Self::complete).
    pub fn interrupt(mut self) -> Ticket<()> {
        self.claim.hold().retain_if_dropped();
        counted("interrupted", self.claim.interrupt())
    }

    /// Gives up the key without a verdict, for a program that cannot tell the outcome, as when a
    /// runtime ends in the middle of a handler.
    ///
    /// A volatile key stays claimed for as long as the process lives; a durable one is interrupted.
    /// Nothing is written.
    pub fn abandon(mut self) {
        if !self.claim.past().is_durable() {
            self.claim.hold().retain_if_dropped();
        }
    }

    /// Stores a recovery point. If this run is interrupted, an [`Attempt`](crate::Attempt) returns
    /// it.
    ///
    /// # Durability
    ///
    /// The recovery point survives a power cut once the ticket is ready.
    ///
    /// # Errors
    ///
    /// - [`Error::Volatile`] if the operation is not durable.
    /// - [`Error::Limit`] for more than 16 checkpoints of one operation, for one of more than 16
    ///   KiB, and if all checkpoints of the store exceed an eighth of a log.
    /// - [`Error::Full`] if there is no room on the disk, [`Error::Behind`] or
    ///   [`Error::Unavailable`] if there is none in the logs, and [`Error::Stopped`].
    pub fn checkpoint(&mut self, data: impl Into<Bytes>) -> Ticket<()> {
        let data = data.into();
        match self.admit_checkpoint(data.len()) {
            Ok(()) => self.claim.checkpoint(data),
            Err(error) => Ticket::ready(Err(error)),
        }
    }

    fn admit_checkpoint(&self, bytes: usize) -> Result<()> {
        if !self.claim.past().is_durable() {
            return Err(Error::Volatile);
        }
        if self.checkpoints().len() >= Past::MAX_CHECKPOINTS {
            return Err(Error::limit(Limit::Checkpoints, Past::MAX_CHECKPOINTS));
        }
        if bytes > Past::MAX_CHECKPOINT_BYTES {
            return Err(Error::limit(Limit::CheckpointBytes, Past::MAX_CHECKPOINT_BYTES));
        }
        Ok(())
    }

    /// Derives the idempotency key to send to the next service. It is stable over attempts and
    /// restarts. Once this operation's key is free again, released or expired, it changes.
    ///
    /// Different labels give different keys, for operations that call more than one service.
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`] if the operation is not durable.
    pub fn downstream_key(&self, label: &str) -> Result<Key> {
        let past = self.claim.past();
        let seed = past.seed.ok_or(Error::Volatile)?;
        Ok(downstream_key(&seed, past.scope, &past.key, label))
    }

    /// Returns the number of this run of the operation, counted from 1. A volatile run is always
    /// the first.
    pub fn attempt(&self) -> u32 {
        self.claim.past().attempt
    }

    /// Returns the recovery points of earlier attempts and of this one, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        &self.claim.past().checkpoints
    }

    /// Returns the client's key.
    pub fn key(&self) -> &Key {
        &self.claim.past().key
    }

    /// Returns the name of the request that holds the permit.
    pub fn request_id(&self) -> &RequestId {
        &self.claim.past().request_id
    }

    /// Lends the backend's own claim, for what only that backend can do, such as completing inside
    /// a transaction of the database. `None` if the claim is another backend's.
    pub fn claim_mut<C: Claim>(&mut self) -> Option<&mut C> {
        let any: &mut dyn Any = &mut *self.claim;
        any.downcast_mut()
    }

    /// Takes the backend's own claim out of the permit, as [`claim_mut`](Self::claim_mut) lends it.
    ///
    /// The claim then wants its verdict from the caller. Before a verdict that says that the
    /// operation ran, call [`Hold::retain_if_dropped`](crate::backend::Hold::retain_if_dropped).
    ///
    /// # Errors
    ///
    /// The permit itself, if the claim is of another type.
    pub fn into_claim<C: Claim>(self) -> Result<Box<C>, Self> {
        let any: &dyn Any = &*self.claim;
        if !any.is::<C>() {
            return Err(self);
        }
        let any: Box<dyn Any> = self.claim;
        Ok(any.downcast().expect("its type was looked at"))
    }
}

/// Counts a verdict once it is durable, unless nobody waits for that.
fn counted(name: &'static str, ticket: Ticket<()>) -> Ticket<()> {
    if cfg!(feature = "metrics") { ticket.map(move |()| observe::ended(name)) } else { ticket }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("request_id", self.request_id())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
