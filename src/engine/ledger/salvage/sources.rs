//! The files of a store, as far as they can be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Anchor;
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, Pool};
use crate::engine::entry::{self, End, Entry, Parts};
use crate::engine::log::{Batch, Frame, Identity, Log, PAGE, log_name};
use crate::engine::segment::{Remains, SegmentMeta, segment_name};
use crate::error::{Error, Result};
use crate::salvage::Loss;

use super::super::manifest::{LOCK, MANIFEST, Manifest, read_lock};
use super::super::names::Names;

/// The files of a store, open.
pub(super) struct Sources {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) store: Identity,
    /// The longest TTL that the store had, in milliseconds, if `MANIFEST` says so.
    pub(super) longest_ttl: Option<u64>,
    /// No file has this generation or a later one.
    pub(super) next_generation: u64,
    /// The last batch that is in segments. Claims that are older have been carried over.
    pub(super) sealed: u64,
    /// True if `MANIFEST` could be read, and so says which files there are.
    pub(super) is_listed: bool,
    /// By generation.
    pub(super) logs: BTreeMap<u64, LogRemains>,
    /// Oldest first.
    pub(super) segments: Vec<Remains>,
}

/// A log, and what it is.
pub(super) struct LogRemains {
    pub(super) log: Arc<Log>,
    /// The end of its predecessor, if its first batch names one.
    start: Option<End>,
    /// It holds copies of larger records, under sequences of its own.
    is_copy: bool,
    /// It is kept for its records, so that what lies behind them may be cut off, or is a leftover.
    may_be_cut: bool,
}

/// The batches of all logs, by their sequence.
pub(super) struct Batches {
    by_sequence: BTreeMap<u64, Place>,
}

/// A batch, and its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) log: u64,
    pub(super) offset: u64,
    /// The offset of what follows.
    pub(super) end: u64,
    pub(super) anchor: Anchor,
    is_whole: bool,
}

impl Sources {
    /// Opens what can be opened, and notes what cannot.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if no file says whose store this is, [`Error::Newer`], [`Error::Missing`]
    /// and [`Error::Io`].
    pub(super) fn open(disk: Arc<dyn Disk>, losses: &mut Vec<Loss>) -> Result<Self> {
        let names = Names::list(&*disk)?;
        if names.logs.is_empty() && names.segments.is_empty() {
            return Err(Error::Missing { path: disk.path().into() });
        }
        let manifest = match Manifest::read(&*disk) {
            Err(error @ Error::Newer { .. }) => return Err(error),
            Ok(Some(manifest)) => Ok(manifest),
            Ok(None) => Err("it is missing".to_owned()),
            Err(error) => Err(reason(error)),
        };
        let manifest = manifest
            .map_err(|reason| {
                let reason = format!("{reason}; so nothing says whether other files are missing");
                losses.push(Loss::of_file(&*disk, MANIFEST, reason, true));
            })
            .ok();
        let store = match &manifest {
            Some(manifest) => manifest.identity(),
            None => identity(&*disk, &names)?,
        };
        let lock = match read_lock(&*disk) {
            Ok(Some(uuid)) if uuid == store.uuid => None,
            Ok(Some(_)) => Some("it has another store's uuid".to_owned()),
            Ok(None) => Some("it is missing".to_owned()),
            Err(error) => Some(reason(error)),
        };
        losses.extend(lock.map(|reason| Loss::of_file(&*disk, LOCK, reason, false)));
        let known = losses.len();
        let used = names.without_leftovers(manifest.as_ref());
        let sources = Self::read(Arc::clone(&disk), &used, manifest.as_ref(), store, losses)?;
        if !losses[known..].iter().any(|loss| loss.hides_keys) {
            return Ok(sources);
        }
        // What has been replaced may have some of what is lost.
        losses.truncate(known);
        Self::read(disk, &names, manifest.as_ref(), store, losses)
    }

    /// Opens the files with these names.
    fn read(
        disk: Arc<dyn Disk>,
        names: &Names,
        manifest: Option<&Manifest>,
        store: Identity,
        losses: &mut Vec<Loss>,
    ) -> Result<Self> {
        let pool = Pool::new(Arc::clone(&disk));
        let listed = manifest.map_or(&[][..], |manifest| &manifest.segments);
        let is_listed = manifest.is_some();
        let next = manifest.map_or(0, |manifest| manifest.next_generation);
        let segments = segments(&pool, names, listed, is_listed, store, losses)?;
        let metas = segments.iter().filter_map(|segment| segment.meta.as_ref()).chain(listed);
        let metas: Vec<SegmentMeta> = metas.cloned().collect();
        let listed = manifest.map_or(&[][..], |manifest| &manifest.logs);
        let logs = logs(&pool, names, listed, is_listed, &metas, store, losses)?;
        let by_metas = metas.iter().map(|meta| meta.last_sequence).max().unwrap_or_default();
        let sealed = manifest.and_then(|manifest| manifest.sealed);
        Ok(Self {
            disk,
            store,
            longest_ttl: manifest.map(|manifest| manifest.longest_ttl),
            next_generation: next.max(names.max_generation() + 1),
            // An old copy of MANIFEST may be behind.
            sealed: sealed.map_or(0, |end| end.sequence).max(by_metas),
            is_listed,
            logs,
            segments,
        })
    }

