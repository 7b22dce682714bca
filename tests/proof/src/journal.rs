//! What was asked of each key, when it was answered, and so what must be found after a cut.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use refrain::clock::SimulatedClock;
use refrain::{Error, Store};

use crate::model::{Known, Name, ask};

/// When it is, and was, on a machine.
#[derive(Debug, Clone, Default)]
pub struct Times {
    /// Since the first machine was switched on.
    pub now: Duration,
    /// When this one was.
    booted: Duration,
    boots: u32,
    /// After how many events it was how late.
    past: Vec<(usize, Duration)>,
}

/// What was asked of each key, in order, and when it was answered.
#[derive(Debug, Clone, Default)]
pub struct Journal(HashMap<Name, Vec<Entry>>);

#[derive(Debug, Clone)]
struct Entry {
    /// How much had happened to the disk before.
    asked: usize,
    /// And when the answer came, if one did.
    answered: Option<usize>,
    after: Option<Known>,
}

/// What a process may find under each key, the newest word first.
pub type Expected = Vec<(Name, Vec<Option<Known>>)>;
/// What it found.
pub type Found = Vec<(Name, Option<Known>)>;

impl Times {
    /// A clock as it was after so many events.
    pub fn clock_at(&self, now: Duration) -> SimulatedClock {
        let clock = SimulatedClock::new();
        clock.advance(self.booted);
        (0..self.boots).for_each(|_| clock.reboot(Duration::ZERO));
        clock.advance(now - self.booted);
        clock
    }

    /// How late it was after so many events.
    pub fn at(&self, events: usize) -> Duration {
        let past = self.past.iter().rev().find(|(at, _)| *at <= events);
        past.map_or(self.booted, |(_, now)| *now)
    }

    /// The power failed when it was so late, and came back after a downtime.
    pub fn reboot(&self, cut: Duration, downtime: Duration) -> Self {
        let now = cut + downtime;
        Self { now, booted: now, boots: self.boots + 1, past: Vec::new() }
    }

    /// Time has passed, and so much has happened to the disk by now.
    pub fn pass(&mut self, by: Duration, events: usize) {
        self.now += by;
        self.past.push((events, self.now));
    }
}

impl Journal {
    /// What must be found if the power fails after so many events.
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

    /// Something was asked of a key, which becomes this.
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

/// Why what was expected was not found.
#[derive(Debug)]
pub enum Miss {
    /// The store says what it must not.
    Wrong(String),
    /// It does not say.
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

/// Asks a store about each key, and says what it found.
///
/// # Errors
///
/// What it must not have found.
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
