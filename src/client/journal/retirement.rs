//! The end of entries that nobody asks for again.

use bytes::Bytes;

use crate::backend::Past;
use crate::clock::Reading;

use super::expired::Expired;
use super::kept::Kept;
use super::{Begun, Journal, JournalError, LABEL, MAX_OPEN};

/// The most jobs that have given up their places and are not done.
const MAX_EXPIRED: u64 = 65_536;

impl Journal {
    /// Ends the entries whose window has passed, and those that are incomplete, to make room.
    /// Returns their number.
    ///
    /// # Errors
    ///
    /// [`JournalError::Store`].
    pub(super) async fn retire_expired(&self) -> Result<usize, JournalError> {
        let (now, mut retired) = (self.clock.read(), 0);
        let known = self.store.count(self.scope)?.records;
        let mut places = MAX_EXPIRED.saturating_sub(known);
        for past in self.store.interrupted(None, MAX_OPEN).await? {
            if places == 0 {
                break;
            }
            if self.retire(&past, &now).await? {
                retired += 1;
                places -= 1;
            }
        }
        Ok(retired)
    }

    /// Ends the entry of a job, if it has expired or is incomplete; then returns true.
    ///
    /// # Errors
    ///
    /// [`JournalError::Store`].
    async fn retire(&self, past: &Past, now: &Reading) -> Result<bool, JournalError> {
        let is_over = |pieces: &[Bytes]| match Kept::of(pieces) {
            Ok(kept) => kept.is_none_or(|kept| self.has_expired(&kept.began, now)),
            // A newer version knows.
            Err(_) => false,
        };
        if !is_over(&past.checkpoints) {
            return Ok(false);
        }
        // It may have changed hands, or be another job of that name by now.
        let attempt = match self.begin(&past.key).await {
            Ok(Begun::Known(attempt)) if is_over(attempt.checkpoints()) => attempt,
            Ok(Begun::New(permit)) => {
                permit.release().await?;
                return Ok(false);
            }
            Ok(Begun::Known(_) | Begun::Retired(_)) | Err(JournalError::InUse) => return Ok(false),
            Err(error) => return Err(error),
        };
        match Kept::of(attempt.checkpoints())? {
            Some(Kept { began, .. }) => {
                let key = attempt.downstream_key(LABEL);
                attempt.complete(&Expired { began, key }.response()).await?;
            }
            None => attempt.release().await?,
        }
        Ok(true)
    }
}
