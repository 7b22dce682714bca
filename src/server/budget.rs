//! A memory budget for bodies, in all and for each scope.
//!
//! A body takes its [`Share`] while it is collected, and returns it when it is dropped. The budget
//! is never exceeded: a body that does not fit is refused before it is read further. Larger bodies
//! leave a part of it to small ones.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Scope;

/// One scope may take this fraction of the budget, so that no scope can lock out the others.
const SCOPE_SHARE: usize = 8;
/// This fraction of the budget is for small bodies alone.
const SMALL_SHARE: usize = 4;
/// The most bytes of a small body.
const SMALL_BYTES: usize = 64 * 1024;

/// A number of bytes that bodies share.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Scopes are hashes already.
    scopes: HashMap<Scope, usize, foldhash::fast::RandomState>,
}

/// The limit of the budget that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OverBudget {
    All,
    Scope,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default(), freed: Notify::new() })
    }

    /// Takes bytes for a body of a scope that grows to a length, or returns the limit that they
    /// would exceed.
    fn take(&self, scope: Scope, bytes: usize, length: usize) -> Result<(), OverBudget> {
        let kept_free = if length > SMALL_BYTES { self.max / SMALL_SHARE } else { 0 };
        let mut taken = self.taken.lock();
        if bytes > (self.max - kept_free).saturating_sub(taken.all) {
            return Err(OverBudget::All);
        }
        let of_scope = taken.scopes.entry(scope).or_insert(0);
        if *of_scope + bytes > self.scope_max() {
            if *of_scope == 0 {
                taken.scopes.remove(&scope);
            }
            return Err(OverBudget::Scope);
        }
        *of_scope += bytes;
        taken.all += bytes;
        Ok(())
    }

    /// Returns the most bytes that one scope may take.
    pub(super) fn scope_max(&self) -> usize {
        self.max / SCOPE_SHARE
    }

    /// Returns bytes of a scope, and forgets a scope that has none left.
    fn give_back(&self, scope: Scope, bytes: usize) {
        let mut taken = self.taken.lock();
        taken.all -= bytes;
        if let Some(of_scope) = taken.scopes.get_mut(&scope) {
            *of_scope -= bytes;
            if *of_scope == 0 {
                taken.scopes.remove(&scope);
            }
        }
        drop(taken);
        self.freed.notify_waiters();
    }
}

/// The bytes that one body takes, returned to the budget on drop.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    scope: Scope,
    bytes: usize,
}

impl Share {
    pub(super) fn new(budget: Arc<Budget>, scope: Scope) -> Self {
        Self { budget, scope, bytes: 0 }
    }

    /// Grows the share to this many bytes.
    ///
    /// # Errors
    ///
    /// The limit that the body would exceed; the share stays as it was.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.budget.take(self.scope, more, bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Grows the share to this many bytes, once there is room for them.
    ///
    /// # Errors
    ///
    /// [`OverBudget::Scope`] if there never will be.
    pub(super) async fn grow_when_free(&mut self, bytes: usize) -> Result<(), OverBudget> {
        if bytes > self.budget.scope_max() {
            return Err(OverBudget::Scope);
        }
        let budget = Arc::clone(&self.budget);
        loop {
            let mut freed = pin!(budget.freed.notified());
            freed.as_mut().enable();
            if self.grow_to(bytes).is_ok() {
                return Ok(());
            }
            freed.await;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.scope, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(budget: &Arc<Budget>, scope: u8) -> Share {
        Share::new(Arc::clone(budget), Scope::new([scope]))
    }

    #[test]
    fn p6_no_scope_takes_more_than_its_share_and_all_is_given_back() {
        let budget = Budget::new(80);
        let mut shares: Vec<Share> = (0..8).map(|scope| share(&budget, scope)).collect();
        for share in &mut shares {
            share.grow_to(6).unwrap();
            share.grow_to(10).unwrap();
            assert!(share.grow_to(11).is_err());
        }
        let mut ninth = share(&budget, 9);
        assert_eq!(ninth.grow_to(1), Err(OverBudget::All));
        shares.pop();
        ninth.grow_to(10).unwrap();
        assert_eq!(share(&budget, 9).grow_to(1), Err(OverBudget::All));
        shares.pop();
        assert_eq!(share(&budget, 9).grow_to(1), Err(OverBudget::Scope));
        drop((shares, ninth));
        let taken = budget.taken.lock();
        assert_eq!((taken.all, taken.scopes.len()), (0, 0));
    }

    /// Bodies one byte short of their end filled the budget, and kept everyone out.
    #[test]
    fn p6_larger_bodies_leave_room_for_small_ones() {
        let budget = Budget::new(64 * SMALL_BYTES);
        let larger = |scope| {
            let mut share = share(&budget, scope);
            share.grow_to(4 * SMALL_BYTES).map(|()| share)
        };
        let taken: Vec<Share> = (0..12).map(|scope| larger(scope).unwrap()).collect();
        assert_eq!(larger(12).unwrap_err(), OverBudget::All);
        let small = (0..8).flat_map(|scope| [scope + 100; 2]).map(|scope| {
            let mut share = share(&budget, scope);
            share.grow_to(SMALL_BYTES).unwrap();
            share
        });
        assert_eq!(small.collect::<Vec<_>>().len() + taken.len(), 28);
    }

    #[tokio::test]
    async fn a_share_that_waits_grows_once_another_is_given_back() {
        let budget = Budget::new(80);
        let mut first = share(&budget, 1);
        first.grow_to(10).unwrap();
        let mut second = share(&budget, 1);
        assert_eq!(second.grow_when_free(11).await, Err(OverBudget::Scope));
        let waiting = tokio::spawn(async move { second.grow_when_free(10).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
    }
}
