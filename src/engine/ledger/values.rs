//! The larger records of a segment: they stay in the logs that have them, or, where a log holds
//! much else, are copied into one of their own.
//!
//! A damaged entry stays where it is, with its log, so that it is there again should the disk give
//! it back.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{Anchor, Moment};
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, Pool};
use crate::engine::entry::{Encoded, End};
use crate::engine::log::{BatchBuilder, Frame, Frozen, Identity, Location, Log, PAGE, Tail};
use crate::engine::trouble::Trouble;
use crate::error::Result;
use crate::sync::atomic::Ordering;

use super::Ledger;

/// A log is kept if its larger records take at least this share of it, in percent.
const KEPT_PERCENT: u64 = 50;
/// The size at which a batch of copies is closed.
const COPY_BYTES: u64 = 1024 * 1024;

/// The place of the larger records of frozen logs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Records {
    /// They stay in a log that holds little else.
    Stay,
    /// They are copied, so that nothing else is left.
    Copied,
}

/// The number of the larger entries, and their bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LargeBytes {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl LargeBytes {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }
}

/// A log that is kept for the records in it.
#[derive(Debug, Clone)]
pub(super) struct Keep {
    pub(super) log: Arc<Log>,
    pub(super) end: End,
}

/// Decides where the larger records of a segment stay.
pub(super) struct Keeper {
    sources: Vec<Source>,
    /// The new log is the first of the segment's.
    copier: Option<Copier>,
    /// The sources that stay, in the order of the segment's logs.
    staying: Vec<usize>,
}

/// A log that has records of the segment.
pub(super) struct Source {
    pub(super) keep: Keep,
    /// Its records are copied.
    pub(super) is_copied: bool,
}

/// Copies entries into a new log.
pub(super) struct Copier {
    tail: Tail,
    batch: BatchBuilder,
    anchor: Anchor,
    digests: DigestKey,
    pool: Arc<Pool>,
}

impl Ledger {
    /// Returns what keeps the larger records of these frozen logs. Where the disk is too full for a
    /// copy of them, all stay where they are: sealing is what frees space.
    pub(super) fn keeper_of(
        &self,
        logs: &[Frozen],
        large: LargeBytes,
        records: Records,
    ) -> Result<Keeper, Trouble> {
        let is_dense = |frozen: &Frozen| {
            frozen.log.is_current() && large.bytes * 100 >= frozen.end.offset * KEPT_PERCENT
        };
        let is_kept = matches!(records, Records::Stay) && matches!(logs, [log] if is_dense(log));
        let sources = |is_copied| {
            let source = |frozen: &Frozen| {
                let log = Arc::new(frozen.log.values(&self.disk, frozen.end));
                Source { keep: Keep { log, end: frozen.end }, is_copied }
            };
            logs.iter().map(source).collect()
        };
        if is_kept {
            return self.keeper(sources(false), LargeBytes::default());
        }
        let may_stay =
            matches!(records, Records::Stay) && logs.iter().all(|frozen| frozen.log.is_current());
        match self.keeper(sources(true), large) {
            Err(Trouble::Transient(error)) if may_stay && error.is_full() => {
                self.keeper(sources(false), LargeBytes::default())
            }
            keeper => keeper,
        }
    }

    /// Returns what keeps the records of these logs, of which at most `copied` are copied.
    pub(super) fn keeper(
        &self,
        sources: Vec<Source>,
        copied: LargeBytes,
    ) -> Result<Keeper, Trouble> {
        let copier = (copied.entries > 0).then(|| self.copier(copied)).transpose()?;
        Ok(Keeper { sources, copier, staying: Vec::new() })
    }

    fn copier(&self, large: LargeBytes) -> Result<Copier, Trouble> {
        let generation = self.take_generation();
        // Once the log has its name, an older MANIFEST would be taken for a copy.
        self.change_manifest(|manifest| {
            manifest.next_generation = manifest.next_generation.max(generation + 1);
        })?;
        let size = Copier::size_for(large);
        let log = self
            .expect_free(size)
            .and_then(|()| Log::create_unnamed(&*self.disk, generation, self.identity(), size));
        let (log, pool) = (log.map_err(Trouble::classify)?, Arc::clone(&self.disk));
        Ok(Copier::new(log, self.timeline.anchor(), self.digests, pool))
    }

