//! The state of a key in a store.

use clap::ValueEnum;
use http::StatusCode;
use jiff::Timestamp;
use refrain::backend::{Listed, Past};
use refrain::{Error, Key, Record, Scope};
use serde::Serialize;

use crate::failure;
use crate::text;
use crate::time::{between, moment, timestamp};

/// The heading of a list of entries.
pub(crate) const HEADING: &str = "COMPLETED             EXPIRES IN  STATUS  STATE        KEY";

/// The state of a key, with all that the store has of it.
#[derive(Debug)]
pub(crate) enum Entry {
    /// The operation is done.
    Completed { scope: Scope, key: Key, record: Record, status: Option<StatusCode> },
    /// A run of it was interrupted, and nobody knows what it did.
    Interrupted(Past),
    /// The record cannot be read; nor can the key, if there is none.
    Damaged { scope: Scope, key: Option<Key>, error: Error },
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The operation is done, and its record is replayed
    Completed,
    /// A run was interrupted, and nobody knows what it did
    Interrupted,
    /// The record cannot be read
    Damaged,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Interrupted => "interrupted",
            Self::Damaged => "damaged",
        }
    }
}

impl Entry {
    /// Names the owner of a line of the store's list.
    pub(crate) fn of(scope: Scope, listed: Listed) -> Self {
        match listed {
            Listed::Record { key, record, status, .. } => {
                Self::Completed { scope, key, record, status }
            }
            Listed::Damaged { at, error } => {
                Self::Damaged { scope, key: at.map(|at| at.key), error }
            }
        }
    }

    pub(crate) fn state(&self) -> State {
        match self {
            Self::Completed { .. } => State::Completed,
            Self::Interrupted(_) => State::Interrupted,
            Self::Damaged { .. } => State::Damaged,
        }
    }

    /// Returns the owner of the key, if the key is known.
    pub(crate) fn scope(&self) -> Option<Scope> {
        match self {
            Self::Completed { scope, .. } | Self::Damaged { scope, key: Some(_), .. } => {
                Some(*scope)
            }
            Self::Interrupted(past) => Some(past.scope),
            // It is listed in every scope.
            Self::Damaged { key: None, .. } => None,
        }
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        match self {
            Self::Completed { key, .. } => Some(key),
            Self::Interrupted(past) => Some(&past.key),
            Self::Damaged { key, .. } => key.as_ref(),
        }
    }

    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Completed { status, .. } => *status,
            Self::Interrupted(_) | Self::Damaged { .. } => None,
        }
    }

    /// Returns the time of the record; of the others it is not known.
    pub(crate) fn completed_at(&self) -> Option<Timestamp> {
        match self {
            Self::Completed { record, .. } => Some(timestamp(record.completed_at())),
            Self::Interrupted(_) | Self::Damaged { .. } => None,
        }
    }

    /// Shows a line under [`HEADING`].
    pub(crate) fn line(&self, now: Timestamp) -> String {
        let none = || "-".to_owned();
        let completed = self.completed_at().map_or_else(none, moment);
        let expires = match self {
            Self::Completed { record, .. } => between(now, timestamp(record.expires_at())),
            Self::Interrupted(_) | Self::Damaged { .. } => none(),
        };
        let status = self.status().map_or_else(none, |status| status.as_str().to_owned());
        let key = self.key().map_or("(cannot be read)", Key::as_str);
        format!("{completed:<20}  {expires:<10}  {status:<6}  {:<11}  {key}", self.state().name())
    }

    /// Shows all but the response, a fact a line.
    pub(crate) fn facts(&self, now: Timestamp) -> String {
        let none = || "-".to_owned();
        let head = [
            ("key", self.key().map_or_else(none, |key| key.as_str().to_owned())),
            ("scope", self.scope().map_or_else(none, |scope| scope.to_string())),
            ("state", self.state().name().to_owned()),
        ];
        let rest = match self {
            Self::Completed { record, .. } => {
                let expires = timestamp(record.expires_at());
                vec![
                    ("request", record.request_id().to_string()),
                    ("completed", moment(timestamp(record.completed_at()))),
                    ("expires", format!("{} (in {})", moment(expires), between(now, expires))),
                    ("fingerprint", record.fingerprint().to_string()),
                ]
            }
            Self::Interrupted(past) => vec![
                ("request", past.request_id.to_string()),
                ("attempt", past.attempt.to_string()),
                ("checkpoints", past.checkpoints.len().to_string()),
                ("fingerprint", past.fingerprint.to_string()),
            ],
            Self::Damaged { error, .. } => vec![("damage", failure::chain(error))],
        };
        text::fields(head.into_iter().chain(rest))
    }
}
