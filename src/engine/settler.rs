//! The settler: after a batch is durable it publishes, frees keys and wakes, in commit order.
//!
//! Small batches are settled on the writer's thread while the settler's thread has nothing to do.
//!
//! Invariants:
//! - Batches are settled in the order of their commits, on either thread.
//! - A frozen log is handed on to the reaper only after all of its batches are settled.

use std::sync::Arc;

use crate::engine::commit::Committed;
use crate::engine::core::{Engine, Message};
use crate::engine::ledger::Frozen;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Sender, unbounded};

/// The smallest batch, in entries, that is settled on the settler's thread: waking that many
/// callers takes as long as the fdatasync. Scheduled tests have few clients, and a smaller number.
const SETTLER_ENTRIES: usize = if cfg!(shuttle) { 2 } else { 17 };

/// One piece of the settler's work.
pub(crate) enum Settlement {
    Batch(Committed),
    /// A log takes no more batches: hand it on to the reaper.
    Frozen(Frozen),
    /// The reaper's request to rotate is done: tell it so.
    Rotated,
}

/// The writer's end of the settler.
pub(crate) struct Settler {
    /// `None` once the store stops.
    helper: Option<Helper>,
    /// Settlements that the thread has not finished.
    outstanding: Arc<AtomicUsize>,
    inline: Settling,
}

/// The settler's thread.
struct Helper {
    work: Sender<Settlement>,
    thread: JoinHandle<()>,
}

/// The part of settling that the writer and the settler share.
#[derive(Clone)]
struct Settling {
    reaper: Sender<Message>,
}

impl Settling {
    fn settle(&self, settlement: Settlement) {
        match settlement {
            Settlement::Batch(committed) => committed.settle(),
            // If the reaper is gone, the store is closing, and the next opening takes over.
            Settlement::Frozen(frozen) => drop(self.reaper.send(Message::Frozen(frozen))),
            Settlement::Rotated => drop(self.reaper.send(Message::Rotated)),
        }
    }
}

impl Settler {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub(crate) fn start(engine: Arc<Engine>, reaper: Sender<Message>) -> std::io::Result<Self> {
        let (work, receiver) = unbounded::<Settlement>();
        let outstanding = Arc::new(AtomicUsize::new(0));
        let inline = Settling { reaper };
        let (settling, done) = (inline.clone(), Arc::clone(&outstanding));
        let thread = thread::Builder::new().name("refrain-settler".into()).spawn(move || {
            let _guard = engine.guard("settler");
            for settlement in receiver {
                settling.settle(settlement);
                done.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok(Self { helper: Some(Helper { work, thread }), outstanding, inline })
    }

    /// Settles here, or on the thread if the batch is large or the thread is not done with earlier
    /// ones.
    pub(crate) fn take(&self, settlement: Settlement) {
        let small = match &settlement {
            Settlement::Batch(committed) => committed.items.len() < SETTLER_ENTRIES,
            _ => true,
        };
        match &self.helper {
            Some(helper) if !small || self.outstanding.load(Ordering::Acquire) > 0 => {
                self.outstanding.fetch_add(1, Ordering::Release);
                if let Err(unsent) = helper.work.send(settlement) {
                    // The settler is gone only if it panicked, which has stopped the store.
                    drop(unsent);
                }
            }
            _ => self.inline.settle(settlement),
        }
    }

    /// Ends the thread after its last settlement. From then on everything is settled on the
    /// writer's thread, because settling may queue the release of a claim whose caller has gone,
    /// and the writer must still be there to commit it.
    pub(crate) fn stop(&mut self) {
        if let Some(Helper { work, thread }) = self.helper.take() {
            drop(work);
            // A panic of the thread has stopped the store already.
            let _ = thread.join();
        }
    }
}
