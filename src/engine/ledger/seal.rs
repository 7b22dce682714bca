//! What the reaper does to files: prepare the next log, seal frozen ones, drop what has expired.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::entry::{self, End, Entry, Parts};
use crate::engine::log::{Addresses, Frozen, Location, Log, PAGE};
use crate::engine::segment::{self, Sealed, Segment, SegmentMeta};
use crate::engine::settings::Settings;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::observe;
use crate::sync::atomic::Ordering;

use super::Ledger;
use super::claims::needed_for;
use super::retired::Retired;

/// Small frozen logs, as many restarts leave them, are sealed together; this many at the latest.
const MAX_SMALL_LOGS: usize = 3;
/// Logs more that may wait before no further ones are prepared: what was admitted goes on in them,
/// bodies and all.
const MAX_BEHIND: u64 = 2;
/// What may be sealed before a store is used.
const MAX_SMALL_BYTES: u64 = 16 * 1024 * 1024;

impl Ledger {
    /// Makes a next log ready, of a retired one's blocks if there is one.
    pub(crate) fn prepare(&self, retired: &mut Vec<Retired>) -> std::result::Result<(), Trouble> {
        if self.admit_again() || self.backlog() > self.max_frozen + MAX_BEHIND {
            return Ok(());
        }
        // Blocks count too: logs that are hardly written in take as many.
        if self.snapshot().logs.len() > self.max_logs {
            return Ok(());
        }
        let unlisted = self.unlisted.load(Ordering::Acquire);
        let generation = self.manifest.lock().next_generation.max(unlisted);
        // Where logs were larger once, there may be more claims than these would be made for.
        let carried = needed_for(self.claims.lock().iter());
        let size = self.settings.log_bytes.max(carried.next_multiple_of(PAGE));
        let old = retired.iter().position(|file| file.is_recyclable(size));
        let log = match old.map(|at| retired.swap_remove(at)) {
            Some(Retired::Log(old)) => {
                let zero = self.settings.zero_recycled;
                Log::recycle(&*self.disk, &old, generation, self.uuid, zero)
            }
            _ => Log::create(&*self.disk, generation, self.uuid, size),
        };
        // No list has it yet, so nothing is lost.
        let log = log.map(Arc::new).map_err(Trouble::classify)?;
        self.sync_names().map_err(Trouble::Fatal)?;
        let listed = self.change_manifest(|manifest| {
            manifest.next_generation = generation + 1;
            manifest.logs.push(generation);
        });
        if let Err(trouble) = listed {
            // Its blocks are there for the next attempt, which takes another name: this one's file will
            // be removed. But what may be listed must not be.
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

    /// Admits new keys again if sealing has caught up, and says whether a next log is there.
    fn admit_again(&self) -> bool {
        let next = self.next.lock();
        self.make_available(next.as_deref());
        next.is_some()
    }

    /// Seals the small logs that restarts in quick succession have left, before the store is used:
    /// each run of it may be too short for the reaper.
    pub(crate) fn seal_small(
        &self,
        frozen: &mut Vec<Frozen>,
        retired: &mut Vec<Retired>,
    ) -> Result<()> {
        while frozen.len() > MAX_SMALL_LOGS {
            let due = due(frozen, &self.settings, self.timeline.now());
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
                // The reaper tries again, and says so.
                Err(Trouble::Transient(_)) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Seals the oldest frozen logs that are due into one segment, and says how many they were.
    ///
    /// # Errors
    ///
    /// The logs are kept then, and nothing is lost.
    pub(crate) fn seal(
        &self,
        frozen: &[Frozen],
        pace: impl FnMut() -> Result<()>,
    ) -> std::result::Result<usize, Trouble> {
        let now = self.timeline.now();
        let logs = &frozen[..due(frozen, &self.settings, now)];
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
        let sorted = sorted(logs).map_err(Trouble::Transient)?;
        // What a jump of the clock has expired is kept as long as segments are.
        let from = if now < self.deletion_allowed() { Moment::default() } else { now };
        let entries = sorted.into_iter().filter_map(|place| place.read(logs, from).transpose());
        let segment =
            segment::build(&*self.disk, meta, entries, pace).map_err(Trouble::Transient)?;
        self.adopt(segment, newest.end)?;
        let bytes: u64 = logs.iter().map(|frozen| frozen.end.offset).sum();
        self.frozen_bytes.fetch_sub(bytes, Ordering::AcqRel);
        Ok(logs.len())
    }

    /// Lists a segment in place of the logs up to `sealed`, on disk and then in the snapshot.
    fn adopt(&self, segment: Option<Segment>, sealed: End) -> std::result::Result<(), Trouble> {
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

    /// Drops the segments whose last record has expired.
    ///
    /// # Errors
    ///
    /// They are kept then, and not served.
    pub(crate) fn drop_expired(
        &self,
        retired: &mut Vec<Retired>,
    ) -> std::result::Result<usize, Trouble> {
        let now = self.timeline.now();
        if now < self.deletion_allowed() {
            return Ok(0);
        }
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

    /// A jump of the wall clock over a reboot puts deletion off by one TTL, for someone to notice.
    fn deletion_allowed(&self) -> Moment {
        match self.timeline.jump() {
            Some(_) => self.timeline.started().plus(self.settings.ttl),
            None => Moment::default(),
        }
    }

    fn sync_names(&self) -> Result<()> {
        let path = self.disk.path();
        self.disk.sync().map_err(|error| Error::io("sync", path, error))
    }
}

/// How many of the oldest frozen logs are sealed next, together no larger than one full log.
///
/// A small and young log waits for company, so that restarts do not make a segment each.
fn due(frozen: &[Frozen], settings: &Settings, now: Moment) -> usize {
    let Some(oldest) = frozen.first() else { return 0 };
    let mut bytes = 0;
    let fit = frozen.iter().take_while(|frozen| {
        bytes += frozen.end.offset;
        bytes <= settings.log_bytes
    });
    let fit = fit.count().max(1);
    let full = fit < frozen.len() || bytes > settings.log_bytes / 2;
    let old = oldest.log.first_at().is_none_or(|at| now.since(at) >= settings.rotation_age());
    if full || old || frozen.len() >= MAX_SMALL_LOGS { fit } else { 0 }
}

/// An indexed entry, with its address to sort by.
struct Place {
    scope: [u8; 32],
    key: Vec<u8>,
    hash: u128,
    log: usize,
    location: Location,
}

/// The newest entry of each address in these logs, in the order of the addresses.
fn sorted(logs: &[Frozen]) -> Result<Vec<Place>> {
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
        let (scope, key) = addresses[log].read(location)?;
        places.push(Place { scope, key, hash, log, location });
    }
    places.sort_unstable_by(|a, b| (a.scope, &a.key).cmp(&(b.scope, &b.key)));
    Ok(places)
}

impl Place {
    /// Reads and verifies the entry, unless it no longer matters.
    fn read(&self, logs: &[Frozen], now: Moment) -> Result<Option<Sealed>> {
        let log = &logs[self.log].log;
        let bytes = log.read_entry(self.location)?;
        let sealed = self.seal(logs, &bytes).map_err(|error| log.damaged(self.location, error))?;
        Ok(Some(sealed).filter(|sealed| sealed.expires > now))
    }

    fn seal(&self, logs: &[Frozen], bytes: &Bytes) -> std::result::Result<Sealed, Malformed> {
        let parts = Parts::of(bytes)?;
        let at = self.location.at;
        let expires = match entry::decode(parts.payload)? {
            Entry::Completion(stored) => at.plus(stored.ttl()),
            Entry::Forget(until) => Moment(until),
            _ => return Err(Malformed("entry is neither a completion nor a forget")),
        };
        // A record that came after a forget goes on hiding what the forget hid.
        let hides = logs.iter().filter_map(|frozen| frozen.log.forgotten_until(self.hash)).max();
        Ok(Sealed {
            address: parts.address_hashed(self.hash)?,
            at,
            payload: bytes.slice_ref(parts.payload),
            expires: expires.max(hides.unwrap_or_default()),
        })
    }
}

/// How long the reaper may leave a store alone.
pub(crate) fn reap_interval(ttl: Duration) -> Duration {
    (ttl / 100).clamp(Duration::from_millis(100), Duration::from_secs(30))
}
