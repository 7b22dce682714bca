//! The in-flight table: one entry per key in flight, its waiters in order of arrival.
//!
//! Invariants:
//! - An entry exists exactly while someone is responsible for the key: a [`Held`], or a waiter to
//!   whom it was passed. It is never absent in between, so nobody else can slip in.
//! - A waiter's slot is filled, and its place in the queue given up, under the shard's mutex. So
//!   giving up is atomic: either the grant has arrived, or it never will.
//! - After [`Table::stop`] no waiter is queued and none joins.
//! - Wakers run outside the mutexes. A shard's mutex may take a slot's, never the reverse.

use std::collections::{HashMap, VecDeque, hash_map};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::{Error, Limit, Result};
use crate::key::{Address, RequestId, Scope};
use crate::observe;
use crate::record::Record;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, OnceLock};
use crate::ticket::Slot;

/// Where schedules are chosen, few: an empty shard is no place to meet.
const SHARDS: usize = if cfg!(shuttle) { 4 } else { 64 };

/// How much may be in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In the whole store, waiting operations included.
    pub(crate) in_flight: usize,
    /// In one scope, waiting operations included.
    pub(crate) per_scope: usize,
    /// Waiting for one key.
    pub(crate) waiters: usize,
}

#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[Mutex<HashMap<Address, Entry>>]>,
    scopes: Box<[Mutex<HashMap<Scope, usize>>]>,
    in_flight: AtomicUsize,
    /// Keys that stay locked for the rest of the process, which count as in flight for the limit.
    kept: AtomicUsize,
    limits: Limits,
    stopped: OnceLock<Error>,
    idle: Mutex<()>,
    idled: Condvar,
}

#[derive(Debug)]
struct Entry {
    holder: RequestId,
    waiters: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    request_id: RequestId,
    slot: Arc<Slot<Grant>>,
}

/// How a wait ends.
#[derive(Debug)]
pub(crate) enum Grant {
    /// The key has this record now.
    Record(Record),
    /// The key is the waiter's.
    Promoted,
    /// The store stopped.
    Stopped(Error),
}

/// What asking for a key gives.
#[derive(Debug)]
pub(crate) enum Acquired {
    Held(Held),
    Waiting(Waiter),
}

impl Table {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            scopes: (0..SHARDS).map(|_| Mutex::default()).collect(),
            in_flight: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            limits,
            stopped: OnceLock::new(),
            idle: Mutex::new(()),
            idled: Condvar::new(),
        })
    }

    /// Takes the key if it is free, and queues for it otherwise.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        address: &Address,
        request_id: &RequestId,
    ) -> Result<Acquired> {
        let place = Place::take(self, address.scope)?;
        let mut shard = self.shard(address).lock();
        self.check()?;
        match shard.entry(address.clone()) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry { holder: request_id.clone(), waiters: VecDeque::new() });
                Ok(Acquired::Held(Held { address: address.clone(), place: Some(place) }))
            }
            hash_map::Entry::Occupied(mut occupied) => {
                let waiters = &mut occupied.get_mut().waiters;
                if waiters.len() >= self.limits.waiters {
                    return Err(Error::limit(Limit::WaitersPerKey, self.limits.waiters));
                }
                let slot = Arc::new(Slot::new());
                waiters
                    .push_back(Queued { request_id: request_id.clone(), slot: Arc::clone(&slot) });
                Ok(Acquired::Waiting(Waiter { address: address.clone(), place: Some(place), slot }))
            }
        }
    }

    /// Admits nothing more, and ends every wait with `error`. Keys that are held stay held.
    pub(crate) fn stop(&self, error: &Error) {
        let error = self.stopped.get_or_init(|| error.clone());
        for shard in &self.shards {
            let mut wakers = Wakers::default();
            for entry in shard.lock().values_mut() {
                for waiter in entry.waiters.drain(..) {
                    wakers.note(waiter.slot.fill(Grant::Stopped(error.clone())));
                }
            }
            wakers.wake();
        }
    }

    /// Whether keys are still granted.
    pub(crate) fn check(&self) -> Result<()> {
        self.stopped.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Operations that have not ended, waiting ones included.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Waits until nothing is in flight, and says whether that was so in time.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let mut guard = self.idle.lock();
        let busy = |_: &mut ()| self.in_flight() > 0;
        !self.idled.wait_while_for(&mut guard, busy, timeout).timed_out()
    }

    fn shard(&self, address: &Address) -> &Mutex<HashMap<Address, Entry>> {
        // The low half is the filters'.
        let [.., shard] = address.hash.to_le_bytes();
        &self.shards[usize::from(shard) % SHARDS]
    }

    /// Passes the key to the first waiter that still wants it, or frees it.
    fn pass_on(&self, address: &Address) {
        let mut shard = self.shard(address).lock();
        let Some(entry) = shard.get_mut(address) else { return };
        while let Some(next) = entry.waiters.pop_front() {
            if let Ok(waker) = next.slot.fill(Grant::Promoted) {
                entry.holder = next.request_id;
                drop(shard);
                return waker.into_iter().for_each(Waker::wake);
            }
        }
        shard.remove(address);
    }
}

