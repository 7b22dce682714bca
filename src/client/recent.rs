//! The table of recent calls: the keys of call ids, and the calls in flight.
//!
//! Both parts have the same limit in number. An id is evicted when its time window is over, or as
//! the oldest one. A call leaves the table as it ends, or when nobody waits for it any more.
//!
//! Lock order: a flight is never dropped under the table's lock, because the last one to let go of
//! it takes that lock.

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

/// Places for calls in flight that are kept while they are free.
const SPARE_FLIGHTS: usize = 64;

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
    flights: HashMap<Key, Listed>,
    /// The number of the next flight.
    next: u64,
}

/// A call in flight as the table has it.
struct Listed {
    number: u64,
    request: Fingerprint,
    flight: WeakShared<SharedCall>,
}

/// A flight's line in the table. It ends with the value, which the call itself owns.
struct Line {
    calls: Arc<RecentCalls>,
    key: Key,
    number: u64,
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
        self: &Arc<Self>,
        key: &Key,
        request: Fingerprint,
        call: impl Future<Output = Landed> + Send + 'static,
    ) -> Option<Flight> {
        // Declared first, so that it is dropped after the lock is free.
        let known;
        let mut state = self.state.lock();
        known = state.flights.get(key).and_then(Listed::upgrade);
        if let Some((other, flight)) = &known
            // A call that has ended is over, even if a caller has not read its outcome yet.
            && flight.peek().is_none()
        {
            return (*other == request).then(|| flight.clone());
        }
        if state.flights.len() >= self.max {
            return None;
        }
        let number = state.next;
        state.next += 1;
        let line = Line { calls: Arc::clone(self), key: key.clone(), number };
        let call: SharedCall = Box::pin(async move {
            let _line = line;
            call.await
        });
        let flight = call.shared();
        if let Some(weak) = flight.downgrade() {
            state.flights.insert(key.clone(), Listed { number, request, flight: weak });
        }
        Some(flight)
    }
}

impl Listed {
    fn upgrade(&self) -> Option<(Fingerprint, Flight)> {
        Some((self.request, self.flight.upgrade()?))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut state = self.calls.state.lock();
        let flights = &mut state.flights;
        // Another call may have the key by now.
        if flights.get(&self.key).is_some_and(|listed| listed.number == self.number) {
            flights.remove(&self.key);
        }
        if flights.capacity() > SPARE_FLIGHTS && flights.capacity() / 4 > flights.len() {
            let spare = SPARE_FLIGHTS.max(2 * flights.len());
            flights.shrink_to(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls() -> Arc<RecentCalls> {
        Arc::new(RecentCalls::new(Duration::from_secs(300), 3))
    }

    fn request(text: &str) -> Fingerprint {
        Fingerprint::of([text])
    }

    async fn answered() -> Landed {
        Landed::Whole(Box::default())
    }

    fn in_flight(calls: &RecentCalls) -> usize {
        calls.state.lock().flights.len()
    }

    /// Finished calls stayed in the table: tens of megabytes.
    #[tokio::test]
    async fn a_call_that_has_ended_leaves_the_table_while_its_outcome_is_still_held() {
        let calls = calls();
        let mut flights = Vec::new();
        for number in 0..10_000 {
            let key: Key = number.to_string().parse().unwrap();
            let flight = calls.share(&key, request("a"), answered()).unwrap();
            assert_eq!(in_flight(&calls), 1);
            flight.clone().await;
            flights.push(flight);
            assert_eq!(in_flight(&calls), 0);
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_leaves_the_table() {
        let calls = calls();
        let key = Key::random();
        let first = calls.share(&key, request("a"), std::future::pending()).unwrap();
        let second = calls.share(&key, request("a"), answered()).unwrap();
        assert!(first.ptr_eq(&second));
        drop(first);
        assert_eq!(in_flight(&calls), 1);
        drop(second);
        assert_eq!(in_flight(&calls), 0);
    }

    /// Its number is another, so the first one's end does not take it off the table.
    #[tokio::test]
    async fn a_call_that_ends_takes_no_later_one_of_its_key_along() {
        let calls = calls();
        let key = Key::random();
        let (end, ended) = tokio::sync::oneshot::channel();
        let early = Line { calls: Arc::clone(&calls), key: key.clone(), number: u64::MAX };
        let late = calls.share(&key, request("a"), async {
            ended.await.unwrap();
            answered().await
        });
        drop(early);
        assert_eq!(in_flight(&calls), 1);
        end.send(()).unwrap();
        late.unwrap().await;
        assert_eq!(in_flight(&calls), 0);
    }

    #[tokio::test]
    async fn no_more_calls_are_shared_than_the_limit_and_no_different_ones() {
        let calls = calls();
        let share = |key: &str, body| {
            calls.share(&key.parse().unwrap(), request(body), std::future::pending())
        };
        let flights = [share("a", "1"), share("b", "1"), share("c", "1")];
        assert!(flights.iter().all(Option::is_some));
        assert!(share("d", "1").is_none() && share("a", "2").is_none());
        assert!(share("a", "1").is_some());
        drop(flights);
        assert!(share("d", "1").is_some());
    }

    #[tokio::test]
    async fn the_room_for_many_calls_is_given_back() {
        let calls = Arc::new(RecentCalls::new(Duration::from_secs(300), 10_000));
        let share = |number: u32| {
            let key: Key = number.to_string().parse().unwrap();
            calls.share(&key, request("a"), std::future::pending())
        };
        let flights: Vec<_> = (0..10_000).map(share).collect();
        drop(flights);
        assert!(calls.state.lock().flights.capacity() <= 2 * SPARE_FLIGHTS);
    }
}
