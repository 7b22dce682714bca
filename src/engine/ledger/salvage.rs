//! Saving what can be proved of a store that does not open.
//!
//! ```text
//!   files ──sources──► logs, segments ──keys──► the latest entry of each key ──target──► a new store
//! ```
//!
//! Nothing is trusted but what verifies: each batch, entry and row does so by itself. The old
//! directory is only read. The new store keeps the uuid, so that damaged keys and downstream keys
//! are the same ones, and its time goes on from the old one's.
//!
//! Invariants:
//! - The latest entry of a key that can be read decides, unless a later one is known to be damaged.
//! - A key is damaged, and not absent, if its latest entry is known to be damaged.
//! - Of what else may be missing the report has the place.
//! - `LOCK` and `MANIFEST` of the new store are written last, so an interrupted salvage leaves no
//!   store.

use std::sync::Arc;

use crate::clock::{Anchor, Moment, Reading, Timeline};
use crate::engine::disk::Disk;
use crate::engine::settings::Settings;
use crate::error::{Error, Result};
use crate::salvage::Salvage;

mod keys;
mod losses;
mod sources;
mod target;

use keys::Keys;
use sources::Sources;

/// Writes what can be proved of the store on one disk to another, which is empty, as a store of its
/// own.
///
/// # Errors
///
/// [`Error::Corrupt`] if no file says whose store it is, [`Error::Newer`], [`Error::Foreign`] if the
/// target is not empty, and [`Error::Io`].
///
/// # Durability
///
/// The new store is durable when this returns.
pub(crate) fn salvage(
    from: Arc<dyn Disk>,
    into: Arc<dyn Disk>,
    settings: &Settings,
) -> Result<Salvage> {
    let names = into.names().map_err(|error| Error::io("list", into.path(), error))?;
    if !names.is_empty() {
        return Err(Error::foreign(into.path(), "a salvage needs an empty directory"));
    }
    let mut report = Salvage::default();
    let sources = Sources::open(from, &mut report.losses)?;
    let batches = sources.batches();
    losses::of_batches(&sources, &batches, &mut report.losses);
    let keys = Keys::read(&sources, &batches, settings.ttl);
    let last = batches.last_anchor().unwrap_or_else(|| anchor_at(keys.latest_at()));
    let timeline = Timeline::resume(Arc::clone(&settings.clock), last, settings.trusted_downtime);
    target::write(&sources, keys, &timeline, batches.last_sequence(), into, settings, &mut report)?;
    Ok(report)
}

/// Returns an anchor for a store of which no batch is left: less time may count than has passed.
fn anchor_at(at: Moment) -> Anchor {
    let wall = std::time::Duration::from_millis(at.0);
    let reading = Reading { boot_id: [0; 16], boot: std::time::Duration::ZERO, wall };
    Anchor { at, reading }
}
