//! Sealing frozen logs, and dropping expired segments: the reaper's work.
//!
//! Invariants:
//! - A frozen log leaves the snapshot only once `MANIFEST` lists the segment that took it over.
//! - A failure that may end leaves the snapshot and `MANIFEST` as they were, to be tried again.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::engine::disk::Disk;
use crate::engine::entry::End;
use crate::engine::log::Frozen;
use crate::engine::segment::{self, Draft, Item, Segment, SegmentMeta};
use crate::engine::settings::Settings;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::observe;

use super::Ledger;
use super::latest::{Latest, Reading};
use super::manifest::Manifest;
use super::retired::Retired;
use super::values::{Keeper, Records};

/// Small frozen logs, which restarts leave behind, are sealed together once there are this many.
const MAX_SMALL_LOGS: usize = 3;
/// The most bytes that are sealed while a store opens.
pub(super) const MAX_SMALL_BYTES: u64 = 16 * 1024 * 1024;

impl Ledger {
    /// Seals the small logs that restarts in quick succession leave behind. This happens while the
    /// store opens, because each run of the process may be too short for the reaper.
    ///
    /// # Errors
    ///
    /// Fatal ones only: the reaper tries again after a transient one.
    pub(crate) fn seal_small(
        &self,
        frozen: &mut Vec<Frozen>,
        retired: &mut Vec<Retired>,
    ) -> Result<()> {
        while frozen.len() > MAX_SMALL_LOGS {
            let bytes: u64 = self.due(frozen).iter().map(|frozen| frozen.end.offset).sum();
            if bytes > MAX_SMALL_BYTES {
                return Ok(());
            }
            match self.seal(frozen, || Ok(())) {
                Ok(0) => return Ok(()),
                Ok(sealed) => retired.extend(self.retire(frozen.drain(..sealed))),
                Err(Trouble::Fatal(error)) => return Err(error),
                // The reaper tries again, and reports the error.
                Err(Trouble::Transient(_)) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Seals the oldest frozen logs that are due into one segment, and returns their number. `pace`
    /// runs between transactions, and may stop the work.
    ///
    /// # Errors
    ///
    /// The logs are kept, and nothing is lost. After a fatal error it is unknown which `MANIFEST`
    /// is on disk.
    ///
    /// # Durability
    ///
    /// The segment is durable and listed when this returns; the logs may go.
    pub(crate) fn seal(
        &self,
        frozen: &[Frozen],
        pace: impl FnMut() -> Result<()>,
    ) -> Result<usize, Trouble> {
        let logs = self.due(frozen);
        let sealed = self.seal_due(logs, self.timeline.now(), Records::Stay, pace);
        match &sealed {
            Ok(_) => self.space.finish(Ok(logs.iter().map(|frozen| frozen.end.offset).sum())),
            Err(Trouble::Transient(error)) => self.space.finish(Err(error.clone())),
            Err(Trouble::Fatal(_)) => {}
        }
        sealed
    }

    /// Seals all of these logs into one segment, due or not, and copies their larger records, so
    /// that what is not live in them is left in no file once they are gone. Returns their number.
    ///
    /// # Errors
    ///
    /// Those of [`seal`](Self::seal).
    ///
    /// # Durability
    ///
    /// As for [`seal`](Self::seal).
    pub(crate) fn seal_all(
        &self,
        logs: &[Frozen],
        pace: impl FnMut() -> Result<()>,
    ) -> Result<usize, Trouble> {
        let sealed = self.seal_due(logs, self.timeline.now(), Records::Copied, pace);
        let bytes = logs.iter().map(|frozen| frozen.end.offset).sum();
        // Where this has failed, sealing that copies less may succeed, and new keys wait for that.
        self.space.finish(Ok(if sealed.is_ok() { bytes } else { 0 }));
        sealed
    }

    /// Returns the frozen logs that are sealed next: oldest ones, none of which is held for its claims.
    fn due<'a>(&self, frozen: &'a [Frozen]) -> &'a [Frozen] {
        let frozen = self.held().map_or(frozen, |held| held.before(frozen));
        &frozen[..due(frozen, self.space.log_bytes(), &self.settings, self.timeline.now())]
    }

    /// Seals these logs into one segment, and returns their number.
    fn seal_due(
        &self,
        logs: &[Frozen],
        now: Moment,
        records: Records,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<usize, Trouble> {
        let (Some(oldest), Some(newest)) = (logs.first(), logs.last()) else { return Ok(0) };
        let previous = self.manifest.lock().sealed;
        let meta = SegmentMeta {
            uuid: self.uuid,
            format: SegmentMeta::FORMAT,
            file: newest.end.generation,
            first_generation: oldest.end.generation,
            generation: newest.end.generation,
            first_sequence: previous.map_or(0, |end| end.sequence) + 1,
            last_sequence: newest.end.sequence,
            latest_expiry: 0,
            records: 0,
            damaged: 0,
            values: Vec::new(),
        };
        let reading = Reading { logs, now, longest_ttl: self.longest_ttl, sealed: Cell::new(0) };
        // New keys are let in as the logs are sealed, and not a whole log at a time.
        let mut pace = || {
            self.space.advance(reading.sealed.take());
            pace()
        };
        let latest = Latest::of(logs);
        let keeper = RefCell::new(self.keeper_of(logs, latest.large_bytes(), records)?);
        let sorted = latest.sorted(&reading, &keeper, &mut pace);
        let places = sorted.inspect_err(|_| keeper.borrow_mut().abandon(self));
        let places = places.map_err(Trouble::Transient)?.into_iter();
        let items = places.filter_map(|place| place.item(&reading, &keeper).transpose());
        let segment = self.write_segment(meta, &keeper, items, &mut pace);
        let segment = segment.map_err(Trouble::Transient)?;
        let damaged = segment.as_ref().map_or(0, |segment| segment.meta.damaged);
        self.adopt(segment, newest.end, pace)?;
        if damaged > 0 {
            observe::damaged(damaged, &self.disk.path_of(&newest.log.name));
        }
        Ok(logs.len())
    }

    /// Writes a segment, and the logs of its larger records where they are new.
    ///
    /// # Errors
    ///
    /// Nothing is left behind, except what cannot be removed now.
    ///
    /// # Durability
    ///
    /// The content of all files is durable when this returns; the caller makes their names durable.
    pub(super) fn write_segment(
        &self,
        meta: SegmentMeta,
        keeper: &RefCell<Keeper>,
        items: impl Iterator<Item = Result<Item>>,
        pace: impl FnMut() -> Result<()>,
    ) -> Result<Option<Segment>> {
        let mut logs = Vec::new();
        let finish = || {
            let kept = keeper.borrow_mut().finish(self)?;
            logs = kept.iter().map(|keep| Arc::clone(&keep.log)).collect();
            Ok(kept.iter().map(|keep| keep.end).collect())
        };
        let draft = Draft { meta, key: self.digests };
        match segment::build(&self.disk, &draft, items, finish, pace) {
            Ok(Some(segment)) => Ok(Some(segment.with_values(logs))),
            nothing => {
                keeper.borrow_mut().abandon(self);
                self.discard(&logs);
                nothing
            }
        }
    }

    /// Lists a segment in place of the logs up to `sealed`, on disk and then in the snapshot.
    fn adopt(
        &self,
        segment: Option<Segment>,
        sealed: End,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<(), Trouble> {
        let segment = segment.map(Arc::new);
        self.list_segment(segment.as_ref(), |manifest| {
            manifest.sealed = Some(sealed);
            manifest.logs.retain(|generation| *generation > sealed.generation);
            manifest.segments.extend(segment.as_ref().map(|segment| segment.meta.clone()));
        })?;
        let segments = self.snapshot().segments.changed(|segments| {
            segments.splice(0..0, segment.clone());
        });
        self.update_snapshot(|snapshot| {
            snapshot.logs.retain(|log| log.generation > sealed.generation);
            snapshot.segments = segments;
        });
        for log in segment.iter().flat_map(|segment| &segment.values) {
            // What is not cut off is in nobody's way but the disk's.
            let _ = self.trim(log, &mut pace);
        }
        Ok(())
    }

    /// Changes `MANIFEST` so that it lists a new segment, whose name is made durable first. If it
    /// cannot be listed for a transient reason, its files are removed again.
    pub(super) fn list_segment(
        &self,
        segment: Option<&Arc<Segment>>,
        change: impl FnOnce(&mut Manifest),
    ) -> Result<(), Trouble> {
        self.sync_names().map_err(Trouble::Fatal)?;
        self.change_manifest(change).inspect_err(|trouble| {
            if let (false, Some(segment)) = (trouble.is_fatal(), segment) {
                // The next attempt needs its room. What cannot be removed is a leftover.
                let _ = self.disk.remove(&segment.name);
                self.discard(&segment.values);
            }
        })
    }

    /// Retires sealed logs, except those that are kept for the records in them.
    pub(crate) fn retire(&self, sealed: impl Iterator<Item = Frozen>) -> Vec<Retired> {
        let snapshot = self.snapshot();
        let values = snapshot.segments.iter().flat_map(|segment| &segment.values);
        let kept: Vec<u64> = values.map(|log| log.generation).collect();
        sealed
            .filter(|frozen| !kept.contains(&frozen.log.generation))
            .map(|frozen| Retired::Log(frozen.log))
            .collect()
    }

    /// Drops the segments whose last record has expired, and returns their number. The files go to
    /// `retired`.
    ///
    /// # Errors
    ///
    /// The segments are kept, and what has expired is not served.
    pub(crate) fn drop_expired(&self, retired: &mut Vec<Retired>) -> Result<usize, Trouble> {
        let now = self.timeline.now();
        let snapshot = self.snapshot();
        let expired: Vec<_> =
            snapshot.segments.iter().filter(|segment| segment.latest_expiry() <= now).collect();
        if expired.is_empty() {
            return Ok(0);
        }
        self.change_manifest(|manifest| {
            manifest.segments.retain(|listed| Moment(listed.latest_expiry) > now);
        })?;
        let live = snapshot.segments.changed(|segments| {
            segments.retain(|segment| segment.latest_expiry() > now);
        });
        self.update_snapshot(|snapshot| snapshot.segments = live);
        observe::expired(expired.len(), expired.iter().map(|segment| segment.meta.records).sum());
        for segment in &expired {
            self.handles.forget(segment.meta.file);
            retired.extend(segment.values.iter().cloned().map(Retired::Log));
            retired.push(Retired::Segment(Arc::clone(segment)));
        }
        Ok(expired.len())
    }

    /// Makes all names in the directory durable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(super) fn sync_names(&self) -> Result<()> {
        let path = self.disk.path();
        self.disk.sync().map_err(|error| Error::io("sync", path, error))
    }
}

/// Returns the number of the oldest frozen logs that are sealed next: as many as fill one log of
/// `full` bytes together.
///
/// Small logs wait for more until one of them is old, so that restarts do not make a segment each.
fn due(frozen: &[Frozen], full: u64, settings: &Settings, now: Moment) -> usize {
    let Some(oldest) = frozen.first() else { return 0 };
    let mut bytes = 0;
    let fit = frozen.iter().take_while(|frozen| {
        bytes += frozen.end.offset;
        bytes <= full
    });
    let fit = fit.count().max(1);
    let fills = fit < frozen.len() || bytes > full / 2;
    let old = oldest.log.first_at().is_none_or(|at| now.since(at) >= settings.rotation_age());
    if fills || old || frozen.len() >= MAX_SMALL_LOGS { fit } else { 0 }
}

/// Returns the longest time between two rounds of the reaper.
pub(crate) fn reap_interval(ttl: Duration) -> Duration {
    (ttl / 100).clamp(Duration::from_millis(100), Duration::from_secs(30))
}
