//! The parent's ledger: what must be true of each key, by the child's requests and their answers.
//!
//! The state of a key is certain, or is one of a few: after a kill, the state before a request that
//! was not answered, or a state after it. Whatever is seen of the key narrows the choice. Keys are
//! a fixed number of names that are used again and again, so no round is longer than another.

use std::collections::BTreeMap;

use super::subject::{TTL, fits};
use super::words::{Answer, Ask, Sight};

#[derive(Debug, Default)]
pub(super) struct Ledger {
    now: u64,
    keys: BTreeMap<String, Facts>,
    answers: u64,
}

#[derive(Debug)]
struct Facts {
    /// The states that the key may be in; never empty.
    states: Vec<State>,
    asked: Option<Ask>,
    /// The lines about the key since its state was last certain.
    story: Vec<String>,
}

/// The sight that a store must give of a key, and the time since when it must.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    sight: Sight,
    since: u64,
}

impl Ledger {
    /// Lets time pass: a key whose record has expired is free.
    pub(super) fn tick(&mut self, now: u64) {
        self.now = now;
        let ttl = u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX);
        for facts in self.keys.values_mut() {
            for state in &mut facts.states {
                if state.since + ttl <= now {
                    *state = State { sight: Sight::Free, since: now };
                }
            }
            facts.states.dedup();
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// The number of the store's answers.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// Every key that was ever used.
    pub(super) fn keys(&self) -> Vec<String> {
        self.keys.keys().cloned().collect()
    }

    /// Enters that the child is about to ask.
    pub(super) fn asks(&mut self, key: &str, ask: Ask) -> Result<(), String> {
        let free = State { sight: Sight::Free, since: self.now };
        let facts = self.keys.entry(key.to_owned()).or_insert_with(|| Facts {
            states: vec![free],
            asked: None,
            story: Vec::new(),
        });
        facts.story.push(format!("asks {ask}"));
        match facts.asked.replace(ask) {
            None => Ok(()),
            Some(before) => Err(format!("{key} was asked for twice, first with {before}")),
        }
    }

    /// Enters the answer that the child was given.
    pub(super) fn told(&mut self, key: &str, answer: &Answer) -> Result<(), String> {
        let now = self.now;
        self.answers += 1;
        let facts = self.keys.get_mut(key).ok_or_else(|| format!("nobody asked for {key}"))?;
        let ask = facts.asked.take().ok_or_else(|| format!("nobody asked for {key}"))?;
        facts.story.push(format!("told {answer}"));
        let after = |states: &[State]| -> Vec<State> {
            states.iter().flat_map(|state| state.after(&ask, now)).collect()
        };
        match answer {
            Answer::Saw(sight) if matches!(ask, Ask::Begin | Ask::BeginDurable { .. }) => {
                facts.narrow(key, sight)?;
                facts.states = after(&facts.states);
            }
            Answer::Saw(sight) => {
                facts.states = after(&facts.states);
                facts.narrow(key, sight)?;
            }
            Answer::Done => facts.states = after(&facts.states),
            Answer::Refused => {}
            Answer::Unknown => facts.may_have_done(&ask, now),
        }
        Ok(())
    }

    /// Enters that the child is gone: a request without an answer may have been done or not.
    pub(super) fn lose(&mut self) {
        for facts in self.keys.values_mut() {
            if let Some(ask) = facts.asked.take() {
                facts.may_have_done(&ask, self.now);
                facts.story.push("lost".into());
            }
        }
    }

    /// Enters what the parent sees of a key.
    pub(super) fn sees(&mut self, key: &str, sight: &Sight) -> Result<(), String> {
        let facts = self.keys.get_mut(key).expect("only keys of the ledger are looked at");
        facts.narrow(key, sight)?;
        facts.story = vec![format!("seen {sight}")];
        Ok(())
    }

    /// The facts about a key, for a message.
    pub(super) fn story(&self, key: &str) -> String {
        self.keys.get(key).map_or_else(String::new, |facts| facts.story.join(", "))
    }
}

impl Facts {
    fn narrow(&mut self, key: &str, sight: &Sight) -> Result<(), String> {
        let allowed = self.states.clone();
        self.states.retain(|state| state.sight == *sight);
        if !self.states.is_empty() {
            return Ok(());
        }
        let allowed: Vec<_> = allowed.iter().map(|state| state.sight.to_string()).collect();
        Err(format!(
            "key {key} must be [{}] and is [{sight}]; its story: {}",
            allowed.join("] or ["),
            self.story.join(", ")
        ))
    }

    fn may_have_done(&mut self, ask: &Ask, now: u64) {
        for state in self.states.clone() {
            for after in state.after(ask, now) {
                if !self.states.contains(&after) {
                    self.states.push(after);
                }
            }
        }
    }
}

impl State {
    /// The states that may follow if the request is done. A body may be left out for want of room.
    fn after(&self, ask: &Ask, now: u64) -> Vec<Self> {
        let one = |sight| vec![Self { sight, since: now }];
        let done = |request: &String, kept| Self {
            sight: Sight::Done { request: request.clone(), kept },
            since: now,
        };
        let interrupted = |request: &String, attempt, checkpoints| Sight::Interrupted {
            request: request.clone(),
            attempt,
            checkpoints,
        };
        match (ask, &self.sight) {
            (Ask::BeginDurable { request } | Ask::Interrupt { request }, Sight::Free) => {
                one(interrupted(request, 1, Vec::new()))
            }
            (Ask::Complete { request }, _) => {
                let mut after = vec![done(request, false)];
                if fits(request) {
                    after.push(done(request, true));
                }
                after
            }
            (Ask::CompleteWithoutResponse { request }, _) => vec![done(request, false)],
            (Ask::Release | Ask::Forget, _) => one(Sight::Free),
            (Ask::Checkpoint { data }, Sight::Interrupted { request, attempt, checkpoints }) => {
                let checkpoints = checkpoints.iter().chain([data]).cloned().collect();
                vec![Self { sight: interrupted(request, *attempt, checkpoints), ..*self }]
            }
            (Ask::Retry { request }, Sight::Interrupted { attempt, checkpoints, .. }) => {
                one(interrupted(request, attempt + 1, checkpoints.clone()))
            }
            _ => vec![self.clone()],
        }
    }
}
