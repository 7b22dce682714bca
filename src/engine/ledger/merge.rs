//! Merging: segments that are many or small become one, and one that is mostly dead becomes small.
//!
//! Only the records that are live are taken over, and of each address the newest entry. The larger
//! ones stay in their logs, unless most of a segment is dead: then they are copied.
//!
//! Invariants:
//! - The segments of a merge are neighbours in age, and their successor takes their place.
//! - Its files are durable before `MANIFEST` lists it, in one step with the removal of theirs.

use std::cell::RefCell;
use std::sync::Arc;

use crate::clock::Moment;
use crate::engine::segment::{Segment, SegmentMeta};
use crate::engine::trouble::Trouble;
use crate::error::Result;
use crate::observe;

use super::Ledger;
use super::retired::Retired;
use super::seal::MAX_SMALL_BYTES;
use super::values::{Keep, LargeBytes, Source};

mod due;
mod live;
mod rewriting;

use due::{Due, MAX_SEGMENTS, SMALL, is_mostly_dead};
use live::Live;
pub(super) use rewriting::Rewriting;

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
        let live = Live::open(rewriting, &firsts, &keeper, self.uuid, &pace);
        let written = live.and_then(|mut live| {
            let items = std::iter::from_fn(|| live.next().transpose());
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
        let segments = self.snapshot().segments.changed(|segments| {
            let at = segments.iter().position(|segment| is_old(segment.meta.file));
            segments.retain(|segment| !is_old(segment.meta.file));
            let at = at.unwrap_or_default();
            segments.splice(at..at, merged.cloned());
        });
        self.update_snapshot(|snapshot| snapshot.segments = segments);
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
