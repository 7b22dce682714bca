//! The state of a store as a document.

use serde::{Deserialize, Serialize};

use crate::backend::Stage;
use crate::{Stats, Store};

/// The state of a store, and of the process that has it open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The id of the process.
    pub process: u32,
    /// The version of this crate that the process was built with.
    pub version: String,
    /// `ok`, `degraded: …` or `stopped: …`.
    pub health: String,
    /// True if new keys would be served.
    pub is_ready: bool,
    /// The age of the key that is in flight for longest, in seconds; `None` if none is.
    pub oldest_in_flight_seconds: Option<f64>,
    /// Counters and sizes.
    pub stats: Stats,
}

impl Status {
    pub(super) fn of(store: &Store) -> Self {
        let health = store.health();
        Self {
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_ready: health.is_ready(),
            health: health.to_string(),
            oldest_in_flight_seconds: oldest(store),
            stats: store.stats(),
        }
    }
}

/// Returns the age of the key that is in flight for longest. One that is held until a restart is not.
fn oldest(store: &Store) -> Option<f64> {
    let in_flight = store.in_flight();
    let oldest = in_flight.iter().find(|key| key.stage != Stage::Retained);
    oldest.map(|key| key.age.as_secs_f64())
}
