//! Creating a store: `LOCK`, a first log with one empty batch, and `MANIFEST`, in this order.
//!
//! A crash in between leaves a directory without a `MANIFEST`; the next opening creates the store
//! again from the start, under the uuid in `LOCK` if there is one.

use std::sync::Arc;

use crate::clock::{Timeline, millis};
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, remove_leftover};
use crate::engine::log::{BatchBuilder, Identity, Log, PAGE, Tail, log_name};
use crate::engine::settings::Settings;
use crate::error::{Error, Result};

use super::manifest::{MANIFEST, Manifest};
use super::names::Names;
use super::rotation::start;

/// The generation of a new store's first log.
pub(super) const FIRST: u64 = 1;
/// The size of a new store's first log: its header, and one empty batch.
const FIRST_LOG_BYTES: u64 = 2 * PAGE;

/// Checks that a directory without a `MANIFEST` is empty, or that its store's creation was cut
/// short.
///
/// # Errors
///
/// [`Error::Corrupt`] if a store was here that has lost its `MANIFEST`, or may have lost it to
/// `lost+found`, and [`Error::Foreign`] if the directory holds files of others and no `LOCK`.
pub(super) fn expect_unfinished(
    disk: &dyn Disk,
    uuid: Option<[u8; 16]>,
    names: &Names,
) -> Result<()> {
    let Some(uuid) = uuid else { return names.expect_none_but_leftovers(disk) };
    let missing =
        || Error::corrupt(disk.path_of(MANIFEST), "it is missing").or_salvage("no record");
    if names.has_recovered_files() {
        let reason = "it is missing, and lost+found holds files that may be the store's";
        return Err(Error::corrupt(disk.path_of(MANIFEST), reason));
    }
    if !names.segments.is_empty() || names.logs.iter().any(|generation| *generation != FIRST) {
        return Err(missing());
    }
    if names.logs.contains(&FIRST)
        && Log::open_by_header(disk, FIRST, uuid)?.size != FIRST_LOG_BYTES
    {
        return Err(missing());
    }
    Ok(())
}

/// Creates the first log and returns the manifest that lists it; the caller writes `MANIFEST`.
///
/// # Durability
///
/// The log, its name and its batch are durable when this returns.
pub(super) fn create(
    disk: &dyn Disk,
    uuid: [u8; 16],
    settings: &Settings,
    names: &Names,
) -> Result<Manifest> {
    let name = log_name(FIRST);
    remove_leftover(disk, &name)
        .map_err(|error| Error::io("remove", disk.path_of(&name), error))?;
    names.remove_temporaries(disk);
    let digests = DigestKey::random();
    let identity = Identity { uuid, entries: digests };
    let log = Arc::new(Log::create(disk, FIRST, identity, FIRST_LOG_BYTES)?);
    disk.sync().map_err(|error| Error::io("sync", disk.path(), error))?;
    let mut batch = BatchBuilder::new();
    start(&digests, &mut batch, None);
    let anchor = Timeline::start(Arc::clone(&settings.clock)).anchor();
    Tail::new(log, 0).append(&mut batch, anchor)?;
    Ok(Manifest {
        uuid,
        digests,
        longest_ttl: millis(settings.ttl),
        next_generation: FIRST + 1,
        sealed: None,
        logs: vec![FIRST],
        segments: Vec::new(),
    })
}
