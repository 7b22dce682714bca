//! Settles batches in commit order: on the writer's thread while they are small and it is idle.

use std::sync::Arc;

use crate::commit::{Committed, Queue};
use crate::engine::{Engine, Message};
use crate::ledger::Frozen;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Sender, unbounded};

/// From this size on a batch is settled by the settler: waking costs as much as the fdatasync.
const SETTLER_ENTRIES: usize = 17;

/// What follows a commit, in order.
pub(crate) enum Settlement {
    Batch(Committed),
    /// A log takes no more batches; those in it are settled.
    Frozen(Frozen),
    /// The reaper's request to rotate was seen to.
    Rotated,
}

pub(crate) struct Settler {
    work: Sender<Settlement>,
    outstanding: Arc<AtomicUsize>,
    inline: Settling,
    thread: JoinHandle<()>,
}

#[derive(Clone)]
struct Settling {
    queue: Queue,
    reaper: Sender<Message>,
}

impl Settling {
    fn settle(&self, settlement: Settlement) {
        match settlement {
            Settlement::Batch(committed) => committed.settle(&self.queue),
            // If the reaper is gone, the store is closing, and the next opening takes over.
            Settlement::Frozen(frozen) => drop(self.reaper.send(Message::Frozen(frozen))),
            Settlement::Rotated => drop(self.reaper.send(Message::Rotated)),
        }
    }
}

impl Settler {
    pub(crate) fn start(
        engine: Arc<Engine>,
        queue: Queue,
        reaper: Sender<Message>,
    ) -> std::io::Result<Self> {
        let (work, receiver) = unbounded::<Settlement>();
        let outstanding = Arc::new(AtomicUsize::new(0));
        let inline = Settling { queue, reaper };
        let (settling, done) = (inline.clone(), Arc::clone(&outstanding));
        let thread = thread::Builder::new().name("refrain-settler".into()).spawn(move || {
            let _guard = engine.guard("settler");
            for settlement in receiver {
                settling.settle(settlement);
                done.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok(Self { work, outstanding, inline, thread })
    }

    pub(crate) fn take(&self, settlement: Settlement) {
        let small = match &settlement {
            Settlement::Batch(committed) => committed.items.len() < SETTLER_ENTRIES,
            _ => true,
        };
        if small && self.outstanding.load(Ordering::Acquire) == 0 {
            return self.inline.settle(settlement);
        }
        self.outstanding.fetch_add(1, Ordering::Release);
        if let Err(unsent) = self.work.send(settlement) {
            // The settler is gone only if it panicked, which has stopped the store.
            drop(unsent);
        }
    }

    pub(crate) fn stop(self) {
        drop(self.work);
        // A panic there has stopped the store already.
        let _ = self.thread.join();
    }
}
