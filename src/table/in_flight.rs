//! A list of the keys in flight, for operators.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::Table;
use crate::key::{Key, RequestId, Scope};

/// A key in flight, from [`Store::in_flight`](crate::Store::in_flight).
///
/// `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight {
    /// The owner of the key.
    pub scope: Scope,
    /// The client's key.
    pub key: Key,
    /// The request that holds the key; in [`Stage::Elsewhere`] the other node's.
    pub request_id: RequestId,
    /// The time at which the request of this process asked for the key, by the store's clock.
    pub since: SystemTime,
    /// The time that has gone by since then.
    pub age: Duration,
    /// The reason for which the key is in flight, as far as it is known.
    pub stage: Stage,
    /// The number of requests that wait for the key.
    pub waiters: usize,
}

/// The reason for which a key is in flight, in [`InFlight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The operation runs, or is about to: its claim is being made, or an interrupted run is being
    /// judged. A durable one that ends as released is in this stage until that is durable.
    Running,
    /// The operation has run, and its verdict is being made durable. Long waits here are the
    /// disk's, or the database's.
    Ending,
    /// The store commits faster than it seals: the operation waits for room, and has not run.
    Delayed,
    /// A request on another node has the key.
    Elsewhere,
    /// The outcome is unknown and could not be recorded: the key is held for as long as the process
    /// lives.
    Retained,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("request_id", &self.request_id)
            .field("age", &self.age)
            .field("stage", &self.stage)
            .field("waiters", &self.waiters)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Lists the keys in flight, the oldest first. Their ages are those at `now`.
    pub(crate) fn list(&self, now: SystemTime) -> Vec<InFlight> {
        let mut listed = Vec::new();
        for shard in &self.shards {
            listed.extend(shard.lock().iter().map(|(address, entry)| InFlight {
                scope: address.scope,
                key: address.key.clone(),
                request_id: entry.holder.clone(),
                since: entry.since,
                // A request may have come after the caller has read the clock.
                age: now.duration_since(entry.since).unwrap_or_default(),
                stage: entry.stage,
                waiters: entry.waiters.len(),
            }));
        }
        listed.sort_unstable_by(|a: &InFlight, b: &InFlight| {
            (a.since, a.scope, &a.key).cmp(&(b.since, b.scope, &b.key))
        });
        listed
    }
}
