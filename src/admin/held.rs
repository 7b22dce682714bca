//! A key in flight as a document.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::backend::{InFlight, Stage};
use crate::{Key, RequestId, Scope};

use super::time;

/// A key in flight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The owner of the key.
    pub scope: Scope,
    /// The client's key.
    pub key: Key,
    /// The request that holds it.
    pub request_id: RequestId,
    /// `running`, `ending`, `delayed`, `elsewhere` or `retained`: those of [`Stage`].
    pub stage: String,
    /// The time at which the request asked for the key.
    #[serde(with = "time")]
    pub since: SystemTime,
    /// The time that has gone by since then, in seconds.
    pub age_seconds: f64,
    /// The number of requests that wait for the key.
    pub waiters: usize,
}

impl From<InFlight> for Held {
    fn from(key: InFlight) -> Self {
        let stage = match key.stage {
            Stage::Running => "running",
            Stage::Ending => "ending",
            Stage::Delayed => "delayed",
            Stage::Elsewhere => "elsewhere",
            Stage::Retained => "retained",
        };
        Self {
            stage: stage.to_owned(),
            scope: key.scope,
            key: key.key,
            request_id: key.request_id,
            since: key.since,
            age_seconds: key.age.as_secs_f64(),
            waiters: key.waiters,
        }
    }
}
