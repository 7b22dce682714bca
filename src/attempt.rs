//! An interrupted run, for the caller to judge: an [`Attempt`].
//!
//! The face hands one out where a backend answers that a key is interrupted. It holds the key until
//! it is judged or dropped.

use std::fmt;

use bytes::Bytes;
use http::Response;

use crate::backend::{Asked, Claim, Rules};
use crate::error::{Error, Result};
use crate::key::{Key, RequestId, downstream_key};
use crate::permit::Permit;
use crate::record::Record;
use crate::ticket::Ticket;

/// An earlier run that was claimed durably and then interrupted, so that its outcome is unknown.
///
/// Find out what the run did, and report it: [`complete`](Self::complete) it,
/// [`release`](Self::release) it if it did nothing, or [`retry`](Self::retry) it. If an attempt is
/// dropped, the key stays interrupted.
///
/// ```
/// use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::builder().open_in_memory()?;
/// let scope = Scope::from_api_key("sk_live_51");
/// let operation = Operation::new(scope, "9b8cfa7a".parse()?, Fingerprint::of(["POST"])).durable();
/// let Outcome::Execute(permit) = store.begin(&operation).wait()? else { unreachable!() };
/// drop(permit); // as a panic does
///
/// let Outcome::Interrupted(attempt) = store.begin(&operation).wait()? else { unreachable!() };
/// assert_eq!(attempt.number(), 1);
/// let permit = attempt.retry().wait()?;
/// assert_eq!(permit.attempt(), 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "an interrupted attempt stays interrupted until it is judged"]
pub struct Attempt {
    claim: Box<dyn Claim>,
    seed: [u8; 24],
    /// The request that asks now.
    asked: Asked,
    rules: Rules,
}

impl Attempt {
    /// Creates an attempt from an interrupted claim.
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`] if the backend interrupts claims that have no seed, which is a mistake
    /// in the backend.
    pub(crate) fn new(claim: Box<dyn Claim>, asked: Asked, rules: Rules) -> Result<Self> {
        let seed = claim.past().seed.ok_or(Error::Volatile)?;
        Ok(Self { claim, seed, asked, rules })
    }

    /// Returns the client's key.
    pub fn key(&self) -> &Key {
        &self.claim.past().key
    }

    /// Returns the name of the request that was interrupted.
    pub fn request_id(&self) -> &RequestId {
        &self.claim.past().request_id
    }

    /// Returns the number of the interrupted run, counted from 1.
    pub fn number(&self) -> u32 {
        self.claim.past().attempt
    }

    /// Returns the recovery points that the run stored, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        &self.claim.past().checkpoints
    }

    /// Returns the key that this operation sends to the next service under a label.
    ///
    /// It is the key that [`Permit::downstream_key`] returned to the interrupted run, so the next
    /// service can be asked for that call.
    pub fn downstream_key(&self, label: &str) -> Key {
        let past = self.claim.past();
        downstream_key(&self.seed, past.scope, &past.key, label)
    }

    /// Runs the operation again, as the next attempt.
    ///
    /// If the ticket is dropped, the key stays interrupted.
    ///
    /// # Durability
    ///
    /// The new attempt is durable once the ticket is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if there is no room on the disk, [`Error::Behind`], [`Error::Unavailable`] or
    /// [`Error::Limit`] if there is none in the logs, or [`Error::Stopped`].
    pub fn retry(self) -> Ticket<Permit> {
        let Self { claim, asked, rules, .. } = self;
        // The fingerprint is the claim's, or the outcome would have been a conflict.
        claim.retry(asked).map(move |claim| Permit::new(claim, rules))
    }

    /// Records this response as that of the interrupted run.
    ///
    /// Durability and errors are those of [`Permit::complete`], and the errors of
    /// [`retry`](Self::retry) if there is no room.
    pub fn complete(self, response: &Response<Bytes>) -> Ticket<Record> {
        self.into_permit().complete(response)
    }

    /// Records that the interrupted run succeeded and that its response is lost.
    ///
    /// Durability and errors are those of [`complete`](Self::complete).
    pub fn complete_without_response(self) -> Ticket<Record> {
        self.into_permit().complete_without_response()
    }

    /// Records that the interrupted run did nothing, and frees the key.
    ///
    /// # Durability
    ///
    /// Once the ticket is ready, the claim is gone for good.
    ///
    /// # Errors
    ///
    /// Those of [`retry`](Self::retry).
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
