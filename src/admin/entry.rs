//! The state of a key as a document.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize};

use crate::backend::{Cursor, Listed, Past};
use crate::{Error, Fingerprint, Key, Record, RequestId, Scope};

use super::blob::{Blob, as_binary};
use super::refusal::chain;
use super::response::Response;
use super::time;

/// The state of a key, with what the store has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Entry {
    /// The operation is done, and its record is replayed.
    Completed(Completed),
    /// A run was interrupted, and nobody knows what it did.
    Interrupted(Interrupted),
    /// The record cannot be read.
    Damaged(Damaged),
}

/// A key whose operation is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// The owner of the key.
    pub scope: Scope,
    /// The client's key.
    pub key: Key,
    /// The request that ran.
    pub request_id: RequestId,
    /// The use that the key was put to.
    pub fingerprint: Fingerprint,
    /// The status of the response; `None` if the response was not kept.
    pub status: Option<u16>,
    /// The time at which the operation was done.
    #[serde(with = "time")]
    pub completed_at: SystemTime,
    /// The time until which the record is replayed.
    #[serde(with = "time")]
    pub expires_at: SystemTime,
    /// `None` if it was not asked for, and `Some(None)`, in JSON `null`, if it was not kept.
    #[serde(default, deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    pub response: Option<Option<Response>>,
}

/// A key whose run was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// The owner of the key.
    pub scope: Scope,
    /// The client's key.
    pub key: Key,
    /// The request that ran.
    pub request_id: RequestId,
    /// The use that the key was put to.
    pub fingerprint: Fingerprint,
    /// The number of the run, counted from 1.
    pub attempt: u32,
    /// The recovery points that the runs stored, oldest first.
    pub checkpoints: Vec<Blob>,
    /// The bytes from which the keys that the run sent downstream were derived.
    #[serde(serialize_with = "as_binary")]
    pub seed: Option<Blob>,
}

/// A key whose record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// The owner of the key; `None` if the damage is in it.
    pub scope: Option<Scope>,
    /// The client's key; `None` if the damage is in it.
    pub key: Option<Key>,
    /// The file, and the damage.
    pub error: String,
}

impl Entry {
    /// Describes a line of the store's list.
    pub(super) fn of(listed: Listed, with_response: bool) -> Self {
        match listed {
            Listed::Record { scope, key, record, status } => Self::Completed(Completed {
                status: status.map(|status| status.as_u16()),
                response: with_response.then(|| record.response().map(Response::from)),
                ..Completed::of(scope, key, &record)
            }),
            Listed::Damaged { at, error } => Self::damaged(at, &error),
        }
    }

    /// Describes a record that was found, with its response.
    pub(super) fn found(scope: Scope, key: Key, record: &Record) -> Self {
        let response = record.response().map(Response::from);
        Self::Completed(Completed {
            status: response.as_ref().map(|response| response.status),
            response: Some(response),
            ..Completed::of(scope, key, record)
        })
    }

    /// Describes a record that cannot be read.
    pub(super) fn damaged(at: Option<Cursor>, error: &Error) -> Self {
        let (scope, key) = at.map(|Cursor { scope, key }| (scope, key)).unzip();
        Self::Damaged(Damaged { scope, key, error: chain(error) })
    }

    /// Returns the owner of the key, if it is known.
    pub fn scope(&self) -> Option<Scope> {
        match self {
            Self::Completed(Completed { scope, .. })
            | Self::Interrupted(Interrupted { scope, .. }) => Some(*scope),
            Self::Damaged(Damaged { scope, .. }) => *scope,
        }
    }

    /// Returns the key, if it is known.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Completed(Completed { key, .. }) | Self::Interrupted(Interrupted { key, .. }) => {
                Some(key)
            }
            Self::Damaged(Damaged { key, .. }) => key.as_ref(),
        }
    }
}

impl Completed {
    fn of(scope: Scope, key: Key, record: &Record) -> Self {
        Self {
            scope,
            key,
            request_id: record.request_id().clone(),
            fingerprint: record.fingerprint(),
            status: None,
            completed_at: record.completed_at(),
            expires_at: record.expires_at(),
            response: None,
        }
    }
}

impl From<Past> for Interrupted {
    fn from(past: Past) -> Self {
        Self {
            scope: past.scope,
            key: past.key,
            request_id: past.request_id,
            fingerprint: past.fingerprint,
            attempt: past.attempt,
            checkpoints: past.checkpoints.into_iter().map(Blob).collect(),
            seed: past.seed.map(|seed| Blob(seed.to_vec().into())),
        }
    }
}

/// Reads a field that is there: `null` is a value.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Response>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