    /// Removes the logs among these that `MANIFEST` does not list: copies that no segment came of.
    pub(super) fn discard<'a>(&self, logs: impl IntoIterator<Item = &'a Arc<Log>>) {
        let manifest = self.manifest.lock();
        for log in logs.into_iter().filter(|log| !manifest.lists_log(log.generation)) {
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
    /// Returns true if the entries of a source are copied.
    pub(super) fn copies(&self, source: usize) -> bool {
        self.copier.is_some() && self.sources[source].is_copied
    }

    /// Keeps an entry of a source that has verified, and returns the number of its log among the
    /// segment's, and its location there.
    pub(super) fn keep(
        &mut self,
        source: usize,
        hash: u128,
        from: Location,
        bytes: &Bytes,
    ) -> Result<(u16, Location)> {
        match &mut self.copier {
            Some(copier) if self.sources[source].is_copied => {
                Ok((0, copier.push(hash, from, bytes)?))
            }
            _ => Ok((self.stay(source), from)),
        }
    }

    /// Keeps an entry that is in no log, and returns the number of its log among the segment's, and
    /// its location there.
    ///
    /// # Panics
    ///
    /// If nothing was to be copied.
    pub(super) fn keep_new(
        &mut self,
        hash: u128,
        at: Moment,
        bytes: &Bytes,
    ) -> Result<(u16, Location)> {
        let length = u32::try_from(bytes.len()).expect("entries are bounded");
        let from = Location { offset: 0, length, check: 0, at };
        let copier = self.copier.as_mut().expect("it is known what is to be copied");
        Ok((0, copier.push(hash, from, bytes)?))
    }

    /// Keeps a whole source, and returns its number among the segment's logs.
    pub(super) fn stay(&mut self, source: usize) -> u16 {
        let at = self.staying.iter().position(|staying| *staying == source);
        let at = at.unwrap_or_else(|| {
            self.staying.push(source);
            self.staying.len() - 1
        });
        let at = at + usize::from(self.copier.is_some());
        u16::try_from(at).expect("a segment is made of few logs")
    }

    /// Returns the logs of the segment.
    ///
    /// # Durability
    ///
    /// The records are durable when this returns; the caller makes the names durable.
    pub(super) fn finish(&mut self, ledger: &Ledger) -> Result<Vec<Keep>> {
        if self.staying.is_empty() && self.copier.as_ref().is_some_and(Copier::is_empty) {
            self.abandon(ledger);
        }
        let copier = self.copier.take();
        let copy = copier.map(|copier| copier.finish(&*ledger.disk)).transpose()?;
        let staying = self.staying.iter().map(|source| self.sources[*source].keep.clone());
        Ok(copy.into_iter().chain(staying).collect())
    }

    /// Removes an unfinished copy.
    pub(super) fn abandon(&mut self, ledger: &Ledger) {
        if let Some(copier) = self.copier.take() {
            // What cannot be removed is a leftover.
            let _ = ledger.disk.remove(&copier.tail.log.temporary_name());
        }
    }
}

impl Copier {
    /// Copies into a new log, which has no name yet.
    pub(super) fn new(log: Log, anchor: Anchor, digests: DigestKey, pool: Arc<Pool>) -> Self {
        let tail = Tail::new(Arc::new(log), 0);
        Self { tail, batch: BatchBuilder::new(), anchor, digests, pool }
    }

    /// Returns the size of a log with room for these entries.
    pub(super) fn size_for(large: LargeBytes) -> u64 {
        let bytes = large.bytes + large.entries * Frame::OVERHEAD as u64;
        // Of two batches in a row, the entries take more than one may: or they would be one.
        let batches = 2 * bytes / COPY_BYTES + 2;
        let heads = batches * (BatchBuilder::OVERHEAD as u64 + PAGE);
        (PAGE + bytes + heads).next_multiple_of(PAGE)
    }

    fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.tail.end == PAGE
    }

    /// Copies an entry from this location, and returns that of the copy.
    pub(super) fn push(&mut self, hash: u128, from: Location, bytes: &Bytes) -> Result<Location> {
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

    /// Gives the log its name.
    ///
    /// # Durability
    ///
    /// The records are durable when this returns; the caller makes the name durable.
    pub(super) fn finish(mut self, disk: &dyn Disk) -> Result<Keep> {
        if !self.batch.is_empty() {
            self.append()?;
        }
        self.tail.log.give_name(disk)?;
        let end = self.tail.end();
        Ok(Keep { log: Arc::new(self.tail.log.values(&self.pool, end)), end })
    }
}
