//! The placed calls, in memory, kept apart by account.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use refrain::Scope;
use serde::Serialize;

use crate::number::Number;

/// The number of calls that a listing shows.
const LISTED: usize = 100;

#[derive(Clone, Serialize)]
pub(crate) struct Call {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) parties: Parties,
    status: &'static str,
    /// RFC 3339, in UTC, to the millisecond.
    created_at: String,
}

/// The two numbers of a call.
#[derive(Clone, Serialize)]
pub(crate) struct Parties {
    pub(crate) caller_id: Number,
    pub(crate) destination: Number,
}

pub(crate) struct Book {
    calls: Mutex<HashMap<Scope, BTreeMap<String, Call>>>,
    opened_at: Timestamp,
    placed: AtomicU64,
}

impl Book {
    pub(crate) fn new() -> Self {
        let calls = Mutex::default();
        Self { calls, opened_at: Timestamp::now(), placed: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, account: Scope, parties: Parties) -> Call {
        let call = Call { id: self.next_id(), parties, status: "queued", created_at: now() };
        let mut calls = self.calls.lock();
        calls.entry(account).or_default().insert(call.id.clone(), call.clone());
        call
    }

    /// The newest calls, newest first.
    pub(crate) fn list(&self, account: Scope) -> Vec<Call> {
        let calls = self.calls.lock();
        calls
            .get(&account)
            .into_iter()
            .flat_map(BTreeMap::values)
            .rev()
            .take(LISTED)
            .cloned()
            .collect()
    }

    pub(crate) fn find(&self, account: Scope, id: &str) -> Option<Call> {
        self.calls.lock().get(&account)?.get(id).cloned()
    }

    pub(crate) fn change(&self, account: Scope, id: &str, parties: Parties) -> Option<Call> {
        let mut calls = self.calls.lock();
        let call = calls.get_mut(&account)?.get_mut(id)?;
        call.parties = parties;
        Some(call.clone())
    }

    pub(crate) fn remove(&self, account: Scope, id: &str) -> Option<Call> {
        self.calls.lock().get_mut(&account)?.remove(id)
    }

    /// The server's start tells its ids from those of earlier ones, and the fixed widths sort them
    /// by age.
    fn next_id(&self) -> String {
        let n = self.placed.fetch_add(1, Ordering::Relaxed);
        format!("call_{:014x}{n:08x}", self.opened_at.as_microsecond())
    }
}

fn now() -> String {
    format!("{:.3}", Timestamp::now())
}
