//! The state of a key, shown.

use clap::ValueEnum;
use jiff::Timestamp;
use refrain::Key;
use refrain::admin::{Completed, Damaged, Entry, Interrupted};

use crate::failure::in_words_of_the_command;
use crate::text;
use crate::time::{between, moment, timestamp};

/// The heading of a list of entries, with their owners if it is of all scopes.
pub(crate) fn heading(of_all: bool) -> String {
    let scope = if of_all { format!("{:<64}  ", "SCOPE") } else { String::new() };
    format!("{scope}COMPLETED             EXPIRES IN  STATUS  STATE        KEY")
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// The operation is done, and its record is replayed
    Completed,
    /// A run was interrupted, and nobody knows what it did
    Interrupted,
    /// The record cannot be read
    Damaged,
}

impl State {
    pub(crate) fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Completed(_) => Self::Completed,
            Entry::Interrupted(_) => Self::Interrupted,
            Entry::Damaged(_) => Self::Damaged,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Interrupted => "interrupted",
            Self::Damaged => "damaged",
        }
    }
}

/// Returns the status of the response, if there is one.
pub(crate) fn status(entry: &Entry) -> Option<u16> {
    match entry {
        Entry::Completed(Completed { status, .. }) => *status,
        Entry::Interrupted(_) | Entry::Damaged(_) => None,
    }
}

/// Returns the time of the record; of the others it is not known.
pub(crate) fn completed_at(entry: &Entry) -> Option<Timestamp> {
    match entry {
        Entry::Completed(Completed { completed_at, .. }) => Some(timestamp(*completed_at)),
        Entry::Interrupted(_) | Entry::Damaged(_) => None,
    }
}

/// Shows a line under [`heading`].
pub(crate) fn line(entry: &Entry, now: Timestamp, of_all: bool) -> String {
    let none = || "-".to_owned();
    let completed = completed_at(entry).map_or_else(none, moment);
    let expires = match entry {
        Entry::Completed(Completed { expires_at, .. }) => between(now, timestamp(*expires_at)),
        Entry::Interrupted(_) | Entry::Damaged(_) => none(),
    };
    let status = status(entry).map_or_else(none, |status| status.to_string());
    let scope = entry.scope().map_or_else(none, |scope| scope.to_string());
    let scope = if of_all { format!("{scope:<64}  ") } else { String::new() };
    let key = entry.key().map_or("(cannot be read)", Key::as_str);
    let state = State::of(entry).name();
    format!("{scope}{completed:<20}  {expires:<10}  {status:<6}  {state:<11}  {key}")
}

/// Shows all but the response, a fact a line.
pub(crate) fn facts(entry: &Entry, now: Timestamp) -> String {
    let none = || "-".to_owned();
    let head = [
        ("key", entry.key().map_or_else(none, |key| key.as_str().to_owned())),
        ("scope", entry.scope().map_or_else(none, |scope| scope.to_string())),
        ("state", State::of(entry).name().to_owned()),
    ];
    let rest = match entry {
        Entry::Completed(record) => completed(record, now),
        Entry::Interrupted(run) => interrupted(run),
        Entry::Damaged(Damaged { error, .. }) => {
            vec![("damage", in_words_of_the_command(error))]
        }
    };
    text::fields(head.into_iter().chain(rest))
}

fn completed(record: &Completed, now: Timestamp) -> Vec<(&'static str, String)> {
    let expires = timestamp(record.expires_at);
    vec![
        ("request", record.request_id.to_string()),
        ("completed", moment(timestamp(record.completed_at))),
        ("expires", format!("{} (in {})", moment(expires), between(now, expires))),
        ("fingerprint", record.fingerprint.to_string()),
    ]
}

fn interrupted(run: &Interrupted) -> Vec<(&'static str, String)> {
    vec![
        ("request", run.request_id.to_string()),
        ("attempt", run.attempt.to_string()),
        ("checkpoints", run.checkpoints.len().to_string()),
        ("fingerprint", run.fingerprint.to_string()),
    ]
}