/// One operation's share of the limits.
#[derive(Debug)]
struct Place {
    table: Arc<Table>,
    scope: Scope,
    /// Its key stays locked, and goes on counting for its scope.
    is_kept: bool,
}

impl Place {
    fn take(table: &Arc<Table>, scope: Scope) -> Result<Self> {
        let max = table.limits.in_flight;
        let room = max.saturating_sub(table.kept.load(Ordering::Acquire));
        table
            .in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < room).then_some(n + 1))
            .map(|n| observe::in_flight(n + 1))
            .map_err(|_| Error::limit(Limit::InFlight, max))?;
        // From here on dropping the place gives the share back.
        let place = Self { table: Arc::clone(table), scope, is_kept: false };
        let mut scopes = place.shard().lock();
        let count = scopes.entry(scope).or_insert(0);
        *count += 1;
        let over = *count > table.limits.per_scope;
        drop(scopes);
        if over {
            return Err(Error::limit(Limit::InFlightPerScope, table.limits.per_scope));
        }
        Ok(place)
    }

    fn shard(&self) -> &Mutex<HashMap<Scope, usize>> {
        &self.table.scopes[usize::from(self.scope.as_bytes()[0]) % SHARDS]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shard = self.shard();
        if !self.is_kept
            && let hash_map::Entry::Occupied(mut count) = shard.lock().entry(self.scope)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        let before = self.table.in_flight.fetch_sub(1, Ordering::AcqRel);
        observe::in_flight(before - 1);
        if before == 1 {
            // Under the mutex, so that whoever is about to wait has either seen zero or is waiting.
            drop(self.table.idle.lock());
            self.table.idled.notify_all();
        }
    }
}

/// Responsibility for a key. Dropping it passes the key on.
#[derive(Debug)]
pub(crate) struct Held {
    address: Address,
    place: Option<Place>,
}

impl Held {
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Frees the key and hands the record to all who waited for it.
    ///
    /// The record is in the index before, so that whoever finds the key free finds the record.
    pub(crate) fn settle(mut self, record: &Record) {
        let Some(place) = self.place.take() else { return };
        let mut wakers = Wakers::default();
        let mut shard = place.table.shard(&self.address).lock();
        if let Some(entry) = shard.remove(&self.address) {
            for waiter in entry.waiters {
                wakers.note(waiter.slot.fill(Grant::Record(record.clone())));
            }
        }
        drop(shard);
        // Before anybody wakes, so that whoever goes on finds the share free.
        drop(place);
        wakers.wake();
    }

    /// Leaves the key locked for the rest of the process, since its outcome is unknown.
    pub(crate) fn keep(mut self) {
        if let Some(place) = &mut self.place {
            place.is_kept = true;
            place.table.kept.fetch_add(1, Ordering::AcqRel);
        }
        self.place = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let table = Arc::clone(&place.table);
            // Before the next one wakes, so that it is not counted beside this one. Whoever waits for
            // idleness may go on before the key is free, which nobody asks for any more then.
            drop(place);
            table.pass_on(&self.address);
        }
    }
}

/// A wait for a key. Dropping it leaves the queue, and passes on a key that had arrived.
#[derive(Debug)]
pub(crate) struct Waiter {
    address: Address,
    place: Option<Place>,
    slot: Arc<Slot<Grant>>,
}

/// How a wait ended, with the key itself if it was granted.
#[derive(Debug)]
pub(crate) enum Waited {
    Record(Record),
    Held(Held),
    Stopped(Error),
}

impl Waiter {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Waited> {
        self.slot.poll(cx).map(|grant| self.accept(grant))
    }

    /// Ends the wait now: with the grant if it has arrived, or with the holder's request id.
    pub(crate) fn give_up(mut self) -> std::result::Result<Waited, RequestId> {
        match self.leave() {
            Left::Granted(grant) => Ok(self.accept(grant)),
            Left::Empty(holder) => {
                // It has left, and must not do so again when it is dropped.
                self.place = None;
                Err(holder)
            }
        }
    }

    fn accept(&mut self, grant: Grant) -> Waited {
        let place = self.place.take();
        match grant {
            Grant::Record(record) => Waited::Record(record),
            Grant::Promoted => Waited::Held(Held { address: self.address.clone(), place }),
            Grant::Stopped(error) => Waited::Stopped(error),
        }
    }

    fn leave(&self) -> Left {
        let place = self.place.as_ref().expect("a waiter leaves once");
        let mut shard = place.table.shard(&self.address).lock();
        if let Some(grant) = self.slot.close() {
            return Left::Granted(grant);
        }
        let entry = shard.get_mut(&self.address).expect("a queued waiter has its entry");
        entry.waiters.retain(|queued| !Arc::ptr_eq(&queued.slot, &self.slot));
        Left::Empty(entry.holder.clone())
    }
}

enum Left {
    Granted(Grant),
    Empty(RequestId),
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.place.is_none() {
            return;
        }
        if let Left::Granted(grant) = self.leave() {
            drop(self.accept(grant));
        }
    }
}

/// Wakers collected under a mutex, to be run outside it.
#[derive(Default)]
struct Wakers(Vec<Waker>);

impl Wakers {
    fn note(&mut self, filled: std::result::Result<Option<Waker>, Grant>) {
        self.0.extend(filled.ok().flatten());
    }

    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
