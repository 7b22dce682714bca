//! The limits on operations in flight, and the shares of them that are taken.
//!
//! Each kind of share has a budget of its own, so that requests that wait for a busy key keep no
//! other key out.
//!
//! A scope has at most as many shares as are free for others. So a few busy scopes never take all
//! of a budget: whatever they do, the next scope finds room.

use std::collections::{HashMap, hash_map};

use crate::error::{Error, Limit, Result};
use crate::key::Scope;
use crate::observe;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Few under chosen schedules, as in the table.
const SHARDS: usize = if cfg!(shuttle) { 4 } else { 64 };
const KINDS: usize = 3;

/// Limits on the operations in flight.
///
/// Operations that found their key free and those that wait for one are counted apart, so that a
/// busy key keeps no other out. A scope never takes more than it leaves for others, unless it may
/// have all: its share shrinks as the store fills.
///
/// ```
/// use refrain::backend::Limits;
///
/// let limits = Limits { waiters: 8, ..Limits::default() };
/// assert_eq!(limits.in_flight, 4096);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Operations in flight in the whole store, and as many that wait; 4096 by default.
    pub in_flight: usize,
    /// Operations in flight in one scope, and as many that wait; 1024 by default.
    pub per_scope: usize,
    /// Operations waiting for one key; 1024 by default.
    pub waiters: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 4096, per_scope: 1024, waiters: 1024 }
    }
}

/// The purpose of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An operation that found its key free.
    Running,
    /// One that found its key held, even after the key was handed on to it.
    Waiting,
    /// A key whose outcome is unknown for as long as the process lives.
    Retained,
}

/// The shares that are taken.
#[derive(Debug)]
pub(super) struct Shares {
    limits: Limits,
    totals: [AtomicUsize; KINDS],
    scopes: Box<[Mutex<Scopes>]>,
}

/// The shares of each scope that has any, by kind.
type Scopes = HashMap<Scope, [usize; KINDS], foldhash::fast::RandomState>;

impl Shares {
    pub(super) fn new(limits: Limits) -> Self {
        let totals = Default::default();
        Self { limits, totals, scopes: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Returns the number of operations that have not ended, waiting ones included.
    pub(super) fn in_flight(&self) -> usize {
        self.total(Kind::Running) + self.total(Kind::Waiting)
    }

    pub(super) fn total(&self, kind: Kind) -> usize {
        self.totals[kind as usize].load(Ordering::Acquire)
    }

    /// Takes a share of a scope.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if the store or the scope has as many as it may.
    pub(super) fn take(&self, scope: Scope, kind: Kind) -> Result<()> {
        let Limits { in_flight: max, per_scope, .. } = self.limits;
        if self.total(Kind::Retained) >= max {
            return Err(Error::limit(Limit::InFlight, max));
        }
        let total = &self.totals[kind as usize];
        let taken = total
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < max).then_some(n + 1))
            .map_err(|_| Error::limit(Limit::InFlight, max))?;
        // A scope that may have all of them shares with nobody.
        let free = if per_scope < max { max - taken } else { max };
        let limit = per_scope.min(free);
        if !self.count_in(scope, kind, limit) {
            total.fetch_sub(1, Ordering::AcqRel);
            return Err(Error::limit(Limit::InFlightPerScope, limit));
        }
        observe::in_flight(|| self.in_flight());
        Ok(())
    }

    /// Counts one more share of a scope, and returns whether it may have one.
    fn count_in(&self, scope: Scope, kind: Kind, limit: usize) -> bool {
        let mut scopes = self.shard(scope).lock();
        let counts = scopes.entry(scope).or_default();
        let max_retained = self.limits.per_scope;
        if counts[kind as usize] < limit && counts[Kind::Retained as usize] < max_retained {
            counts[kind as usize] += 1;
            return true;
        }
        if counts == &[0; KINDS] {
            scopes.remove(&scope);
        }
        false
    }

    /// Gives a share back, or makes it one of a retained key. Returns whether it was the last of its
    /// kind.
    pub(super) fn give_back(&self, scope: Scope, kind: Kind, is_retained: bool) -> bool {
        if is_retained {
            self.retain(scope, kind);
        } else {
            self.count_out(scope, kind);
        }
        let before = self.totals[kind as usize].fetch_sub(1, Ordering::AcqRel);
        observe::in_flight(|| self.in_flight());
        before == 1
    }

    /// Counts a share as one of a retained key.
    fn retain(&self, scope: Scope, kind: Kind) {
        if let Some(counts) = self.shard(scope).lock().get_mut(&scope) {
            counts[kind as usize] -= 1;
            counts[Kind::Retained as usize] += 1;
        }
        self.totals[Kind::Retained as usize].fetch_add(1, Ordering::AcqRel);
        observe::retained(|| self.total(Kind::Retained));
    }

    fn count_out(&self, scope: Scope, kind: Kind) {
        if let hash_map::Entry::Occupied(mut counts) = self.shard(scope).lock().entry(scope) {
            counts.get_mut()[kind as usize] -= 1;
            if counts.get() == &[0; KINDS] {
                counts.remove();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.scopes.iter().all(|shard| shard.lock().is_empty())
    }

    fn shard(&self, scope: Scope) -> &Mutex<Scopes> {
        &self.scopes[usize::from(scope.as_bytes()[0]) % SHARDS]
    }
}
