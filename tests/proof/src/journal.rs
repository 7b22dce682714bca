//! The requests for each key and the times of their answers, and so what must be found after a cut.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use refrain::clock::SimulatedClock;
use refrain::{Error, Store};

use crate::model::{Known, Name, ask};

/// The time on a machine, now and earlier.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// The time since the first machine was switched on.
    pub now: Duration,
    /// The time at which this machine was switched on.
    booted: Duration,
    boots: u32,
    /// Numbers of events, each with the time after so many events.
    past: Vec<(usize, Duration)>,
}

/// The requests for each key, in order, and the times of their answers.
#[derive(Debug, Clone, Default)]
pub struct Journal(HashMap<Name, Vec<Entry>>);

#[derive(Debug, Clone)]
struct Entry {
    /// The number of events on the disk before the request.
    asked: usize,
    /// The number of events on the disk when the answer came, if one did.
    answered: Option<usize>,
    after: Option<Known>,
}

/// The states that a process may find under each key, the newest first.
pub type Expected = Vec<(Name, Vec<Option<Known>>)>;
/// The state that a process found under each key.
pub type Found = Vec<(Name, Option<Known>)>;

impl Times {
    /// A clock that shows this time.
    pub fn clock_at(&self, now: Duration) -> SimulatedClock {
        let clock = SimulatedClock::new();
        clock.advance(self.booted);
        (0..self.boots).for_each(|_| clock.reboot(Duration::ZERO));
        clock.advance(now - self.booted);
        clock
    }

    /// The time after this many events.
    pub fn at(&self, events: usize) -> Duration {
        let past = self.past.iter().rev().find(|(at, _)| *at <= events);
        past.map_or(self.booted, |(_, now)| *now)
    }

    /// The times after the power failed at `cut` and came back after `downtime`.
    pub fn reboot(&self, cut: Duration, downtime: Duration) -> Self {
        let now = cut + downtime;
        Self { now, booted: now, boots: self.boots + 1, past: Vec::new() }
    }

    /// Lets time pass, and notes the number of events on the disk by now.
    pub fn pass(&mut self, by: Duration, events: usize) {
        self.now += by;
        self.past.push((events, self.now));
    }
}

impl Journal {
    /// The states that may be found if the power fails after this many events.
    pub fn expected(&self, events: usize) -> Expected {
        let states = |entries: &Vec<Entry>| {
            // What was asked just then has done nothing to the disk yet.
            let asked = entries.iter().filter(|entry| {
                entry.asked < events || entry.answered.is_some_and(|answered| answered <= events)
            });
            let asked: Vec<_> = asked.collect();
            let certain = asked
                .iter()
                .rposition(|entry| entry.answered.is_some_and(|answered| answered <= events));
            let mut states: Vec<_> =
                asked[certain.unwrap_or(0)..].iter().map(|entry| entry.after.clone()).collect();
            if certain.is_none() {
                states.insert(0, None);
            }
            states.reverse();
            states
        };
        self.0.iter().map(|(name, entries)| (*name, states(entries))).collect()
    }

    /// All states that each key was ever in, and none.
    pub fn ever(&self) -> Expected {
        let states = |entries: &Vec<Entry>| {
            let states = entries.iter().rev().map(|entry| entry.after.clone());
            states.chain([None]).collect()
        };
        self.0.iter().map(|(name, entries)| (*name, states(entries))).collect()
    }

    /// The states that may be found if the power fails after this many events, of the keys that have
    /// a state and are still live at this time. Another key's record may have expired unnoticed since
    /// the last batch, and be live again.
    pub fn expected_live(&self, events: usize, at: Duration) -> Expected {
        let is_live = |known: &Known| known.expires() > at;
        let mut expected = self.expected(events);
        expected
            .retain(|(_, states)| states.iter().all(|known| known.as_ref().is_some_and(is_live)));
        expected
    }

    /// Notes a request that gives a key this state.
    pub fn note(
        &mut self,
        name: Name,
        asked: usize,
        answered: Option<usize>,
        after: Option<Known>,
    ) {
        self.0.entry(name).or_default().push(Entry { asked, answered, after });
    }
}

/// The reason why no expected state was found.
#[derive(Debug)]
pub enum Miss {
    /// The store gave an answer that it must not give.
    Wrong(String),
    /// The store returned an error for this key.
    Failed(Name, Error),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(said) => f.write_str(said),
            Self::Failed(name, error) => write!(f, "{name:?} cannot be had: {error:?}"),
        }
    }
}

/// Asks a store about each key, and returns the states found.
///
/// # Errors
///
/// If the store's answer about a key is none of those expected, or an error.
pub fn find(store: &Store, expected: &Expected, now: Duration) -> std::result::Result<Found, Miss> {
    let mut found = Vec::with_capacity(expected.len());
    for (name, states) in expected {
        let mut wrong = String::new();
        let mut seen = None;
        for state in states {
            let live = state.as_ref().filter(|known| known.expires() > now);
            let answer = ask(store, *name, live).map_err(|error| Miss::Failed(*name, error))?;
            match answer {
                Ok(answer) => {
                    seen = Some(state.clone().map(|known| known.with(&answer)));
                    break;
                }
                Err(said) => wrong = said,
            }
        }
        found.push((*name, seen.ok_or(Miss::Wrong(wrong))?));
    }
    Ok(found)
}
