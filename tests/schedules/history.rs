//! The actions and answers of a key's clients, and a search for one order that explains them all.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use refrain::{Error, Result};

/// An event of a key, as a client saw it.
///
/// It is no event that another request holds the key: whoever only looks it up holds it meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A permit was given.
    Execute,
    /// A permit was given for a durable claim.
    Claim,
    /// An interrupted attempt was handed out.
    Judge,
    /// This response was recorded.
    Complete(u8),
    /// The key was given up as never used.
    Release,
    /// The key was given up, and nobody knows what its holder did.
    Interrupt,
    Forget,
    /// A client was given this response.
    Replay(u8),
    /// Time passed, and what was recorded before has expired.
    Expire,
    /// Another process opened the store.
    Restart,
}

/// The state of a key, by the promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Free,
    Held { durably: bool },
    Done(u8),
    Interrupted,
}

impl Event {
    /// The state of the key after this event, if the event can happen at all.
    fn apply(self, state: State) -> Option<State> {
        Some(match (self, state) {
            (Self::Execute, State::Free) => State::Held { durably: false },
            (Self::Claim, State::Free) | (Self::Judge, State::Interrupted) => {
                State::Held { durably: true }
            }
            (Self::Complete(body), State::Held { .. }) => State::Done(body),
            (Self::Release, State::Held { .. }) => State::Free,
            (Self::Interrupt, State::Held { .. }) => State::Interrupted,
            (Self::Replay(body), State::Done(done)) if body == done => state,
            (Self::Forget | Self::Expire, State::Free | State::Done(_) | State::Interrupted)
            | (Self::Restart, State::Held { durably: false }) => State::Free,
            (Self::Restart, State::Held { durably: true }) => State::Interrupted,
            (Self::Expire | Self::Restart, _) => state,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    event: Event,
    from: usize,
    /// The end; `None` if the client never learned whether the event happened.
    until: Option<usize>,
}

/// The history of one key.
#[derive(Debug, Default)]
pub(super) struct History {
    now: AtomicUsize,
    noted: Mutex<Vec<Noted>>,
}

impl History {
    /// The next moment, by a counter.
    pub(super) fn now(&self) -> usize {
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn note(&self, from: usize, event: Event) {
        let until = Some(self.now());
        self.noted.lock().push(Noted { event, from, until });
    }

    /// Notes an acknowledged event, or one that may still happen. Returns true if the event was
    /// acknowledged.
    pub(super) fn conclude<T>(&self, from: usize, event: Event, outcome: Result<T>) -> bool {
        match outcome {
            Ok(_) => self.note(from, event),
            Err(Error::Stopped { .. }) => {
                self.note_unknown(from, event);
                return false;
            }
            Err(other) => panic!("no client hears that: {other}"),
        }
        true
    }

    /// Notes an event that may happen at any time from then on, or never.
    pub(super) fn note_unknown(&self, from: usize, event: Event) {
        self.noted.lock().push(Noted { event, from, until: None });
    }

    /// Panics unless some order explains what was noted: one in which each event happened at one
    /// moment between the question and the answer.
    pub(super) fn check(&self) {
        let noted = self.noted.lock();
        let mut seen = HashSet::new();
        assert!(explained(&noted, State::Free, 0, &mut seen), "no order explains {noted:#?}");
    }
}

/// Returns true if the events that are not `done` yet can follow, by Wing and Gong's search.
fn explained(noted: &[Noted], state: State, done: u64, seen: &mut HashSet<(State, u64)>) -> bool {
    let open = || (0..noted.len()).filter(|n| done & 1 << n == 0);
    let Some(first_end) = open().filter_map(|n| noted[n].until).min() else { return true };
    if !seen.insert((state, done)) {
        return false;
    }
    open().filter(|n| noted[*n].from < first_end).any(|n| {
        let next = noted[n].event.apply(state);
        next.is_some_and(|next| explained(noted, next, done | 1 << n, seen))
    })
}

#[test]
fn a_history_of_two_runs_of_one_key_is_not_explained() {
    let history = History::default();
    let (a, b) = (history.now(), history.now());
    history.note(a, Event::Execute);
    history.note(b, Event::Execute);
    let check = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history.check()));
    assert!(check().is_err());
    // Whether the first one was given up is not known, so it may have been.
    history.note_unknown(a, Event::Release);
    assert!(check().is_ok());
}
