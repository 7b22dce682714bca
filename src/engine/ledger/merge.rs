//! Merging: segments that are many or small become one, and one that is mostly dead becomes small.
//!
//! Only the records that are live are taken over, and of each address the newest entry. The larger
//! ones stay in their logs, unless most of a segment is dead: then they are copied.
//!
//! Invariants:
//! - The segments of a merge are neighbours in age, and their successor takes their place.
//! - Its files are durable before `MANIFEST` lists it, in one step with the removal of theirs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::entry::{self, Entry, Parts};
use crate::engine::segment::{
    Content, Cursor, Damaged, Item, Kept, MAX_INLINE_BYTES, OwnedRow, Sealed, Segment, SegmentMeta,
};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::key::Address;
use crate::observe;

use super::Ledger;
use super::retired::Retired;
use super::seal::MAX_SMALL_BYTES;
use super::sieve::Sieve;
use super::values::{Keep, Keeper, LargeBytes, Source};

mod due;

use due::{Due, MAX_SEGMENTS, SMALL, is_mostly_dead};

/// The rows that are merged between two pauses.
const ROWS_AT_A_TIME: usize = 512;
/// The bytes of a larger record that take as long to copy as one row.
const BYTES_OF_A_ROW: usize = 2048;

impl Ledger {
    /// Merges the segments that are due, if any are, and returns their number. `pace` runs in
    /// between, and may stop the work.
    ///
    /// # Errors
    ///
    /// The segments are kept, and nothing is lost. After a fatal error it is unknown which
    /// `MANIFEST` is on disk.
    ///
    /// # Durability
    ///
    /// The new segment is durable and listed when this returns; the old files may go.
    pub(crate) fn merge(
        &self,
        retired: &mut Vec<Retired>,
        pace: impl FnMut() -> Result<()>,
    ) -> Result<usize, Trouble> {
        let (snapshot, now) = (self.snapshot(), self.timeline.now());
        let segments = &snapshot.segments;
        match (Due { settings: &self.settings, segments, now }).range() {
            Some(range) => self.merge_run(&segments[range], now, retired, pace),
            None => Ok(0),
        }
    }

    /// Merges small segments, once there are many. This happens while the store opens, because each
    /// run of the process may be too short for the reaper.
    ///
    /// # Errors
    ///
    /// Fatal ones only: the reaper tries again after a transient one.
    pub(crate) fn merge_small(&self, retired: &mut Vec<Retired>) -> Result<()> {
        let (snapshot, now) = (self.snapshot(), self.timeline.now());
        let segments = &snapshot.segments;
        let due = Due { settings: &self.settings, segments, now };
        let run = due.small().filter(|run| due.total(run) <= MAX_SMALL_BYTES);
        let Some(run) = run.filter(|_| segments.len() > MAX_SEGMENTS) else { return Ok(()) };
        match self.merge_run(&segments[run], now, retired, || Ok(())) {
            Err(Trouble::Fatal(error)) => Err(error),
            // The reaper tries again, and reports the error.
            Ok(_) | Err(Trouble::Transient(_)) => Ok(()),
        }
    }

    /// Merges these segments, and returns their number. Larger records are copied where most else
    /// in the logs is dead, or where it is little.
    fn merge_run(
        &self,
        run: &[Arc<Segment>],
        now: Moment,
        retired: &mut Vec<Retired>,
        pace: impl FnMut() -> Result<()>,
    ) -> Result<usize, Trouble> {
        let is_copied = |segment: &Segment, _| {
            let bytes: u64 = segment.meta.values.iter().map(|end| end.offset).sum();
            let is_small = bytes <= self.settings.log_bytes / SMALL;
            is_small || is_mostly_dead(segment, now)
        };
        self.rewrite(&Rewriting { run, now, is_copied: &is_copied, sieve: None }, retired, pace)?;
        Ok(run.len())
    }

