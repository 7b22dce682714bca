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
use crate::engine::segment::{
    Content, Cursor, Damaged, Item, Kept, OwnedRow, Sealed, Segment, SegmentMeta,
};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::observe;

use super::Ledger;
use super::retired::Retired;
use super::seal::MAX_SMALL_BYTES;
use super::values::{Keep, Keeper, LargeBytes, Source};

mod due;

use due::{Due, MAX_SEGMENTS, SMALL, is_mostly_dead};

/// The rows that are merged between two pauses.
const ROWS_AT_A_TIME: usize = 512;

impl Ledger {
    /// Merges the segments that are due, if any are, and returns their number. `pace` runs in
    /// between, and may stop the work.
    ///
    /// # Errors
    ///
    /// The segments are kept, and nothing is lost. After a fatal error it is unknown which `MANIFEST`
    /// is on disk.
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

    /// Merges these segments, and returns their number.
    fn merge_run(
        &self,
        run: &[Arc<Segment>],
        now: Moment,
        retired: &mut Vec<Retired>,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<usize, Trouble> {
        let merged = self.write_merged(run, now, &mut pace).inspect_err(|trouble| {
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
        Ok(run.len())
    }

    /// Writes the successor of these segments, newest first; `None` if nothing in them is live.
    fn write_merged(
        &self,
        run: &[Arc<Segment>],
        now: Moment,
        pace: impl FnMut() -> Result<()>,
    ) -> Result<Option<Segment>, Trouble> {
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
            let bytes: u64 = segment.meta.values.iter().map(|end| end.offset).sum();
            let is_small = bytes <= self.settings.log_bytes / SMALL;
            let is_copied = is_small || is_mostly_dead(segment, now);
            firsts.push(sources.len());
            let logs = segment.values.iter().zip(&segment.meta.values);
            sources.extend(logs.map(|(log, end)| Source {
                keep: Keep { log: Arc::clone(log), end: *end },
                is_copied,
            }));
            if is_copied && !segment.values.is_empty() {
                let live = segment.expiries.live(now);
                copied.entries += live.records;
                copied.bytes += live.bytes;
            }
        }
        let (keeper, pace) = (RefCell::new(self.keeper(sources, copied)?), RefCell::new(pace));
        let merge = Merge::open(run, &firsts, &keeper, self.uuid, now, &pace);
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

/// The live entries of several segments, in the order of their addresses.
struct Merge<'a, P> {
    /// Newest first, each with its next row.
    heads: Vec<(Cursor, Option<OwnedRow>)>,
    run: &'a [Arc<Segment>],
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
        run: &'a [Arc<Segment>],
        firsts: &'a [usize],
        keeper: &'a RefCell<Keeper>,
        uuid: [u8; 16],
        now: Moment,
        pace: &'a RefCell<P>,
    ) -> Result<Self> {
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
        Ok(Self { heads, run, firsts, keeper, damaged, uuid, now, pace, since_pause: 0 })
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
        if value.expires <= self.now {
            return Ok(None);
        }
        let (at, expires, hash) = (value.at, value.expires, address.hash);
        let kept = match value.content {
            Content::Inline(payload) => Kept::Inline(Bytes::copy_from_slice(payload)),
            Content::InLog { log: number, location, status, bare } => {
                let source = self.firsts[segment] + usize::from(number);
                let mut keeper = self.keeper.borrow_mut();
                let (log, location) = if keeper.copies(source) {
                    match self.run[segment].entry_in_log(number, location, row) {
                        Ok(bytes) => keeper.keep(source, hash, location, &bytes)?,
                        Err(Error::Corrupt { .. } | Error::Io { .. }) => {
                            let log = keeper.stay(source);
                            let damaged = Damaged { hash, expires, log, location };
                            return Ok(Some(Item::Damaged(damaged)));
                        }
                        Err(error) => return Err(error),
                    }
                } else {
                    (keeper.stay(source), location)
                };
                Kept::InLog { log, location, status, bare: Bytes::copy_from_slice(bare) }
            }
        };
        Ok(Some(Item::Sealed(Sealed { address, at, kept, expires })))
    }

    /// Takes over a damaged address that no newer row has replaced.
    fn next_damaged(&mut self) -> Result<Option<Item>> {
        while let Some(hash) = self.damaged.keys().next().copied() {
            let Some((segment, damaged)) = self.damaged.remove(&hash) else { continue };
            if damaged.expires > self.now && damaged.log == Damaged::GONE {
                return Ok(Some(Item::Damaged(damaged)));
            }
            if damaged.expires > self.now {
                let source = self.firsts[segment] + usize::from(damaged.log);
                let log = self.keeper.borrow_mut().stay(source);
                return Ok(Some(Item::Damaged(Damaged { log, ..damaged })));
            }
        }
        Ok(None)
    }
}
