//! An unfinished job, in the hands of this process.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

use crate::{Key, Permit};

use super::JournalError;
use super::held::Holding;
use super::kept::Kept;

/// An unfinished job, held by this process.
///
/// An entry that is dropped without [`done`](Self::done) stays in the journal, and the next caller
/// of [`Journal::key_for`](super::Journal::key_for) gets it.
///
/// `Debug` shows neither the key nor the request.
#[must_use = "the job stays in the journal until `done`"]
pub struct JournalEntry {
    /// Dropped first, so that a job that is given back is listed twice for a moment, and not missing.
    permit: Permit,
    holding: Holding,
    key: Key,
    request: Bytes,
    first_sent: SystemTime,
}

impl JournalEntry {
    pub(super) fn new(permit: Permit, holding: Holding, key: Key, kept: Kept) -> Self {
        let first_sent = kept.began.wall();
        Self { permit, holding, key, request: kept.request, first_sent }
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

    /// Ends the entry. The next [`Journal::key_for`](super::Journal::key_for) with the job's name starts a new job.
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
        let Self { permit, holding, .. } = self;
        let ended = permit.release().await;
        drop(holding);
        Ok(ended?)
    }
}

impl fmt::Debug for JournalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalEntry")
            .field("first_sent", &self.first_sent)
            .field("is_resumed", &self.is_resumed())
            .field("request_bytes", &self.request.len())
            .finish_non_exhaustive()
    }
}
