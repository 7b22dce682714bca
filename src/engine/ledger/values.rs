//! The larger records of a segment: they stay in the log that acknowledged them, or, if that holds
//! much else, are copied into a log of their own.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Anchor;
use crate::engine::digest::DigestKey;
use crate::engine::entry::{Encoded, End};
use crate::engine::log::{BatchBuilder, Frame, Frozen, Identity, Location, Log, PAGE, Tail};
use crate::engine::trouble::Trouble;
use crate::error::Result;
use crate::sync::atomic::Ordering;

use super::Ledger;
use super::latest::LargeBytes;

/// A log is kept if its larger records take at least this share of it, in percent.
const KEPT_PERCENT: u64 = 50;
/// The size at which a batch of copies is closed.
const COPY_BYTES: u64 = 1024 * 1024;

/// Keeps the larger records of the logs that are sealed.
pub(super) enum Keeper {
    /// There are none.
    Nothing,
    /// They stay where they are.
    Original(Keep),
    Copy(Copier),
}

/// A log that is kept for the records in it.
pub(super) struct Keep {
    pub(super) log: Arc<Log>,
    pub(super) end: End,
    /// It was made for this, and nothing else needs it.
    is_copy: bool,
}

/// Copies entries into a new log.
pub(super) struct Copier {
    tail: Tail,
    batch: BatchBuilder,
    anchor: Anchor,
    digests: DigestKey,
}

impl Ledger {
    /// Returns what keeps the larger records of these logs.
    pub(super) fn keeper(&self, logs: &[Frozen], large: LargeBytes) -> Result<Keeper, Trouble> {
        if large.entries == 0 {
            return Ok(Keeper::Nothing);
        }
        if let [frozen] = logs
            && frozen.log.is_current()
            && large.bytes * 100 >= frozen.end.offset * KEPT_PERCENT
        {
            let log = Arc::new(frozen.log.values(frozen.end));
            return Ok(Keeper::Original(Keep { log, end: frozen.end, is_copy: false }));
        }
        let generation = self.take_generation();
        // Once the log has its name and a batch, an older MANIFEST would be taken for a copy.
        self.change_manifest(|manifest| {
            manifest.next_generation = manifest.next_generation.max(generation + 1);
        })?;
        let size = Copier::size_for(large);
        let log = Log::create(&*self.disk, generation, self.identity(), size);
        Ok(Keeper::Copy(Copier {
            tail: Tail::new(Arc::new(log.map_err(Trouble::classify)?), 0),
            batch: BatchBuilder::new(),
            anchor: self.timeline.anchor(),
            digests: self.digests,
        }))
    }

    /// Removes a copy that no segment came of.
    pub(super) fn discard(&self, keep: &Keep) {
        if keep.is_copy {
            self.discard_log(&keep.log);
        }
    }

    /// Removes a log, unless `MANIFEST` lists it.
    pub(super) fn discard_log(&self, log: &Log) {
        if !self.manifest.lock().lists_log(log.generation) {
            // What cannot be removed is a leftover.
            let _ = self.disk.remove(&log.name);
        }
    }

    /// Returns the identity of the store, for the header of a log.
    pub(super) fn identity(&self) -> Identity {
        Identity { uuid: self.uuid, entries: self.digests }
    }

    /// Returns a generation that no log has had.
    pub(super) fn take_generation(&self) -> u64 {
        self.next_generation.fetch_add(1, Ordering::AcqRel)
    }
}

impl Keeper {
    /// Keeps an entry that has verified, and returns its location.
    pub(super) fn keep(&mut self, hash: u128, from: Location, bytes: &Bytes) -> Result<Location> {
        match self {
            Self::Copy(copier) => copier.push(hash, from, bytes),
            Self::Original(_) | Self::Nothing => Ok(from),
        }
    }

    /// Returns the log that holds the records.
    ///
    /// # Durability
    ///
    /// They are durable when this returns; the caller makes the log's name durable.
    pub(super) fn finish(self) -> Result<Option<Keep>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Original(keep) => Ok(Some(keep)),
            Self::Copy(copier) => copier.finish().map(Some),
        }
    }
}

impl Copier {
    /// Returns the size of a log with room for these entries.
    fn size_for(large: LargeBytes) -> u64 {
        let bytes = large.bytes + large.entries * Frame::OVERHEAD as u64;
        // Of two batches in a row, the entries take more than one may: or they would be one.
        let batches = 2 * bytes / COPY_BYTES + 2;
        let heads = batches * (BatchBuilder::OVERHEAD as u64 + PAGE);
        (PAGE + bytes + heads).next_multiple_of(PAGE)
    }

    fn push(&mut self, hash: u128, from: Location, bytes: &Bytes) -> Result<Location> {
        let length = bytes.len() + Frame::OVERHEAD;
        if !self.batch.is_empty() && self.batch.span() + length as u64 > COPY_BYTES {
            self.append()?;
        }
        let digest = self.digests.digest(&[bytes]);
        let at = self.batch.push(&Encoded { bytes: bytes.to_vec(), digest, hash });
        Ok(from.moved(self.tail.end + at, &digest))
    }

    fn append(&mut self) -> Result<()> {
        self.tail.append(&mut self.batch, self.anchor)?;
        self.batch.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Keep> {
        if !self.batch.is_empty() {
            self.append()?;
        }
        let end = self.tail.end();
        Ok(Keep { log: Arc::new(self.tail.log.values(end)), end, is_copy: true })
    }
}
