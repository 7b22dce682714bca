//! The state that the threads of a store share: the ledger, the in-flight table, the counters, and
//! the failure that stopped the store, if there is one.
//!
//! Invariants:
//! - A failure is recorded once, and is final.
//! - A thread that panics stops the store, through its [`PanicGuard`].

use std::cell::Cell;
use std::sync::Arc;

use crate::engine::disk::Disk;
use crate::engine::ledger::{Frozen, Ledger};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::observe;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, OnceLock, thread, thread_local};
use crate::table::Table;
use crate::ticket::Promise;

mod figures;
mod told;
mod watch;

use told::Told;

thread_local!(static IS_OWN: Cell<bool> = const { Cell::new(false) });

/// Returns true on the threads of a store, which must not wait for their own end.
pub(crate) fn is_own_thread() -> bool {
    IS_OWN.with(Cell::get)
}

/// The shared state of an open store.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) ledger: Ledger,
    pub(crate) table: Arc<Table>,
    pub(crate) counters: Counters,
    failure: OnceLock<Arc<Error>>,
    closing: AtomicBool,
    /// The process that has opened the store, whose threads serve it.
    process: u32,
    /// Set once the store was not found at its path, until it is again.
    is_away: AtomicBool,
    told: Mutex<Told>,
}

/// Counts of events since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) bodies_left_out: AtomicU64,
    pub(crate) segments_sealed: AtomicU64,
    pub(crate) segments_merged: AtomicU64,
    pub(crate) segments_dropped: AtomicU64,
    /// The error of the reaper's latest round, if it had one.
    pub(crate) last_trouble: Mutex<Option<Error>>,
}

impl Engine {
    pub(crate) fn new(ledger: Ledger, table: Arc<Table>) -> Self {
        Self {
            ledger,
            table,
            counters: Counters::default(),
            failure: OnceLock::new(),
            closing: AtomicBool::new(false),
            process: std::process::id(),
            is_away: AtomicBool::new(false),
            told: Mutex::default(),
        }
    }

    /// Stops the store for good after an error whose outcome is unknown.
    ///
    /// From then on nothing is acknowledged and no key is freed, and only a new process may open
    /// the store again. Later errors change nothing.
    pub(crate) fn fail(&self, error: Error) {
        self.failure.get_or_init(|| {
            observe::failed(&error);
            Arc::new(error)
        });
        let stopped = self.stopped();
        self.table.stop(&stopped);
        self.ledger.space.stop(&stopped);
    }

    /// Returns true once the store has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Returns true in a process that was forked from the one that opened the store.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// Lets the threads end once their work is done. No room is made from then on, so nobody waits
    /// for it.
    pub(crate) fn start_closing(&self) {
        self.closing.store(true, Ordering::Release);
        self.ledger.space.stop(&self.stopped());
    }

    /// Returns true once the store is being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Looks for the store at its path, and notes whether it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it is away, and [`Error::Stopped`] if it is gone for good.
    pub(crate) fn look_for_itself(&self) -> Result<()> {
        match self.ledger.expect_ownership(&self.ledger.snapshot().logs[0]) {
            Ok(()) => {
                self.is_away.store(false, Ordering::Release);
                Ok(())
            }
            Err(Trouble::Transient(error)) => {
                self.note_away(&error);
                Err(error)
            }
            Err(Trouble::Fatal(error)) => {
                self.fail(error);
                Err(self.stopped())
            }
        }
    }

    /// Looks for the store at its path, if it was not there before.
    ///
    /// # Errors
    ///
    /// Those of [`look_for_itself`](Self::look_for_itself).
    pub(crate) fn expect_back(&self) -> Result<()> {
        if self.is_away.load(Ordering::Acquire) { self.look_for_itself() } else { Ok(()) }
    }

    /// Returns the error of every call on a stopped store, with the failure as its source.
    pub(crate) fn stopped(&self) -> Error {
        Error::Stopped { source: self.failure.get().map(Arc::clone) }
    }

    /// Checks that the store takes work.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] if it has failed or is being closed, [`Error::Forked`] in a child of its
    /// process, and [`Error::Foreign`] while it is not at its path.
    pub(crate) fn check(&self) -> Result<()> {
        if self.has_failed() || self.is_closing() {
            return Err(self.stopped());
        }
        if self.is_forked() {
            return Err(Error::Forked);
        }
        self.expect_back()
    }

    /// Stops the store if the thread that holds the guard panics.
    pub(crate) fn guard(self: &Arc<Self>, thread: &'static str) -> PanicGuard {
        IS_OWN.with(|is_own| is_own.set(true));
        PanicGuard { engine: Arc::clone(self), thread }
    }
}

/// A message to the reaper.
pub(crate) enum Message {
    Frozen(Frozen),
    /// The writer has rotated as it was asked to; the log that it froze, if any, was sent before.
    Rotated,
    /// Do all that is due, and answer.
    Reap(Waiting),
    /// Remove the bytes of what is not live any more, and answer.
    Purge(Waiting),
    Stop,
}

/// A caller that waits for a round of the reaper, or for a purge. Dropped, it answers that the
/// store has stopped.
pub(crate) struct Waiting {
    engine: Arc<Engine>,
    promise: Option<Promise<()>>,
}

impl Waiting {
    pub(crate) fn new(engine: &Arc<Engine>, promise: Promise<()>) -> Self {
        Self { engine: Arc::clone(engine), promise: Some(promise) }
    }

    /// Answers the caller with the outcome of the round.
    pub(crate) fn answer(mut self, outcome: Result<()>) {
        self.fill(outcome);
    }

    fn fill(&mut self, outcome: Result<()>) {
        if let Some(promise) = self.promise.take() {
            promise.fulfil(outcome);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.fill(Err(self.engine.stopped()));
    }
}

/// A guard that stops the store if its thread panics.
#[derive(Debug)]
pub(crate) struct PanicGuard {
    engine: Arc<Engine>,
    thread: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            let path = self.engine.ledger.disk.path();
            self.engine.fail(Error::corrupt(path, format!("the {} thread panicked", self.thread)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;
    use crate::engine::disk::MemoryDisk;
    use crate::engine::ledger::{Opened, Settings, open};
    use crate::table::Limits;

    #[test]
    fn a_process_that_was_forked_from_the_stores_is_told_so() {
        let settings = Settings {
            clock: Arc::new(SimulatedClock::new()),
            ttl: std::time::Duration::from_secs(60),
            log_bytes: 256 * 1024,
            first_log_bytes: 256 * 1024,
            max_open_claims: 16,
            max_open_claims_per_scope: 16,
            trusted_downtime: std::time::Duration::from_secs(60),
            zero_recycled: false,
        };
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let Opened { ledger, .. } = open(disk, settings).unwrap();
        let mut engine = Engine::new(ledger, Table::new(Limits::default()));
        engine.check().unwrap();
        // As the child sees it.
        engine.process += 1;
        assert!(matches!(engine.check(), Err(Error::Forked)));
    }
}
