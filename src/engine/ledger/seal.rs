//! Preparing the next log, sealing frozen ones, and dropping expired segments: the reaper's work.
//!
//! Invariants:
//! - A frozen log leaves the snapshot only once `MANIFEST` lists the segment that took it over.
//! - A failure that may end leaves the snapshot and `MANIFEST` as they were, to be tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::entry::{self, End, Entry, Parts};
use crate::engine::log::{Addresses, Frozen, Location, Log};
use crate::engine::segment::{self, Sealed, Segment, SegmentMeta};
use crate::engine::settings::Settings;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::observe;
use crate::sync::atomic::Ordering;

use super::Ledger;
use super::retired::Retired;

/// Small frozen logs, which restarts leave behind, are sealed together once there are this many.
const MAX_SMALL_LOGS: usize = 3;
/// Beyond the limit at which new keys are refused, this many more logs may wait before new ones
/// stop being prepared. Admitted operations still complete in them.
const MAX_BEHIND: u64 = 2;
/// The entries whose addresses are read between two pauses.
const ENTRIES_AT_A_TIME: usize = 8192;
/// The most bytes that are sealed while a store opens.
const MAX_SMALL_BYTES: u64 = 16 * 1024 * 1024;

impl Ledger {
    /// Prepares and lists a next log, unless there is one, and admits new keys again. A retired log
    /// of the right size is recycled. On a full disk the log is smaller.
    ///
    /// # Errors
    ///
    /// A transient error leaves the store without a next log. After a fatal one it is unknown what
    /// is on disk.
    ///
    /// # Durability
    ///
    /// The log, its name and its entry in `MANIFEST` are durable when this returns.
    pub(crate) fn prepare(&self, retired: &mut Vec<Retired>) -> Result<(), Trouble> {
        if self.admit_again() || self.backlog() > self.max_frozen + MAX_BEHIND {
            return Ok(());
        }
        // Logs are limited in number too: one that is hardly written takes as many blocks.
        if self.snapshot().logs.len() > self.max_logs {
            return Ok(());
        }
        let unlisted = self.unlisted.load(Ordering::Acquire);
        let generation = self.manifest.lock().next_generation.max(unlisted);
        let (size, in_place) = (self.suggested(), self.disk.overwrites_in_place());
        let old = retired.iter().position(|file| in_place && file.is_recyclable(size));
        let log = match old.map(|at| retired.swap_remove(at)) {
            Some(Retired::Log(old)) => {
                let zeroed = self.settings.zero_recycled;
                let recycle = if zeroed { Log::recycle_zeroed } else { Log::recycle };
                recycle(&*self.disk, &old, generation, self.uuid)
            }
            _ => self.create_next(generation, size),
        };
        // The log is not listed yet, so nothing is lost with it.
        let log = log.map(Arc::new).map_err(Trouble::classify)?;
        self.sync_names().map_err(Trouble::Fatal)?;
        let listed = self.change_manifest(|manifest| {
            manifest.next_generation = generation + 1;
            manifest.logs.push(generation);
        });
        if let Err(trouble) = listed {
            // The next attempt recycles the blocks under another generation. After a fatal error
            // the log may be listed, and must keep its name.
            if !trouble.is_fatal() {
                self.unlisted.store(generation + 1, Ordering::Release);
                retired.push(Retired::Log(log));
            }
            return Err(trouble);
        }
        *self.next.lock() = Some(log);
        self.admit_again();
        Ok(())
    }

