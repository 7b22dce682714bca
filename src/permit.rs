//! The owner of a key that may run: a [`Permit`].

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use http::Response;

use crate::backend::{Claim, Rules};
use crate::error::{Error, Result};
use crate::key::{Key, RequestId, downstream_key};
use crate::observe;
use crate::record::{Record, fits};
use crate::ticket::Ticket;

/// The right to run an operation, and the duty to say how it ended.
///
/// A verdict ends it: [`complete`](Self::complete) or [`release`](Self::release). Dropped without
/// one, as by a panic or an early return, a volatile operation frees its key, and the next request
/// runs; a durable one leaves the key interrupted, and the next request is told.
#[must_use = "dropping a permit gives the key to the next request"]
pub struct Permit {
    claim: Box<dyn Claim>,
    rules: Rules,
}

impl Permit {
    pub(crate) fn new(claim: Box<dyn Claim>, rules: Rules) -> Self {
        Self { claim, rules }
    }

    /// Records the response as the operation's, for as long as its TTL.
    ///
    /// A response over the store's limits is recorded as done without it, and so is one whose body
    /// finds no room on a full disk: the operation never runs again, and [`Record::response`] is
    /// `None`. [`Trailers`](crate::record::Trailers) are taken from the extensions.
    ///
    /// # Durability
    ///
    /// Once the ticket is ready the record survives a kill, a crash of the system and a power cut.
    /// Send no byte of the response before.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`]: whether the record is durable is unknown until the store is reopened,
    /// and the key stays in flight until then. [`Error::Fenced`]: another node has taken the key
    /// over, and nothing was recorded.
    pub fn complete(self, response: &Response<Bytes>) -> Ticket<Record> {
        let kept = fits(response, self.rules.max_response_bytes).then(|| response.clone());
        self.finish(kept)
    }

    /// Records that the operation is done, without a response to replay.
    ///
    /// For a response that is streamed. Durability and errors are those of
    /// [`complete`](Self::complete).
    pub fn complete_without_response(self) -> Ticket<Record> {
        self.finish(None)
    }

    fn finish(self, response: Option<Response<Bytes>>) -> Ticket<Record> {
        observe::ended(if response.is_some() { "stored" } else { "without_response" });
        self.claim.complete(response)
    }

    /// Frees the key, because nothing happened: the next request runs.
    ///
    /// # Durability
    ///
    /// A durable claim is gone for good once the ticket is ready. A volatile one leaves nothing
    /// behind, and its ticket is ready at once.
    pub fn release(self) -> Ticket<()> {
        observe::ended("released");
        self.claim.release()
    }

    /// Gives up the key without knowing what happened: the key becomes interrupted, even if its
    /// claim was volatile, and the next request is told.
    ///
    /// # Durability
    ///
    /// Once the ticket is ready that survives a kill, a crash of the system and a power cut.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] for the store's durable claims, [`Error::Full`] or [`Error::Stopped`]; the
    /// key then stays claimed for as long as the process lives.
    pub fn interrupt(self) -> Ticket<()> {
        observe::ended("interrupted");
        self.claim.interrupt()
    }

    /// Gives up the key without a verdict, where what follows is not for this process to say, as
    /// when a runtime ends in the middle of a handler. A volatile key stays claimed for as long as
    /// the process lives; a durable one is interrupted.
    pub fn abandon(self) {
        self.claim.abandon();
    }

    /// Stores a recovery point, which an [`Attempt`](crate::Attempt) hands back if this run is
    /// interrupted.
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`] if the operation is not durable; [`Error::Limit`] over 16 checkpoints,
    /// 16 KiB for one, or the store's bound for all; [`Error::Full`].
    ///
    /// # Durability
    ///
    /// The recovery point survives a power cut once the ticket is ready.
    pub fn checkpoint(&mut self, data: impl Into<Bytes>) -> Ticket<()> {
        self.claim.checkpoint(data.into())
    }

    /// Derives a key to hand to the next service: stable over attempts and restarts, and new once
    /// this operation's key is free again, released or expired.
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`] if the operation is not durable.
    pub fn downstream_key(&self, label: &str) -> Result<Key> {
        let seed = self.claim.seed().ok_or(Error::Volatile)?;
        let past = self.claim.past();
        Ok(downstream_key(&seed, past.scope, &past.key, label))
    }

    /// The number of this run of the operation, counted from 1. A volatile one is always the first.
    pub fn attempt(&self) -> u32 {
        self.claim.past().attempt
    }

    /// The recovery points of earlier attempts and of this one, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        &self.claim.past().checkpoints
    }

    /// The client's key.
    pub fn key(&self) -> &Key {
        &self.claim.past().key
    }

    /// The request that holds the permit.
    pub fn request_id(&self) -> &RequestId {
        &self.claim.past().request_id
    }

    /// Takes the backend's own claim out of the permit, for what only that backend can do, such as
    /// completing inside a transaction of the database.
    ///
    /// # Errors
    ///
    /// The permit itself, if the claim is another backend's.
    pub fn into_claim<C: Claim>(self) -> Result<Box<C>, Self> {
        let any: &dyn Any = &*self.claim;
        if !any.is::<C>() {
            return Err(self);
        }
        let any: Box<dyn Any> = self.claim;
        Ok(any.downcast().expect("its type was looked at"))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("request_id", self.request_id())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
