//! The times in which a node surely had a key in hand for a client.

use std::collections::HashMap;

use super::group::Death;
use super::journal::{Entry, Life, Moment};
use super::words::{Answer, Ask, Begin, Number};

/// A permit or an attempt, from the answer that gave it on.
#[derive(Debug)]
pub(super) struct Possession<'a> {
    pub(super) number: Number,
    pub(super) life: Life,
    pub(super) begin: &'a Begin,
    /// The run in hand: the request's own, or the one that it found interrupted.
    pub(super) run: &'a str,
    /// The requests about it, in order.
    pub(super) asked: Vec<&'a Entry>,
    pub(super) sent: Moment,
    pub(super) from: Moment,
    /// The moment from which on it may be over. One whose process is killed has no end: only the
    /// death of its session frees the key.
    pub(super) until: Moment,
}

impl<'a> Possession<'a> {
    /// All possessions of a key, in the order of their answers.
    pub(super) fn all(entries: &'a [Entry]) -> Vec<Self> {
        let mut about: HashMap<Number, Vec<&Entry>> = HashMap::new();
        for entry in entries {
            if let Some(held) = entry.held() {
                about.entry(held).or_default().push(entry);
            }
        }
        let mut all: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                let Ask::Begin(begin) = &entry.ask else { return None };
                let run = match entry.answer()? {
                    Answer::Run { .. } => &begin.request,
                    Answer::Interrupted { request, .. } => request,
                    _ => return None,
                };
                let mut asked = about.remove(&entry.number).unwrap_or_default();
                asked.sort_unstable_by_key(|entry| entry.sent);
                let until = asked.iter().find(|entry| ends(entry)).map(|entry| entry.sent);
                Some(Self {
                    number: entry.number,
                    life: entry.life,
                    begin,
                    run,
                    asked,
                    sent: entry.sent,
                    from: entry.told_at(),
                    until: until.unwrap_or(Moment::MAX),
                })
            })
            .collect();
        all.sort_unstable_by_key(|possession| possession.from);
        all
    }

    /// The request to run again, if there was one.
    pub(super) fn retry(&self) -> Option<&'a Entry> {
        self.asked.iter().copied().find(|entry| matches!(entry.ask, Ask::Retry { .. }))
    }

    /// The run that a request about the possession was about.
    pub(super) fn run_of(&self, entry: &Entry) -> &'a str {
        match self.retry() {
            Some(retry) if retry.sent < entry.sent => &self.begin.request,
            _ => self.run,
        }
    }

    /// Returns whether the process lost all that it held at some moment before `by`: the database
    /// says that the session under which it got this has been dead since then.
    pub(super) fn is_lost(&self, deaths: &[Death], by: Moment) -> bool {
        deaths
            .iter()
            .any(|death| death.life == self.life && (self.sent..=by).contains(&death.lease_until))
    }
}

/// Returns whether a possession may be over once this was asked.
fn ends(entry: &Entry) -> bool {
    match entry.ask {
        Ask::Complete { .. } | Ask::Release { .. } | Ask::Interrupt { .. } | Ask::Drop { .. } => {
            true
        }
        Ask::Retry { .. } => !matches!(entry.answer(), Some(Answer::Run { .. })),
        _ => false,
    }
}
