//! The end of entries that nobody asks for again.

use bytes::Bytes;

use crate::Key;
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
        let mut pasts = self.store.interrupted(None, MAX_OPEN).await?;
        pasts.retain(|past| self.is_over(&past.checkpoints, &now));
        if pasts.is_empty() {
            return Ok(0);
        }
        let places = MAX_EXPIRED.saturating_sub(self.store.count(self.scope)?.records);
        for past in pasts.iter().take(usize::try_from(places).unwrap_or(usize::MAX)) {
            retired += usize::from(self.retire(&past.key, &now).await?);
        }
        Ok(retired)
    }

    /// Returns true if nobody may be handed the entry any more, or if it is incomplete.
    fn is_over(&self, pieces: &[Bytes], now: &Reading) -> bool {
        match Kept::of(pieces) {
            Ok(kept) => kept.is_none_or(|kept| self.has_expired(&kept.began, now)),
            // A newer version knows.
            Err(_) => false,
        }
    }

    /// Ends the entry of a job that was over, and returns true; or false if it has changed hands.
    ///
    /// # Errors
    ///
    /// [`JournalError::Store`].
    async fn retire(&self, name: &Key, now: &Reading) -> Result<bool, JournalError> {
        // It may be another job of that name by now.
        let attempt = match self.begin(name).await {
            Ok(Begun::Known(attempt)) if self.is_over(attempt.checkpoints(), now) => attempt,
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