    /// Writes one segment in place of others.
    ///
    /// # Errors
    ///
    /// The segments are kept, and nothing is lost. After a fatal error it is unknown which
    /// `MANIFEST` is on disk.
    ///
    /// # Durability
    ///
    /// The new segment is durable and listed when this returns; the old files may go.
    pub(super) fn rewrite(
        &self,
        rewriting: &Rewriting<'_>,
        retired: &mut Vec<Retired>,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<(), Trouble> {
        let run = rewriting.run;
        let merged = self.write_merged(rewriting, &mut pace).inspect_err(|trouble| {
            if let Trouble::Transient(error) = trouble {
                // The others must not wait for one that cannot be read.
                run.iter().filter(|segment| segment.is_named_in(error)).for_each(|s| s.leave());
            }
        });
        let merged = merged?.map(Arc::new);
        self.replace(run, merged.as_ref(), retired)?;
        for log in merged.iter().flat_map(|merged| &merged.values) {
            // What is not cut off is in nobody's way but the disk's.
            let _ = self.trim(log, &mut pace);
        }
        Ok(())
    }

    /// Writes the successor of these segments, newest first; `None` if nothing in them is live.
    fn write_merged(
        &self,
        rewriting: &Rewriting<'_>,
        pace: impl FnMut() -> Result<()>,
    ) -> Result<Option<Segment>, Trouble> {
        let run = rewriting.run;
        let (Some(newest), Some(oldest)) = (run.first(), run.last()) else { return Ok(None) };
        let file = self.take_generation();
        // Once the segment has its name, an older MANIFEST would be taken for a copy.
        self.change_manifest(|manifest| {
            manifest.next_generation = manifest.next_generation.max(file + 1);
        })?;
        let meta = SegmentMeta {
            uuid: self.uuid,
            format: SegmentMeta::FORMAT,
            file,
            first_generation: oldest.meta.first_generation,
            generation: newest.meta.generation,
            first_sequence: oldest.meta.first_sequence,
            last_sequence: newest.meta.last_sequence,
            latest_expiry: 0,
            records: 0,
            damaged: 0,
            values: Vec::new(),
        };
        let (mut sources, mut firsts, mut copied) = (Vec::new(), Vec::new(), LargeBytes::default());
        for segment in run {
            firsts.push(sources.len());
            let logs = segment.values.iter().zip(&segment.meta.values).enumerate();
            let own: Vec<_> = logs
                .map(|(number, (log, end))| Source {
                    keep: Keep { log: Arc::clone(log), end: *end },
                    is_copied: (rewriting.is_copied)(segment, number),
                })
                .collect();
            if own.iter().any(|source| source.is_copied) || segment.meta.format == 1 {
                copied = copied.plus(rewriting.large_bytes(segment));
            }
            sources.extend(own);
        }
        let (keeper, pace) = (RefCell::new(self.keeper(sources, copied)?), RefCell::new(pace));
        let merge = Merge::open(rewriting, &firsts, &keeper, self.uuid, &pace);
        let written = merge.and_then(|mut merge| {
            let items = std::iter::from_fn(|| merge.next().transpose());
            self.write_segment(meta, &keeper, items, || pace.borrow_mut()())
        });
        written.inspect_err(|_| keeper.borrow_mut().abandon(self)).map_err(Trouble::Transient)
    }

    /// Lists a segment in place of those that it was made of, and retires these.
    fn replace(
        &self,
        run: &[Arc<Segment>],
        merged: Option<&Arc<Segment>>,
        retired: &mut Vec<Retired>,
    ) -> Result<(), Trouble> {
        let is_old = |file: u64| run.iter().any(|old| old.meta.file == file);
        self.list_segment(merged, |manifest| {
            let at = manifest.segments.iter().position(|listed| is_old(listed.file));
            manifest.segments.retain(|listed| !is_old(listed.file));
            let at = at.unwrap_or_default();
            manifest.segments.splice(at..at, merged.map(|merged| merged.meta.clone()));
        })?;
        self.update_snapshot(|snapshot| {
            let at = snapshot.segments.iter().position(|segment| is_old(segment.meta.file));
            snapshot.segments.retain(|segment| !is_old(segment.meta.file));
            let at = at.unwrap_or_default();
            snapshot.segments.splice(at..at, merged.cloned());
        });
        observe::merged(run.len());
        let manifest = self.manifest.lock();
        for old in run {
            self.handles.forget(old.meta.file);
            let logs = old.values.iter().filter(|log| !manifest.lists_log(log.generation));
            retired.extend(logs.cloned().map(Retired::Log));
            retired.push(Retired::Segment(Arc::clone(old)));
        }
        Ok(())
    }
}

/// The segments that are rewritten as one, and the rules for it.
pub(super) struct Rewriting<'a> {
    /// Newest first.
    pub(super) run: &'a [Arc<Segment>],
    /// The moment by which an entry must not have expired.
    pub(super) now: Moment,
    /// Returns true if the records in the log with this number are copied.
    pub(super) is_copied: &'a dyn Fn(&Segment, usize) -> bool,
    /// Set for a purge, after which no log with other records may be left.
    pub(super) sieve: Option<&'a Sieve<'a>>,
}

