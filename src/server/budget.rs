//! The memory budget for request bodies, in all and for each scope.
//!
//! A body takes its [`Share`] while it is collected, and returns it when it is dropped. The budget
//! is never exceeded: a body that does not fit is refused before it is read further.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Scope;

/// One scope may take this fraction of the budget, so that no scope can lock out the others.
const SCOPE_SHARE: usize = 8;

/// A number of bytes that request bodies share.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    scopes: HashMap<Scope, usize>,
}

/// The limit of the budget that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OverBudget {
    All,
    Scope,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// Takes bytes for a scope, or returns the limit that they would exceed.
    fn take(&self, scope: Scope, bytes: usize) -> Result<(), OverBudget> {
        let mut taken = self.taken.lock();
        if bytes > self.max - taken.all {
            return Err(OverBudget::All);
        }
        let of_scope = taken.scopes.entry(scope).or_insert(0);
        if *of_scope + bytes > self.max / SCOPE_SHARE {
            if *of_scope == 0 {
                taken.scopes.remove(&scope);
            }
            return Err(OverBudget::Scope);
        }
        *of_scope += bytes;
        taken.all += bytes;
        Ok(())
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
            self.budget.take(self.scope, more)?;
            self.bytes = bytes;
        }
        Ok(())
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

    #[test]
    fn p6_no_scope_takes_more_than_its_share_and_all_is_given_back() {
        let budget = Budget::new(80);
        let share = |scope: u8| Share::new(Arc::clone(&budget), Scope::new([scope]));
        let mut shares: Vec<Share> = (0..8).map(share).collect();
        for share in &mut shares {
            share.grow_to(6).unwrap();
            share.grow_to(10).unwrap();
            assert!(share.grow_to(11).is_err());
        }
        let mut ninth = share(9);
        assert_eq!(ninth.grow_to(1), Err(OverBudget::All));
        shares.pop();
        ninth.grow_to(10).unwrap();
        assert_eq!(share(9).grow_to(1), Err(OverBudget::All));
        shares.pop();
        assert_eq!(share(9).grow_to(1), Err(OverBudget::Scope));
        drop((shares, ninth));
        let taken = budget.taken.lock();
        assert_eq!((taken.all, taken.scopes.len()), (0, 0));
    }
}
