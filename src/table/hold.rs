//! A key in hand: [`Hold`].

use std::sync::Arc;

use super::{Place, Stage, Wakers};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::key::{Address, Key, RequestId, Scope};
use crate::observe;
use crate::record::Record;
use crate::table::Handover;

/// A key held in this process: no other request here is let near it.
///
/// It travels with the claim on the key, and the one who makes the verdict durable frees it, only
/// then: with [`answer`](Self::answer) for a record, or with [`free`](Self::free), which hands the
/// key on to the first waiter.
///
/// Dropping it frees the key too, until a verdict is asked for that says that the operation ran:
/// from then on a hold that is dropped retains its key, because nobody knows the outcome.
#[derive(Debug)]
pub struct Hold {
    address: Address,
    place: Option<Place>,
    is_retained: bool,
}

impl Hold {
    pub(super) fn new(address: Address, place: Option<Place>) -> Self {
        Self { address, place, is_retained: false }
    }

    /// Names the request that the key is in flight for, and its stage.
    pub(crate) fn name_holder(&self, holder: &RequestId, stage: Stage) {
        let Some(place) = &self.place else { return };
        if let Some(entry) = place.table.shard(&self.address).lock().get_mut(&self.address) {
            (entry.holder, entry.stage) = (holder.clone(), stage);
        }
    }

    fn note(&self, stage: Stage) {
        if let Some(place) = &self.place {
            place.table.note(&self.address, stage);
        }
    }

    /// Returns the scope of the key.
    pub fn scope(&self) -> Scope {
        self.address.scope
    }

    /// Returns the client's key.
    pub fn key(&self) -> &Key {
        &self.address.key
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the key's place in the list of interrupted runs.
    pub fn cursor(&self) -> Cursor {
        Cursor { scope: self.scope(), key: self.key().clone() }
    }

    /// From now on, retains the key if the hold is dropped. [`Permit`](crate::Permit) does so
    /// before it asks for a verdict that says that the operation ran.
    pub fn retain_if_dropped(&mut self) {
        self.is_retained = true;
        self.note(Stage::Ending);
    }

    /// Returns whether dropping the hold retains the key. A backend with leases then goes on
    /// renewing the lease of the claim, for as long as the process lives.
    pub fn is_retained(&self) -> bool {
        self.is_retained
    }

    /// Frees the key, and hands it on to the first waiter.
    pub fn free(mut self) {
        self.is_retained = false;
    }

    /// Frees the key and gives the record to all who waited for it.
    ///
    /// The backend must find the record already, so that a request that finds the key free finds
    /// the record.
    pub fn answer(mut self, record: &Record) {
        // Otherwise the record was there before, and this is no verdict.
        if self.is_retained {
            let is_stored = record.response().is_some();
            observe::ended(if is_stored { "stored" } else { "without_response" });
        }
        let Some(place) = self.place.take() else { return };
        let mut wakers = Wakers::default();
        let mut shard = place.table.shard(&self.address).lock();
        if let Some(entry) = shard.remove(&self.address) {
            for waiter in entry.waiters {
                wakers.note(waiter.slot.fill(Handover::Record(record.clone())));
            }
        }
        drop(shard);
        // Before anyone wakes, so that the woken find the share free.
        drop(place);
        wakers.wake();
    }

    /// Frees the key after a verdict that is durable, and retains it after one whose outcome is
    /// unknown. Returns the record or the error.
    ///
    /// After [`Error::Fenced`] the key is free, because the outcome is known: another node's.
    pub fn answer_with(self, outcome: Result<Record>) -> Result<Record> {
        match &outcome {
            Ok(record) => self.answer(record),
            Err(Error::Fenced) => self.free(),
            Err(_) => self.retain(),
        }
        outcome
    }

    /// Frees the key after a verdict that is durable, and retains it after one whose outcome is
    /// unknown, as [`answer_with`](Self::answer_with) does, for a verdict without a record.
    pub fn free_with(self, outcome: Result<()>) -> Result<()> {
        match &outcome {
            Ok(()) | Err(Error::Fenced) => self.free(),
            Err(_) => self.retain(),
        }
        outcome
    }

    /// Retains the key: it stays in flight for as long as the process lives, because its outcome is
    /// unknown.
    pub fn retain(mut self) {
        self.is_retained = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.is_retained {
            self.note(Stage::Retained);
        }
        let Some(place) = self.place.take() else { return };
        if self.is_retained {
            return place.retain();
        }
        let table = Arc::clone(&place.table);
        // Before the next one wakes, so that the two are not counted together. A thread that waits
        // for idleness may go on before the key is free; nobody asks for the key by then.
        drop(place);
        table.hand_on(&self.address);
    }
}
