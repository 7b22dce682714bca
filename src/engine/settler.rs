//! Settles batches in commit order: on the writer's thread while they are small and it is idle.

use std::sync::Arc;

use crate::engine::commit::Committed;
use crate::engine::core::{Engine, Message};
use crate::engine::ledger::Frozen;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Sender, unbounded};

/// From this size on a batch is settled by the settler: waking costs as much as the fdatasync. Where
/// schedules are chosen, clients are few, and so is this.
const SETTLER_ENTRIES: usize = if cfg!(shuttle) { 2 } else { 17 };

/// What follows a commit, in order.
pub(crate) enum Settlement {
    Batch(Committed),
    /// A log takes no more batches; those in it are settled.
    Frozen(Frozen),
    /// The reaper's request to rotate was seen to.
    Rotated,
}

pub(crate) struct Settler {
    /// Nothing once the store stops.
    helper: Option<Helper>,
    outstanding: Arc<AtomicUsize>,
    inline: Settling,
}

struct Helper {
    work: Sender<Settlement>,
    thread: JoinHandle<()>,
}

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

    /// Settles what is outstanding, and from then on everything on the writer's thread: settling may
    /// queue more, to take back a claim that nobody took, and the writer must not have gone before.
    pub(crate) fn stop(&mut self) {
        if let Some(Helper { work, thread }) = self.helper.take() {
            drop(work);
            // A panic there has stopped the store already.
            let _ = thread.join();
        }
    }
}
