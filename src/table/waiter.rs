//! A request that waits for a key: [`Waiter`].

use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Handover, Hold, Place};
use crate::error::{Error, Result};
use crate::key::{Address, RequestId};
use crate::record::Record;
use crate::ticket::Slot;

/// A wait for a key. Dropping it leaves the queue, and hands on a key that had arrived.
#[derive(Debug)]
pub(crate) struct Waiter {
    address: Address,
    place: Option<Place>,
    slot: Arc<Slot<Handover>>,
}

/// The end of a wait, with the key itself if the key was handed on.
#[derive(Debug)]
pub(crate) enum Waited {
    Record(Record),
    Held(Hold),
    Stopped(Error),
}

impl Waiter {
    pub(super) fn new(address: Address, place: Place, slot: Arc<Slot<Handover>>) -> Self {
        Self { address, place: Some(place), slot }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Waited> {
        self.slot.poll(cx).map(|handover| self.accept(handover))
    }

    /// Ends the wait now: with what has arrived, or with the holder's request id.
    pub(crate) fn give_up(mut self) -> Result<Waited, RequestId> {
        match self.leave() {
            Left::Answered(handover) => Ok(self.accept(handover)),
            Left::Empty(holder) => {
                // The waiter has left, and must not leave again when it is dropped.
                self.place = None;
                Err(holder)
            }
        }
    }

    fn accept(&mut self, handover: Handover) -> Waited {
        let place = self.place.take();
        match handover {
            Handover::Record(record) => Waited::Record(record),
            Handover::Key => Waited::Held(Hold::new(self.address.clone(), place)),
            Handover::Stopped(error) => Waited::Stopped(error),
        }
    }

    fn leave(&self) -> Left {
        let place = self.place.as_ref().expect("a waiter leaves once");
        let mut shard = place.table.shard(&self.address).lock();
        if let Some(handover) = self.slot.close() {
            return Left::Answered(handover);
        }
        let entry = shard.get_mut(&self.address).expect("a queued waiter has its entry");
        entry.waiters.retain(|queued| !Arc::ptr_eq(&queued.slot, &self.slot));
        Left::Empty(entry.holder.clone())
    }
}

enum Left {
    Answered(Handover),
    Empty(RequestId),
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.place.is_none() {
            return;
        }
        if let Left::Answered(handover) = self.leave() {
            drop(self.accept(handover));
        }
    }
}
