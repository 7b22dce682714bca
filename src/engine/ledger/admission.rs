//! The queue of new keys that wait for room.
//!
//! Scopes take turns, so that a busy one delays another by one key at a time. Within a scope the
//! first to come is the first to be served.
//!
//! Invariants:
//! - Each scope with a key in the queue has one turn. A scope that empties has none, and its next
//!   key queues behind the turns of all others.
//! - A slot is filled, or closed, under the mutex that guards the queue, and leaves the queue with
//!   it. So a place that is given up was either granted before or never will be.

use std::collections::{HashMap, VecDeque, hash_map};
use std::sync::Arc;
use std::task::Waker;

use crate::error::Result;
use crate::key::Scope;
use crate::ticket::Slot;

/// The answer to a key that waits: its bytes are reserved, or there will be no room.
pub(super) type Granted = Result<()>;

/// The keys that wait. Their number is bounded, because each is an operation in flight.
#[derive(Debug, Default)]
pub(super) struct Queue {
    turns: VecDeque<Scope>,
    scopes: HashMap<Scope, VecDeque<Waiting>>,
    /// The bytes that all of them ask for.
    bytes: u64,
}

/// A key that waits.
#[derive(Debug)]
struct Waiting {
    bytes: u64,
    slot: Arc<Slot<Granted>>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Returns the bytes that all keys in the queue ask for.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Queues a key of a scope that asks for so many bytes, and returns the slot for the answer.
    pub(super) fn push(&mut self, scope: Scope, bytes: u64) -> Arc<Slot<Granted>> {
        let slot = Arc::new(Slot::new());
        let waiting = self.scopes.entry(scope).or_default();
        if waiting.is_empty() {
            self.turns.push_back(scope);
        }
        self.bytes += bytes;
        waiting.push_back(Waiting { bytes, slot: Arc::clone(&slot) });
        slot
    }

    /// Returns the bytes that the next key asks for.
    pub(super) fn next(&self) -> Option<u64> {
        let waiting = self.scopes.get(self.turns.front()?)?;
        waiting.front().map(|waiting| waiting.bytes)
    }

    /// Takes the next key out of the queue, and answers it.
    pub(super) fn serve(&mut self, answer: Granted, wakers: &mut Wakers) {
        let Some(scope) = self.turns.pop_front() else { return };
        let hash_map::Entry::Occupied(mut waiting) = self.scopes.entry(scope) else { return };
        let served = waiting.get_mut().pop_front();
        if waiting.get().is_empty() {
            waiting.remove();
        } else {
            self.turns.push_back(scope);
        }
        self.bytes -= served.as_ref().map_or(0, |served| served.bytes);
        // It was in the queue, so nobody has closed its slot.
        wakers.0.extend(served.and_then(|served| served.slot.fill(answer).ok().flatten()));
    }

    /// Gives up the place of a key, and returns the answer that had arrived.
    pub(super) fn leave(&mut self, scope: Scope, slot: &Arc<Slot<Granted>>) -> Option<Granted> {
        let answer = slot.close();
        if answer.is_none()
            && let hash_map::Entry::Occupied(mut waiting) = self.scopes.entry(scope)
        {
            waiting.get_mut().retain(|waiting| {
                let stays = !Arc::ptr_eq(&waiting.slot, slot);
                self.bytes -= if stays { 0 } else { waiting.bytes };
                stays
            });
            if waiting.get().is_empty() {
                waiting.remove();
                self.turns.retain(|turn| *turn != scope);
            }
        }
        answer
    }
}

/// Wakers collected under a mutex, to be run outside it.
#[derive(Debug, Default)]
#[must_use = "those who were answered sleep until they are woken"]
pub(super) struct Wakers(Vec<Waker>);

impl Wakers {
    pub(super) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}
