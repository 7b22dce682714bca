//! The shares of the limits that operations in flight have: [`Place`].
//!
//! Each kind of share has a budget of its own, so that requests that wait for a busy key keep no
//! other key out.
//!
//! A scope has at most as many shares as are free for others. So a few busy scopes never take all
//! of a budget: whatever they do, the next scope finds room.

use std::collections::{HashMap, hash_map};
use std::sync::Arc;

use super::{Limits, Table};
use crate::error::{Error, Limit, Result};
use crate::key::Scope;
use crate::observe;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Few under chosen schedules, as in the table.
const SHARDS: usize = if cfg!(shuttle) { 4 } else { 64 };
const KINDS: usize = 3;

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
type Scopes = HashMap<Scope, [usize; KINDS]>;

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
    fn take(&self, scope: Scope, kind: Kind) -> Result<()> {
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
        let is_taken = {
            let mut scopes = self.shard(scope).lock();
            let own = scopes.entry(scope).or_default();
            let is_taken = own[kind as usize] < per_scope.min(free)
                && own[Kind::Retained as usize] < per_scope;
            own[kind as usize] += usize::from(is_taken);
            is_taken
        };
        if !is_taken {
            total.fetch_sub(1, Ordering::AcqRel);
            return Err(Error::limit(Limit::InFlightPerScope, per_scope.min(free)));
        }
        observe::in_flight(self.in_flight());
        Ok(())
    }

    /// Counts a share as one of a retained key.
    fn retain(&self, scope: Scope, kind: Kind) {
        if let Some(counts) = self.shard(scope).lock().get_mut(&scope) {
            counts[kind as usize] -= 1;
            counts[Kind::Retained as usize] += 1;
        }
        self.totals[Kind::Retained as usize].fetch_add(1, Ordering::AcqRel);
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

/// One operation's share.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) table: Arc<Table>,
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
    pub(super) fn take(table: &Arc<Table>, scope: Scope, kind: Kind) -> Result<Self> {
        table.shares.take(scope, kind)?;
        Ok(Self { table: Arc::clone(table), scope, kind, is_retained: false })
    }

    /// Ends the operation, whose key stays held for as long as the process lives.
    pub(super) fn retain(mut self) {
        self.is_retained = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { ref table, scope, kind, is_retained } = *self;
        if is_retained {
            table.shares.retain(scope, kind);
        } else {
            table.shares.count_out(scope, kind);
        }
        let before = table.shares.totals[kind as usize].fetch_sub(1, Ordering::AcqRel);
        observe::in_flight(table.in_flight());
        if before == 1 {
            table.wake_idle();
        }
    }
}