impl Rewriting<'_> {
    /// Returns at least what is copied out of the logs of a segment.
    fn large_bytes(&self, segment: &Segment) -> LargeBytes {
        let live = match segment.meta.format {
            // All of them are in rows.
            1 => LargeBytes { entries: segment.meta.records, bytes: segment.bytes() },
            _ => {
                let live = segment.expiries.live(self.now);
                LargeBytes { entries: live.records, bytes: live.bytes }
            }
        };
        // The disk may give back what was damaged.
        let damaged = segment.damaged().iter().filter(|_| self.sieve.is_some());
        damaged.fold(live, |sum, damaged| {
            sum.plus(LargeBytes { entries: 1, bytes: u64::from(damaged.location.length) })
        })
    }
}

/// The live entries of several segments, in the order of their addresses.
struct Merge<'a, P> {
    /// Newest first, each with its next row.
    heads: Vec<(Cursor, Option<OwnedRow>)>,
    run: &'a [Arc<Segment>],
    sieve: Option<&'a Sieve<'a>>,
    /// The number of each segment's first log among the sources.
    firsts: &'a [usize],
    keeper: &'a RefCell<Keeper>,
    /// The damaged addresses by their hash, with the number of their segment.
    damaged: HashMap<u128, (usize, Damaged)>,
    uuid: [u8; 16],
    now: Moment,
    pace: &'a RefCell<P>,
    since_pause: usize,
}

impl<'a, P: FnMut() -> Result<()>> Merge<'a, P> {
    /// Goes to the first row of each segment.
    fn open(
        rewriting: &'a Rewriting<'a>,
        firsts: &'a [usize],
        keeper: &'a RefCell<Keeper>,
        uuid: [u8; 16],
        pace: &'a RefCell<P>,
    ) -> Result<Self> {
        let Rewriting { run, now, sieve, .. } = *rewriting;
        let head = |segment| {
            let mut cursor = Cursor::open(segment)?;
            let row = cursor.next()?;
            Ok((cursor, row))
        };
        let heads = run.iter().map(head).collect::<Result<_>>()?;
        let mut damaged = HashMap::new();
        for (at, segment) in run.iter().enumerate().rev() {
            damaged.extend(segment.damaged().iter().map(|found| (found.hash, (at, *found))));
        }
        Ok(Self { heads, run, sieve, firsts, keeper, damaged, uuid, now, pace, since_pause: 0 })
    }

    /// Returns what goes into the segment for the next address, or `None` after the last one.
    fn next(&mut self) -> Result<Option<Item>> {
        loop {
            self.since_pause += 1;
            if self.since_pause >= ROWS_AT_A_TIME {
                self.since_pause = 0;
                self.pace.borrow_mut()()?;
            }
            let Some((segment, row)) = self.take_first()? else { return self.next_damaged() };
            if let Some(item) = self.item(segment, &row)? {
                return Ok(Some(item));
            }
        }
    }

    /// Takes the newest row of the first address, and passes over the older ones.
    fn take_first(&mut self) -> Result<Option<(usize, OwnedRow)>> {
        let heads = self.heads.iter().enumerate();
        let rows = heads.filter_map(|(at, (_, row))| row.as_ref().map(|row| (row, at)));
        let newest = rows.min_by(|(a, _), (b, _)| a.cmp_address(b)).map(|(_, at)| at);
        let Some(newest) = newest else { return Ok(None) };
        let (cursor, head) = &mut self.heads[newest];
        let Some(taken) = std::mem::replace(head, cursor.next()?) else { return Ok(None) };
        for (cursor, head) in &mut self.heads[newest + 1..] {
            if head.as_ref().is_some_and(|row| row.cmp_address(&taken).is_eq()) {
                *head = cursor.next()?;
            }
        }
        Ok(Some((newest, taken)))
    }

    /// Returns what becomes of a row, unless it has expired or is hidden by a damaged entry.
    fn item(&mut self, segment: usize, row: &OwnedRow) -> Result<Option<Item>> {
        let malformed = |error| self.run[segment].malformed(error);
        let address = row.address(&self.uuid).map_err(malformed)?;
        let value = row.value().map_err(malformed)?;
        match self.damaged.get(&address.hash) {
            Some((newer, _)) if *newer < segment => return Ok(None),
            Some(_) => drop(self.damaged.remove(&address.hash)),
            None => {}
        }
        let is_dead = |sieve: &Sieve<'_>| sieve.is_dead(&address, &value);
        if value.expires <= self.now || self.sieve.map_or(Ok(false), is_dead)? {
            return Ok(None);
        }
        let (at, expires, hash) = (value.at, value.expires, address.hash);
        let kept = match value.content {
            Content::Inline(payload) if !is_large(row, payload) => {
                Kept::Inline(Bytes::copy_from_slice(payload))
            }
            Content::Inline(payload) => self.keep_new(segment, row, &address, at, payload)?,
            Content::InLog { log: number, location, status, bare } => {
                let source = self.firsts[segment] + usize::from(number);
                let (log, location) = if self.keeper.borrow().copies(source) {
                    match read(|| self.run[segment].entry_in_log(number, location, row)) {
                        Ok(bytes) => {
                            // A pause counts bytes too.
                            self.since_pause += bytes.len() / BYTES_OF_A_ROW;
                            self.keeper.borrow_mut().keep(source, hash, location, &bytes)?
                        }
                        Err(error) => {
                            let damaged = Damaged { hash, expires, log: number, location };
                            return self.leave(segment, damaged, error).map(Some);
                        }
                    }
                } else {
                    (self.keeper.borrow_mut().stay(source), location)
                };
                Kept::InLog { log, location, status, bare: Bytes::copy_from_slice(bare) }
            }
        };
        Ok(Some(Item::Sealed(Sealed { address, at, kept, expires })))
    }