    /// Reads all logs from end to end, and returns the batches of those that acknowledged.
    pub(super) fn batches(&self) -> Batches {
        let mut by_sequence: BTreeMap<u64, Place> = BTreeMap::new();
        for (generation, source) in self.logs.iter().filter(|(_, source)| !source.is_copy) {
            // What lies behind the end that its successor names was never acknowledged.
            let follows = |other: &&LogRemains| {
                other.start.is_some_and(|start| start.generation == *generation)
            };
            let successor = self.logs.values().rev().find(follows);
            let until = successor.and_then(|other| other.start).map_or(u64::MAX, |end| end.offset);
            // An opening has replaced it, and used the sequences of the empty batches at its end again.
            let mut newer = self.logs.range(generation + 1..).map(|(_, other)| other);
            let is_replaced = newer.any(|other| !other.is_copy && other.start == source.start);
            let mut offset = PAGE;
            let next = |offset| source.log.next_batch(offset).filter(|(at, _)| *at < until);
            while let Some((at, batch)) = next(offset) {
                offset = at + batch.span();
                if is_replaced && batch.frames().next().is_none() {
                    continue;
                }
                let place = Place::of(*generation, at, &batch);
                by_sequence
                    .entry(batch.head.sequence)
                    .and_modify(|known| *known = place.or(*known))
                    .or_insert(place);
            }
        }
        Batches { by_sequence }
    }

    /// Returns true if a segment that is whole has taken over the batch of this sequence.
    pub(super) fn is_in_segment(&self, sequence: u64) -> bool {
        let is_whole = |segment: &&Remains| segment.gaps == 0 && segment.damaged.is_some();
        let metas = self.segments.iter().filter(is_whole).filter_map(|it| it.meta.as_ref());
        let mut ranges = metas.map(|meta| meta.first_sequence..=meta.last_sequence);
        ranges.any(|range| range.contains(&sequence))
    }

    /// Returns the logs that have lost their end.
    pub(super) fn cut(&self) -> impl Iterator<Item = &Log> {
        let is_cut = |source: &&LogRemains| !source.may_be_cut && !source.log.missing().is_empty();
        self.logs.values().filter(is_cut).map(|source| &*source.log)
    }

    /// Returns the log of this generation.
    pub(super) fn log(&self, generation: u64) -> Option<&Log> {
        self.logs.get(&generation).map(|source| &*source.log)
    }
}

impl Place {
    fn of(log: u64, offset: u64, batch: &Batch) -> Self {
        let (anchor, is_whole) = (batch.head.anchor, batch.is_whole());
        Self { log, offset, end: offset + batch.span(), anchor, is_whole }
    }

    /// Returns this place of a batch, in a newer log, or the older one, if that is a whole copy of
    /// the same batch.
    fn or(self, older: Self) -> Self {
        let is_better = older.is_whole && !self.is_whole && older.anchor == self.anchor;
        if is_better { older } else { self }
    }
}

impl Batches {
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Place)> {
        self.by_sequence.iter().map(|(sequence, place)| (*sequence, *place))
    }

    pub(super) fn last_anchor(&self) -> Option<Anchor> {
        self.by_sequence.last_key_value().map(|(_, place)| place.anchor)
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.by_sequence.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }
}

impl Loss {
    /// The loss of a whole file.
    pub(super) fn of_file(
        disk: &dyn Disk,
        name: &str,
        reason: impl Into<String>,
        hides_keys: bool,
    ) -> Self {
        let file = disk.path_of(name);
        Self { file, bytes: None, written: None, reason: reason.into(), hides_keys }
    }
}

/// Returns what an error says of its file.
pub(super) fn reason(error: Error) -> String {
    match error {
        Error::Corrupt { reason, .. } | Error::Foreign { reason, .. } => reason,
        Error::Io { action, source, .. } => format!("cannot {action} it: {source}"),
        error => error.to_string(),
    }
}

/// Finds out whose store this is, by the headers of its logs.
///
/// # Errors
///
/// [`Error::Corrupt`] if no header says so.
fn identity(disk: &dyn Disk, names: &Names) -> Result<Identity> {
    let lock = read_lock(disk).ok().flatten();
    let mut counts: BTreeMap<([u8; 16], Option<[u8; 32]>), usize> = BTreeMap::new();
    for generation in &names.logs {
        match Log::store_of(disk, *generation) {
            Err(error @ Error::Newer { .. }) => return Err(error),
            Ok((uuid, entries)) if lock.is_none_or(|lock| lock == uuid) => {
                let entries = entries.map(|key| *key.as_bytes());
                *counts.entry((uuid, entries)).or_default() += 1;
            }
            _ => {}
        }
    }
    // Old logs of format 1 say nothing of a key.
    let most = counts.into_iter().max_by_key(|((_, entries), count)| (entries.is_some(), *count));
    let ((uuid, entries), _) = most.ok_or_else(|| {
        Error::corrupt(disk.path(), "neither MANIFEST nor a header of a log says whose store it is")
    })?;
    let entries = entries.map_or_else(DigestKey::random, DigestKey::from_bytes);
    Ok(Identity { uuid, entries })
}

