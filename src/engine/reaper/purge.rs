//! A purge: the reaper's work until no file holds anything but what is live.
//!
//! It may take long, so logs are prepared and sealed meanwhile, and what has expired is dropped.

use std::sync::Arc;

use crate::engine::ledger::{Ledger, Retired};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::sync::thread;

use super::{PATIENCE, Reaper, drop_expired, pace_of_sealing, worst};

/// The rotations after which a purge gives up. The writer may rotate by itself, and take a log that
/// is not clean.
const MAX_ROTATIONS: usize = 4;
/// The times, [`PATIENCE`] apart, that a purge looks whether old files have lost their readers.
const MAX_WAITS: usize = 600;

impl Reaper {
    /// Purges once for all callers that have asked for it.
    pub(super) fn purge_if_asked(&mut self) {
        let asked = std::mem::take(&mut self.purges);
        if asked.is_empty() {
            return;
        }
        let outcome = match self.purge() {
            _ if self.engine.has_failed() => Err(self.engine.stopped()),
            Err(Trouble::Fatal(error)) => {
                self.engine.fail(error);
                Err(self.engine.stopped())
            }
            purged => purged.map_err(Trouble::into_error),
        };
        asked.into_iter().for_each(|waiting| waiting.answer(outcome.clone()));
    }

    /// Has no file of the store hold bytes of a record that has been forgotten, or has expired.
    ///
    /// # Errors
    ///
    /// Nothing is lost, and some of those bytes may be left. Segments behind one that cannot be
    /// rewritten are rewritten nevertheless.
    fn purge(&mut self) -> Result<(), Trouble> {
        let engine = Arc::clone(&self.engine);
        let _purging = engine.ledger.start_purge();
        self.freeze()?;
        self.seal_all()?;
        let mut old = std::mem::take(&mut self.retired);
        let outcome = self.purge_segments(&engine.ledger, &mut old);
        self.retired.append(&mut old);
        outcome?;
        engine.ledger.remove_unlisted(&self.retired).map_err(Trouble::Transient)
    }

    /// Freezes all logs in use, and goes on in one that holds nothing of older ones.
    fn freeze(&mut self) -> Result<(), Trouble> {
        let active = Arc::clone(&self.engine.ledger.snapshot().logs[0]);
        for _ in 0..MAX_ROTATIONS {
            self.engine.ledger.prepare_clean(&mut self.retired)?;
            self.rotate()?;
            let log = Arc::clone(&self.engine.ledger.snapshot().logs[0]);
            if log.generation > active.generation && log.is_clean() {
                return Ok(());
            }
        }
        self.engine.ledger.expect_ownership(&active)?;
        // The next log has no room yet for all that is reserved.
        Err(Trouble::Transient(Error::Behind))
    }

    /// Seals all frozen logs, due or not.
    fn seal_all(&mut self) -> Result<(), Trouble> {
        let engine = Arc::clone(&self.engine);
        let (frozen, retired) = (&self.frozen, &mut self.retired);
        match engine.ledger.seal_all(frozen, || pace_of_sealing(&engine, retired))? {
            0 => Ok(()),
            sealed => self.note_sealed(sealed),
        }
    }

    /// Rewrites the segments that hold what is not live, and removes the `old` files once nobody
    /// reads them any more.
    fn purge_segments(&mut self, ledger: &Ledger, old: &mut Vec<Retired>) -> Result<(), Trouble> {
        let mut outcome = Ok(());
        for number in ledger.segment_numbers() {
            self.do_what_is_due(old)?;
            match ledger.purge_segment(number, old, || self.keep_up()) {
                Err(Trouble::Transient(error)) if !matches!(error, Error::Stopped { .. }) => {
                    outcome = outcome.and(Err(Trouble::Transient(error)));
                }
                purged => purged?,
            }
            // The next one needs the space.
            ledger.free(old, || self.keep_up()).map_err(Trouble::Transient)?;
        }
        outcome.and(self.wait_for_readers(ledger, old))
    }

    /// Removes the `old` files once nobody reads them any more.
    ///
    /// # Errors
    ///
    /// [`Error::Behind`] if a reader has kept some for too long: a list of records, or a backup. They
    /// are removed later.
    fn wait_for_readers(&mut self, ledger: &Ledger, old: &mut Vec<Retired>) -> Result<(), Trouble> {
        for _ in 0..MAX_WAITS {
            if old.is_empty() {
                return Ok(());
            }
            self.do_what_is_due(old)?;
            self.keep_up().map_err(Trouble::Transient)?;
            ledger.free(old, || self.keep_up()).map_err(Trouble::Transient)?;
            if !old.is_empty() {
                thread::park_timeout(PATIENCE);
            }
        }
        if old.is_empty() { Ok(()) } else { Err(Trouble::Transient(Error::Behind)) }
    }

    /// Does what is due between two segments of a purge, which may take long. A transient error is
    /// met again, and reported, in the next round.
    fn do_what_is_due(&mut self, old: &mut Vec<Retired>) -> Result<(), Trouble> {
        let (rotated, sealed) = (self.rotate_if_old(), self.seal());
        self.engine.ledger.expire_claims();
        match worst([rotated, sealed, drop_expired(&self.engine, old)]) {
            Err(trouble) if trouble.is_fatal() => Err(trouble),
            _ => Ok(()),
        }
    }
}