    /// Copies a larger record out of a row of format 1.
    fn keep_new(
        &self,
        segment: usize,
        row: &OwnedRow,
        address: &Address,
        at: Moment,
        payload: &[u8],
    ) -> Result<Kept> {
        let malformed = |error| self.run[segment].malformed(error);
        let Entry::Completion(stored) = entry::decode(payload).map_err(malformed)? else {
            return Err(malformed(Malformed("a larger entry is no record")));
        };
        let entry = row.entry(payload);
        let (log, location) = self.keeper.borrow_mut().keep_new(address.hash, at, &entry)?;
        let (status, bare) = (stored.status(), stored.encode_bare().into());
        Ok(Kept::InLog { log, location, status, bare })
    }

    /// Takes over a damaged address that no newer row has replaced.
    fn next_damaged(&mut self) -> Result<Option<Item>> {
        while let Some(hash) = self.damaged.keys().next().copied() {
            let Some((segment, damaged)) = self.damaged.remove(&hash) else { continue };
            if damaged.expires <= self.now {
                continue;
            }
            let item = match self.sieve {
                Some(sieve) => self.mend(segment, damaged, sieve)?,
                None => Some(self.stay(segment, damaged)),
            };
            if item.is_some() {
                return Ok(item);
            }
        }
        Ok(None)
    }

    /// Leaves an entry that cannot be read in its log. Where that log must go, nothing remains but
    /// the fact that the entry is damaged.
    ///
    /// # Errors
    ///
    /// The error of reading it, where the log must go and the disk may still give the entry back.
    fn leave(&self, segment: usize, damaged: Damaged, error: Error) -> Result<Item> {
        match error {
            Error::Corrupt { .. } if self.sieve.is_some() => {
                Ok(Item::Damaged(damaged.without_bytes()))
            }
            Error::Corrupt { .. } | Error::Io { .. } if self.sieve.is_none() => {
                Ok(self.stay(segment, damaged))
            }
            error => Err(error),
        }
    }

    /// Leaves a damaged entry in its log.
    fn stay(&self, segment: usize, damaged: Damaged) -> Item {
        if damaged.is_gone() {
            return Item::Damaged(damaged);
        }
        let source = self.firsts[segment] + usize::from(damaged.log);
        let log = self.keeper.borrow_mut().stay(source);
        Item::Damaged(Damaged { log, ..damaged })
    }

    /// Copies a damaged entry that the disk has given back, unless it is dead.
    fn mend(&self, segment: usize, damaged: Damaged, sieve: &Sieve<'_>) -> Result<Option<Item>> {
        let bytes = match read(|| self.run[segment].damaged_entry(&damaged)) {
            Ok(bytes) => bytes,
            Err(_) if sieve.is_hidden(&damaged)? => return Ok(None),
            Err(error) => return self.leave(segment, damaged, error).map(Some),
        };
        if sieve.is_dead_again(&damaged, &bytes)? {
            return Ok(None);
        }
        let source = self.firsts[segment] + usize::from(damaged.log);
        let mut keeper = self.keeper.borrow_mut();
        let (log, location) = keeper.keep(source, damaged.hash, damaged.location, &bytes)?;
        Ok(Some(Item::Damaged(Damaged { log, location, ..damaged })))
    }
}

/// Reads an entry, and once more if that fails: where its log must go this is for good, and a read may
/// fail on the way from a disk that has all of it.
fn read(entry: impl Fn() -> Result<Bytes>) -> Result<Bytes> {
    entry().or_else(|_| entry())
}

/// Returns true if an entry is too large for a row. Rows of format 1 have such entries.
fn is_large(row: &OwnedRow, payload: &[u8]) -> bool {
    row.entry_bytes(payload) > MAX_INLINE_BYTES + Parts::MAX_ADDRESS_BYTES
}
