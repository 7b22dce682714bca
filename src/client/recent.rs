//! The table of recent calls: the keys of call ids, and the calls in flight.
//!
//! Both parts have the same limit in number. An id is evicted when its time window is over, or as
//! the oldest one; a call that has ended is never joined, and leaves the table when its place is
//! needed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use http::Response;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http::{Body, Whole};
use crate::{Fingerprint, Key};

use super::call::CallId;
use super::error::Error;

/// A call in flight, shared by everyone who asked for it.
pub(super) type Flight = Shared<SharedCall>;
type SharedCall = Pin<Box<dyn Future<Output = Landed> + Send>>;

/// The outcome of a shared call.
#[derive(Clone)]
pub(super) enum Landed {
    Whole(Box<Response<Whole>>),
    /// A streamed answer. The first caller takes it; the others send their own request.
    Streamed(Arc<Mutex<Option<Response<Body>>>>),
    Failed(Error),
}

/// The calls of a layer and of its clones.
pub(super) struct RecentCalls {
    window: Duration,
    max: usize,
    state: Mutex<CallTable>,
}

#[derive(Default)]
struct CallTable {
    keys: HashMap<CallId, Key>,
    /// Call ids with the time of their first use, oldest first.
    ids: VecDeque<(Instant, CallId)>,
    flights: HashMap<Key, (Fingerprint, WeakShared<SharedCall>)>,
}

impl fmt::Debug for RecentCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecentCalls")
            .field("window", &self.window)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl CallTable {
    /// Evicts the id whose first use is the longest ago.
    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.ids.pop_front() {
            self.keys.remove(&id);
        }
    }
}

impl RecentCalls {
    pub(super) fn new(window: Duration, max: usize) -> Self {
        Self { window, max, state: Mutex::default() }
    }

    /// Returns the key of a call id; a new id gets a random key.
    pub(super) fn key_of(&self, id: &CallId) -> Key {
        let now = Instant::now();
        let mut state = self.state.lock();
        while let Some((since, _)) = state.ids.front()
            && now.duration_since(*since) >= self.window
        {
            state.forget_oldest();
        }
        if let Some(key) = state.keys.get(id) {
            return key.clone();
        }
        let key = Key::random();
        if self.max > 0 {
            if state.ids.len() >= self.max {
                state.forget_oldest();
            }
            state.keys.insert(id.clone(), key.clone());
            state.ids.push_back((now, id.clone()));
        }
        key
    }

    /// Joins the call in flight with this key, or registers `call` as the one in flight.
    ///
    /// Returns `None` if the two requests differ, or if `max` calls are in flight already.
    pub(super) fn share(
        &self,
        key: &Key,
        request: Fingerprint,
        call: impl Future<Output = Landed> + Send + 'static,
    ) -> Option<Flight> {
        let mut state = self.state.lock();
        if let Some((other, flight)) = state.flights.get(key)
            && let Some(flight) = flight.upgrade()
            // A call that has ended is over, even if a caller has not read its outcome yet.
            && flight.peek().is_none()
        {
            return (*other == request).then_some(flight);
        }
        if state.flights.len() >= self.max {
            state.flights.retain(|_, (_, flight)| flight.upgrade().is_some());
        }
        if state.flights.len() >= self.max {
            return None;
        }
        let call: SharedCall = Box::pin(call);
        let flight = call.shared();
        state.flights.insert(key.clone(), (request, flight.downgrade()?));
        Some(flight)
    }
}
