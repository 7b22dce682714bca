//! The in-flight table: one entry for each key in flight, with its waiters in order of arrival.
//!
//! It stands in front of every backend, so requests of one process that share a key meet here
//! before the backend is asked.
//!
//! Invariants:
//! - An entry exists exactly while someone is responsible for the key: a [`Hold`], or a waiter to
//!   whom the key was handed on. The entry is never absent in between, so no other request
//!   slips in.
//! - A waiter's slot is filled, and the waiter leaves the queue, under the shard's mutex. So giving
//!   up is atomic: either the key or the record has arrived, or neither ever will.
//! - After [`Table::stop`] no waiter is queued and none joins.
//! - Wakers run outside the mutexes. A shard's mutex may take a slot's, never the reverse.

use std::collections::{VecDeque, hash_map};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use crate::address_map::AddressMap;
use crate::error::{Error, Limit, Result};
use crate::key::{Address, Key, RequestId, Scope, random_bytes};
use crate::record::Record;
use crate::sync::{Condvar, Mutex, OnceLock};
use crate::ticket::Slot;

mod hold;
mod in_flight;
mod shares;
mod waiter;

pub use hold::Hold;
pub use in_flight::{InFlight, Stage};
pub use shares::Limits;
use shares::{Kind, Shares};
pub(crate) use waiter::{Waited, Waiter};

/// Few under chosen schedules, because threads never meet in an empty shard.
const SHARDS: usize = if cfg!(shuttle) { 4 } else { 64 };

/// The keys in flight in this process, and the requests that wait for them.
///
/// A [`Store`](crate::Store) takes a key here before it asks its backend. Should the embedded
/// engine fail while requests wait, [`stop`](Self::stop) ends their waits.
#[derive(Debug)]
pub(crate) struct Table {
    /// Clients do not know it, so they cannot aim at one shard.
    seed: [u8; 16],
    shards: Box<[Mutex<AddressMap<Entry>>]>,
    shares: Shares,
    max_waiters: usize,
    stopped: OnceLock<Error>,
    idle: Mutex<()>,
    idled: Condvar,
}

#[derive(Debug)]
struct Entry {
    holder: RequestId,
    /// The time at which the holder asked for the key.
    since: SystemTime,
    stage: Stage,
    waiters: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    request_id: RequestId,
    since: SystemTime,
    slot: Arc<Slot<Handover>>,
}

/// The message that ends a wait.
#[derive(Debug)]
enum Handover {
    /// The key has this record now.
    Record(Record),
    /// The key is the waiter's.
    Key,
    /// The store stopped.
    Stopped(Error),
}

/// A key, or a place in its queue.
#[derive(Debug)]
pub(crate) enum Acquired {
    Held(Hold),
    Waiting(Waiter),
}