    /// Admits new keys again if sealing has caught up, and returns whether a next log is prepared.
    pub(super) fn admit_again(&self) -> bool {
        let next = self.next.lock();
        self.make_available(next.as_deref());
        next.is_some()
    }

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
            let due = due(frozen, self.ceiling(), &self.settings, self.timeline.now());
            let bytes: u64 = frozen[..due].iter().map(|frozen| frozen.end.offset).sum();
            if bytes > MAX_SMALL_BYTES {
                return Ok(());
            }
            match self.seal(frozen, || Ok(())) {
                Ok(0) => return Ok(()),
                Ok(sealed) => {
                    retired.extend(frozen.drain(..sealed).map(|frozen| Retired::Log(frozen.log)));
                }
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
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<usize, Trouble> {
        let now = self.timeline.now();
        let logs = &frozen[..due(frozen, self.ceiling(), &self.settings, now)];
        let (Some(oldest), Some(newest)) = (logs.first(), logs.last()) else { return Ok(0) };
        let previous = self.manifest.lock().sealed;
        let meta = SegmentMeta {
            uuid: self.uuid,
            first_generation: oldest.end.generation,
            generation: newest.end.generation,
            first_sequence: previous.map_or(0, |end| end.sequence) + 1,
            last_sequence: newest.end.sequence,
            latest_expiry: 0,
            records: 0,
        };
        let sorted = sorted(logs, &mut pace).map_err(Trouble::Transient)?;
        let entries = sorted.into_iter().filter_map(|place| place.read(logs, now).transpose());
        let segment =
            segment::build(&*self.disk, meta, entries, pace).map_err(Trouble::Transient)?;
        self.adopt(segment, newest.end)?;
        let bytes: u64 = logs.iter().map(|frozen| frozen.end.offset).sum();
        self.frozen_bytes.fetch_sub(bytes, Ordering::AcqRel);
        Ok(logs.len())
    }

    /// Lists a segment in place of the logs up to `sealed`, on disk and then in the snapshot.
    fn adopt(&self, segment: Option<Segment>, sealed: End) -> Result<(), Trouble> {
        self.sync_names().map_err(Trouble::Fatal)?;
        let segment = segment.map(Arc::new);
        let listed = self.change_manifest(|manifest| {
            manifest.sealed = Some(sealed);
            manifest.logs.retain(|generation| *generation > sealed.generation);
            manifest.segments.extend(segment.as_ref().map(|segment| segment.meta));
        });
        if let Err(trouble) = listed {
            if let (false, Some(segment)) = (trouble.is_fatal(), segment) {
                // The next attempt needs its room. What cannot be removed is a leftover.
                let _ = self.disk.remove(&segment.name);
            }
            return Err(trouble);
        }
        self.update_snapshot(|snapshot| {
            snapshot.logs.retain(|log| log.generation > sealed.generation);
            snapshot.segments.splice(0..0, segment);
        });
        Ok(())
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
        self.update_snapshot(|snapshot| {
            snapshot.segments.retain(|segment| segment.latest_expiry() > now);
        });
        observe::expired(expired.len(), expired.iter().map(|segment| segment.meta.records).sum());
        for segment in &expired {
            self.handles.forget(segment.meta.generation);
            retired.push(Retired::Segment(Arc::clone(segment)));
        }
        Ok(expired.len())
    }

    /// Makes all names in the directory durable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    fn sync_names(&self) -> Result<()> {
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

/// An indexed entry, with its address to sort by.
struct Place {
    scope: [u8; 32],
    key: Vec<u8>,
    hash: u128,
    log: usize,
    location: Location,
}

/// Returns the latest entry of each address in these logs, in the order of the addresses.
fn sorted(logs: &[Frozen], mut pace: impl FnMut() -> Result<()>) -> Result<Vec<Place>> {
    let mut newest = HashMap::new();
    for (log, frozen) in logs.iter().enumerate() {
        newest.extend(frozen.log.locations().map(|(hash, location)| (hash, (log, location))));
    }
    let mut newest: Vec<_> = newest.into_iter().collect();
    newest.sort_unstable_by_key(|(_, (log, location))| (*log, location.offset));
    let mut addresses: Vec<_> =
        logs.iter().map(|frozen| Addresses::of(&frozen.log, frozen.end)).collect();
    let mut places = Vec::with_capacity(newest.len());
    for (hash, (log, location)) in newest {
        if places.len() % ENTRIES_AT_A_TIME == 0 {
            pace()?;
        }
        let (scope, key) = addresses[log].read(location)?;
        places.push(Place { scope, key, hash, log, location });
    }
    places.sort_unstable_by(|a, b| (a.scope, &a.key).cmp(&(b.scope, &b.key)));
    Ok(places)
}

impl Place {
    /// Reads and verifies the entry, and returns it unless it has expired by `now`.
    fn read(&self, logs: &[Frozen], now: Moment) -> Result<Option<Sealed>> {
        let log = &logs[self.log].log;
        let bytes = log.read_entry(self.location)?;
        let sealed = self.seal(logs, &bytes).map_err(|error| log.damaged(self.location, error))?;
        Ok(Some(sealed).filter(|sealed| sealed.expires > now))
    }

    /// Decodes the entry, and sets its expiry no earlier than that of what it hides.
    fn seal(&self, logs: &[Frozen], bytes: &Bytes) -> Result<Sealed, Malformed> {
        let parts = Parts::of(bytes)?;
        let at = self.location.at;
        let expires = match entry::decode(parts.payload)? {
            Entry::Completion(stored) => at.plus(stored.ttl()),
            Entry::Forget(until) => Moment(until),
            _ => return Err(Malformed("entry is neither a completion nor a forget")),
        };
        // A record that came after a forget must go on hiding the older records.
        let hides = logs.iter().filter_map(|frozen| frozen.log.forgotten_until(self.hash)).max();
        Ok(Sealed {
            address: parts.address_hashed(self.hash)?,
            at,
            payload: bytes.slice_ref(parts.payload),
            expires: expires.max(hides.unwrap_or_default()),
        })
    }
}

/// Returns the longest time between two rounds of the reaper.
pub(crate) fn reap_interval(ttl: Duration) -> Duration {
    (ttl / 100).clamp(Duration::from_millis(100), Duration::from_secs(30))
}
