//! The in-flight table: one entry for each key in flight, with its waiters in order of arrival.
//!
//! It stands in front of every backend, so requests of one process that share a key meet here before
//! the backend is asked.
//!
//! Invariants:
//! - An entry exists exactly while someone is responsible for the key: a [`Hold`], or a waiter to
//!   whom the key was handed on. The entry is never absent in between, so no other request slips in.
//! - A waiter's slot is filled, and the waiter leaves the queue, under the shard's mutex. So giving
//!   up is atomic: either the key or the record has arrived, or neither ever will.
//! - After [`Table::stop`] no waiter is queued and none joins.
//! - Wakers run outside the mutexes. A shard's mutex may take a slot's, never the reverse.

use std::collections::{HashMap, VecDeque, hash_map};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::address_map::AddressMap;
use crate::error::{Error, Limit, Result};
use crate::key::{Address, Key, RequestId, Scope, random_bytes};
use crate::observe;
use crate::record::Record;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, OnceLock};
use crate::ticket::Slot;

/// Few under chosen schedules, because threads never meet in an empty shard.
const SHARDS: usize = if cfg!(shuttle) { 4 } else { 64 };

/// Limits of a [`Table`]: the number of operations in flight.
///
/// ```
/// use refrain::backend::Limits;
///
/// let limits = Limits { waiters: 8, ..Limits::default() };
/// assert_eq!(limits.in_flight, 4096);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Operations in flight in the whole store, waiting ones included; 4096 by default.
    pub in_flight: usize,
    /// Operations in flight in one scope, waiting ones included; 1024 by default.
    pub per_scope: usize,
    /// Operations waiting for one key; 1024 by default.
    pub waiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 4096, per_scope: 1024, waiters: 1024 }
    }
}

/// The keys in flight in this process, and the requests that wait for them.
///
/// A [`Store`](crate::Store) takes a key here before it asks the backend, which owns the table:
/// should the backend fail while requests wait, [`stop`](Self::stop) ends their waits.
#[derive(Debug)]
pub(crate) struct Table {
    /// Clients do not know it, so they cannot aim at one shard.
    seed: [u8; 16],
    shards: Box<[Mutex<AddressMap<InFlight>>]>,
    scopes: Box<[Mutex<HashMap<Scope, usize>>]>,
    in_flight: AtomicUsize,
    /// Keys kept for the rest of the process. They count towards the limit.
    kept: AtomicUsize,
    limits: Limits,
    stopped: OnceLock<Error>,
    idle: Mutex<()>,
    idled: Condvar,
}

#[derive(Debug)]
struct InFlight {
    holder: RequestId,
    waiters: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    request_id: RequestId,
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
            scopes: (0..SHARDS).map(|_| Mutex::default()).collect(),
            in_flight: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            limits,
            stopped: OnceLock::new(),
            idle: Mutex::new(()),
            idled: Condvar::new(),
        })
    }

    /// The address that the table and its backend know a key by.
    pub(crate) fn address(&self, scope: Scope, key: Key) -> Address {
        Address::new(&self.seed, scope, key)
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
                vacant.insert(InFlight { holder: request_id.clone(), waiters: VecDeque::new() });
                Ok(Acquired::Held(Hold::new(address.clone(), Some(place))))
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

    /// Whether a request of this process holds the key, or one to whom it was handed on.
    pub(crate) fn is_held(&self, scope: Scope, key: &Key) -> bool {
        self.holds(&self.address(scope, key.clone()))
    }

    /// Whether the key of this address is held.
    pub(crate) fn holds(&self, address: &Address) -> bool {
        self.shard(address).lock().contains_key(address)
    }

    /// The number of operations that have not ended, waiting ones included.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
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

    fn shard(&self, address: &Address) -> &Mutex<AddressMap<InFlight>> {
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
    /// Whether its key stays in flight for good, and goes on counting for its scope.
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
        // From here on, dropping the place gives the share back.
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
            // Under the mutex, so that a thread about to wait has either seen zero or is waiting.
            drop(self.table.idle.lock());
            self.table.idled.notify_all();
        }
    }
}

/// A place in the list of interrupted runs, which is in the order of scopes and keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The scope of the last run that was listed.
    pub scope: Scope,
    /// The key of the last run that was listed.
    pub key: Key,
}

/// A key held in this process: no other request here is let near it.
///
/// It travels with the claim on the key, and the one who makes the verdict durable frees it, only
/// then: with [`answer`](Self::answer) for a record, or with [`free`](Self::free), which hands the key
/// on to the first waiter.
///
/// Dropping it frees the key too, until a verdict is asked for by which the operation may have run:
/// from then on a hold that is dropped keeps its key, because nobody knows the outcome.
#[derive(Debug)]
pub struct Hold {
    address: Address,
    place: Option<Place>,
    is_kept: bool,
}

impl Hold {
    fn new(address: Address, place: Option<Place>) -> Self {
        Self { address, place, is_kept: false }
    }

    /// Whose key it is.
    pub fn scope(&self) -> Scope {
        self.address.scope
    }

    /// The client's key.
    pub fn key(&self) -> &Key {
        &self.address.key
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The key's place in the list of interrupted runs.
    pub fn cursor(&self) -> Cursor {
        Cursor { scope: self.scope(), key: self.key().clone() }
    }

    /// From now on, keeps the key if the hold is dropped.
    pub(crate) fn keep_if_dropped(&mut self) {
        self.is_kept = true;
    }

    /// Whether dropping the hold keeps the key. The claim of a volatile operation is then to stay, too,
    /// for as long as the process lives.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Frees the key, and hands it on to the first waiter.
    pub fn free(mut self) {
        self.is_kept = false;
    }

    /// Frees the key and gives the record to all who waited for it.
    ///
    /// The backend must find the record already, so that a request that finds the key free finds the
    /// record.
    pub fn answer(mut self, record: &Record) {
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

    /// Frees the key after a verdict that is durable, and keeps it after one whose outcome is unknown.
    /// Returns the record or the error.
    ///
    /// After [`Error::Fenced`] the key is free, because the outcome is known: another node's.
    pub fn answer_with(self, outcome: Result<Record>) -> Result<Record> {
        match &outcome {
            Ok(record) => self.answer(record),
            Err(Error::Fenced) => self.free(),
            Err(_) => self.keep(),
        }
        outcome
    }

    /// Frees the key after a verdict that is durable, and keeps it after one whose outcome is unknown,
    /// as [`answer_with`](Self::answer_with) does, for a verdict without a record.
    pub fn free_with(self, outcome: Result<()>) -> Result<()> {
        match &outcome {
            Ok(()) | Err(Error::Fenced) => self.free(),
            Err(_) => self.keep(),
        }
        outcome
    }

    /// Keeps the key in flight for as long as the process lives, because its outcome is unknown.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        if self.is_kept {
            place.is_kept = true;
            place.table.kept.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let table = Arc::clone(&place.table);
        // Before the next one wakes, so that the two are not counted together. A thread that waits
        // for idleness may go on before the key is free; nobody asks for the key by then.
        drop(place);
        table.hand_on(&self.address);
    }
}

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
