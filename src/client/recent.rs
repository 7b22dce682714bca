//! What a client remembers: which key an id has, and which calls are under way.

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

/// A call under way, for all who asked for it.
pub(super) type Flight = Shared<SharedCall>;
type SharedCall = Pin<Box<dyn Future<Output = Landed> + Send>>;

/// How a shared call ended.
#[derive(Clone)]
pub(super) enum Landed {
    Whole(Box<Response<Whole>>),
    /// The first takes it; the others ask again.
    Passing(Arc<Mutex<Option<Response<Body>>>>),
    Failed(Error),
}

/// The calls of a layer's clones.
pub(super) struct RecentCalls {
    window: Duration,
    max: usize,
    state: Mutex<CallTable>,
}

#[derive(Default)]
struct CallTable {
    keys: HashMap<CallId, Key>,
    /// In the order in which they are forgotten.
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

    /// The key of a call's id, which gets one if it has none.
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

    /// The call with this key that is under way, or this one from now on. `None` if they are not the
    /// same, or too many are under way already.
    pub(super) fn share(
        &self,
        key: &Key,
        request: Fingerprint,
        call: impl Future<Output = Landed> + Send + 'static,
    ) -> Option<Flight> {
        let mut state = self.state.lock();
        if let Some((other, flight)) = state.flights.get(key)
            && let Some(flight) = flight.upgrade()
            // One that has landed is over, though someone has yet to look.
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
