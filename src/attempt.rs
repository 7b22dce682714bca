//! An earlier run to judge: an [`Attempt`].

use std::fmt;

use bytes::Bytes;
use http::Response;

use crate::backend::{Asked, Claim, Rules};
use crate::error::{Error, Result};
use crate::key::{Key, RequestId, downstream_key};
use crate::permit::Permit;
use crate::record::Record;
use crate::ticket::Ticket;

/// An earlier run that was claimed durably and then interrupted: nobody knows what it did.
///
/// Say what you find out: [`complete`](Self::complete) it, [`release`](Self::release) it if it did
/// nothing, or [`retry`](Self::retry) it. Dropped, it stays interrupted.
#[must_use = "an interrupted attempt stays interrupted until it is judged"]
pub struct Attempt {
    claim: Box<dyn Claim>,
    seed: [u8; 24],
    /// The request that asks now.
    asked: Asked,
    rules: Rules,
}

impl Attempt {
    /// Fails with [`Error::Volatile`] for a backend that interrupts claims which it cannot name.
    pub(crate) fn new(claim: Box<dyn Claim>, asked: Asked, rules: Rules) -> Result<Self> {
        let seed = claim.seed().ok_or(Error::Volatile)?;
        Ok(Self { claim, seed, asked, rules })
    }

    /// The client's key.
    pub fn key(&self) -> &Key {
        &self.claim.past().key
    }

    /// The request that was interrupted.
    pub fn request_id(&self) -> &RequestId {
        &self.claim.past().request_id
    }

    /// The number of the interrupted run, counted from 1.
    pub fn number(&self) -> u32 {
        self.claim.past().attempt
    }

    /// The recovery points that were stored, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        &self.claim.past().checkpoints
    }

    /// The key that this operation hands to the next service under a label.
    pub fn downstream_key(&self, label: &str) -> Key {
        let past = self.claim.past();
        downstream_key(&self.seed, past.scope, &past.key, label)
    }

    /// Runs the operation again, as the next attempt.
    ///
    /// Dropping the ticket leaves the key interrupted.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] or [`Error::Stopped`].
    ///
    /// # Durability
    ///
    /// The attempt is durable once the ticket is ready.
    pub fn retry(self) -> Ticket<Permit> {
        let Self { claim, asked, rules, .. } = self;
        // The fingerprint is the claim's, or the outcome would have been a conflict.
        claim.retry(asked).map(move |claim| Permit::new(claim, rules))
    }

    /// Records that the interrupted run had this response after all.
    ///
    /// Durability and errors are those of [`Permit::complete`]; [`Error::Full`] besides.
    pub fn complete(self, response: &Response<Bytes>) -> Ticket<Record> {
        self.into_permit().complete(response)
    }

    /// Records that the interrupted run took effect, but that its response is lost.
    ///
    /// Durability and errors are those of [`complete`](Self::complete).
    pub fn complete_without_response(self) -> Ticket<Record> {
        self.into_permit().complete_without_response()
    }

    /// Records that the interrupted run did nothing, and frees the key, durably.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] or [`Error::Stopped`].
    pub fn release(self) -> Ticket<()> {
        self.into_permit().release()
    }

    fn into_permit(self) -> Permit {
        Permit::new(self.claim, self.rules)
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("request_id", self.request_id())
            .field("number", &self.number())
            .finish_non_exhaustive()
    }
}