impl Table {
    /// An empty table.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Self::seeded(limits, random_bytes())
    }

    /// An empty table whose addresses are those of a backend with this seed.
    pub(crate) fn seeded(limits: Limits, seed: [u8; 16]) -> Arc<Self> {
        Arc::new(Self {
            seed,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shares: Shares::new(limits),
            max_waiters: limits.waiters,
            stopped: OnceLock::new(),
            idle: Mutex::new(()),
            idled: Condvar::new(),
        })
    }

    /// Returns the address that the table and its backend know a key by.
    pub(crate) fn address(&self, scope: Scope, key: Key) -> Address {
        Address::new(&self.seed, scope, key)
    }

    /// Takes the key if it is free, and queues for it otherwise. The request asks at `since`.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        address: &Address,
        request_id: &RequestId,
        since: SystemTime,
    ) -> Result<Acquired> {
        let mut shard = self.shard(address).lock();
        self.check()?;
        match shard.entry(address.clone()) {
            hash_map::Entry::Vacant(vacant) => {
                let place = Place::take(self, address.scope, Kind::Running)?;
                let (holder, waiters) = (request_id.clone(), VecDeque::new());
                vacant.insert(Entry { holder, since, stage: Stage::Running, waiters });
                Ok(Acquired::Held(Hold::new(address.clone(), Some(place))))
            }
            hash_map::Entry::Occupied(mut occupied) => {
                let waiters = &mut occupied.get_mut().waiters;
                if waiters.len() >= self.max_waiters {
                    return Err(Error::limit(Limit::WaitersPerKey, self.max_waiters));
                }
                let place = Place::take(self, address.scope, Kind::Waiting)?;
                let slot = Arc::new(Slot::new());
                let (request_id, queued) = (request_id.clone(), Arc::clone(&slot));
                waiters.push_back(Queued { request_id, since, slot: queued });
                Ok(Acquired::Waiting(Waiter::new(address.clone(), place, slot)))
            }
        }
    }

    /// Takes a share of those that wait for a request over the limits, which only looks for its
    /// record.
    pub(crate) fn look(self: &Arc<Self>, scope: Scope) -> Result<Look> {
        Place::take(self, scope, Kind::Waiting).map(Look)
    }

    /// Admits nothing more, and ends every wait with `error`. Keys that are held stay held.
    pub(crate) fn stop(&self, error: &Error) {
        let error = self.stopped.get_or_init(|| error.clone());
        for shard in &self.shards {
            let mut wakers = Wakers::default();
            for entry in shard.lock().values_mut() {
                for waiter in entry.waiters.drain(..) {
                    wakers.note(waiter.slot.fill(Handover::Stopped(error.clone())));
                }
            }
            wakers.wake();
        }
    }

    /// Fails once the table has been stopped.
    pub(crate) fn check(&self) -> Result<()> {
        self.stopped.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Returns whether a request of this process holds the key, or one to whom it was handed on.
    pub(crate) fn is_held(&self, scope: Scope, key: &Key) -> bool {
        let address = self.address(scope, key.clone());
        self.shard(&address).lock().contains_key(&address)
    }

    /// Notes the stage of a key in flight.
    pub(crate) fn note(&self, address: &Address, stage: Stage) {
        if let Some(entry) = self.shard(address).lock().get_mut(address) {
            entry.stage = stage;
        }
    }

    /// Returns the number of operations that have not ended, waiting ones included.
    pub(crate) fn in_flight(&self) -> usize {
        self.shares.in_flight()
    }

    /// Returns the number of keys that stay held because their outcome is unknown.
    pub(crate) fn retained(&self) -> usize {
        self.shares.total(Kind::Retained)
    }

    /// Blocks this thread until nothing is in flight or `timeout` is over, stops the table with
    /// `error`, and returns the number of operations that have not ended.
    ///
    /// An operation that was let in just before the others had ended is waited for as long again.
    pub(crate) fn close(&self, timeout: Duration, error: &Error) -> usize {
        let idle = self.wait_idle(timeout);
        self.stop(error);
        if idle {
            // One that was let in just before may have come after it.
            self.wait_idle(timeout);
        }
        self.in_flight()
    }

    /// Blocks until nothing is in flight, and returns whether that was so in time.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let mut guard = self.idle.lock();
        let busy = |_: &mut ()| self.in_flight() > 0;
        !self.idled.wait_while_for(&mut guard, busy, timeout).timed_out()
    }

    /// Wakes those who wait until nothing is in flight.
    fn wake_idle(&self) {
        // Under the mutex, so that a thread about to wait has either seen zero or is waiting.
        drop(self.idle.lock());
        self.idled.notify_all();
    }

    fn shard(&self, address: &Address) -> &Mutex<AddressMap<Entry>> {
        // The low half is the filters'.
        let [.., shard] = address.hash.to_le_bytes();
        &self.shards[usize::from(shard) % SHARDS]
    }

    /// Hands the key on to the first waiter that still wants it, or frees it.
    fn hand_on(&self, address: &Address) {
        let mut shard = self.shard(address).lock();
        let Some(entry) = shard.get_mut(address) else { return };
        while let Some(next) = entry.waiters.pop_front() {
            if let Ok(waker) = next.slot.fill(Handover::Key) {
                entry.holder = next.request_id;
                (entry.since, entry.stage) = (next.since, Stage::Running);
                drop(shard);
                return waker.into_iter().for_each(Waker::wake);
            }
        }
        shard.remove(address);
    }
}

/// One operation's share.
#[derive(Debug)]
struct Place {
    table: Arc<Table>,
    scope: Scope,
    kind: Kind,
    is_retained: bool,
}

impl Place {
    /// Takes a share for an operation.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if the store or the scope has as many as it may.
    fn take(table: &Arc<Table>, scope: Scope, kind: Kind) -> Result<Self> {
        // A share that was counted for a moment may have hidden the end of the last one.
        table.shares.take(scope, kind).inspect_err(|_| table.wake_idle())?;
        Ok(Self { table: Arc::clone(table), scope, kind, is_retained: false })
    }

    /// Ends the operation, whose key stays held for as long as the process lives.
    fn retain(mut self) {
        self.is_retained = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { ref table, scope, kind, is_retained } = *self;
        if table.shares.give_back(scope, kind, is_retained) {
            table.wake_idle();
        }
    }
}

/// The share of a request that only looks for its record.
#[derive(Debug)]
pub(crate) struct Look(#[expect(dead_code, reason = "counted until it is dropped")] Place);

/// Wakers collected under a mutex and run outside it.
#[derive(Default)]
struct Wakers(Vec<Waker>);

impl Wakers {
    fn note(&mut self, filled: Result<Option<Waker>, Handover>) {
        self.0.extend(filled.ok().flatten());
    }

    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

#[cfg(all(test, shuttle))]
mod schedules;
#[cfg(test)]
mod tests;