fn segments(
    pool: &Arc<Pool>,
    names: &Names,
    listed: &[SegmentMeta],
    is_listed: bool,
    store: Identity,
    losses: &mut Vec<Loss>,
) -> Result<Vec<Remains>> {
    let disk: &dyn Disk = &**pool;
    let meta_of = |number: u64| listed.iter().find(|meta| meta.file == number);
    for meta in listed.iter().filter(|meta| !names.segments.contains(&meta.file)) {
        let reason = format!("it is missing, with {} records", meta.records);
        losses.push(Loss::of_file(disk, &segment_name(meta.file), reason, true));
    }
    let mut numbers = names.segments.clone();
    numbers.sort_unstable();
    let mut segments = Vec::new();
    for number in numbers {
        let name = segment_name(number);
        let listed = meta_of(number);
        // A file that is not listed is a leftover.
        let hides_keys = listed.is_some() || !is_listed;
        match Remains::read(pool, number, listed, store.uuid, store.entries) {
            Err(error @ Error::Newer { .. }) => return Err(error),
            Ok(segment) => {
                let reason = match (segment.gaps, &segment.damaged) {
                    (0, Some(_)) => None,
                    (0, None) => Some("its list of damaged keys cannot be read".to_owned()),
                    (gaps, _) => Some(format!("rows are missing in {gaps} places")),
                };
                losses.extend(reason.map(|it| Loss::of_file(disk, &name, it, hides_keys)));
                segments.push(segment);
            }
            Err(error) => losses.push(Loss::of_file(disk, &name, reason(error), hides_keys)),
        }
    }
    Ok(segments)
}

fn logs(
    pool: &Arc<Pool>,
    names: &Names,
    listed: &[u64],
    is_listed: bool,
    metas: &[SegmentMeta],
    store: Identity,
    losses: &mut Vec<Loss>,
) -> Result<BTreeMap<u64, LogRemains>> {
    let disk: &dyn Disk = &**pool;
    let values = || metas.iter().flat_map(|meta| &meta.values).map(|end| end.generation);
    let needed = listed.iter().copied().chain(values());
    for generation in needed.filter(|generation| !names.logs.contains(generation)) {
        // Of a log that is kept for its records the rows say which.
        let hides_keys = listed.contains(&generation);
        losses.push(Loss::of_file(disk, &log_name(generation), "it is missing", hides_keys));
    }
    let mut logs = BTreeMap::new();
    for generation in names.logs.iter().copied() {
        match Log::open_remains(pool, generation, store) {
            Err(error @ Error::Newer { .. }) => return Err(error),
            Ok(log) => {
                let is_kept = values().any(|log| log == generation);
                let is_of_chain = listed.contains(&generation) || !(is_listed || is_kept);
                logs.insert(generation, LogRemains::of(log, is_of_chain, is_kept));
            }
            Err(error) => {
                // A file that is not listed is a leftover.
                let hides_keys = listed.contains(&generation) || !is_listed;
                let name = log_name(generation);
                losses.push(Loss::of_file(disk, &name, reason(error), hides_keys));
            }
        }
    }
    Ok(logs)
}

impl LogRemains {
    /// A log of the chain begins with a start entry, damaged or not. Where there is none, because a
    /// page is lost or was put in the place of another, a log that is kept for its records is taken
    /// for a copy, and so is one that begins with the first sequence.
    fn of(log: Log, is_of_chain: bool, is_kept: bool) -> Self {
        let first = log.next_batch(PAGE).filter(|(offset, _)| *offset == PAGE);
        let first = first.as_ref().map(|(_, batch)| batch);
        let start = first.and_then(start_in);
        let is_about_log = |frame: Frame<'_>| frame.hash == Some(0);
        let has_start =
            start.is_some() || first.is_some_and(|batch| batch.frames().any(is_about_log));
        let is_first = || first.is_some_and(|batch| batch.head.sequence == 1);
        let is_copy = !has_start && ((is_kept && !is_of_chain) || is_first());
        Self { log: Arc::new(log), start: start.flatten(), is_copy, may_be_cut: !is_of_chain }
    }
}

/// Returns the content of a batch's start entry, if it has one.
fn start_in(batch: &Batch) -> Option<Option<End>> {
    let mut frames = batch.frames().filter(|frame| frame.is_whole && frame.hash.unwrap_or(0) == 0);
    frames.find_map(|frame| match entry::decode(Parts::of(frame.bytes).ok()?.payload).ok()? {
        Entry::Start(start) => Some(start),
        _ => None,
    })
}
