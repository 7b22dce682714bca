//! The new store: one segment with all records, a log with the larger ones, and a log with the
//! claims.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Moment, Timeline, millis};
use crate::codec::Malformed;
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, Pool};
use crate::engine::entry::{self, End, Entry, Parts};
use crate::engine::log::{BatchBuilder, Identity, Location, Log, PAGE, Tail};
use crate::engine::segment::{
    self, Damaged, Draft, Item, Kept, MAX_INLINE_BYTES, RowContent, Sealed, SegmentMeta,
};
use crate::engine::settings::Settings;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::key::{Address, Key, Scope};
use crate::salvage::Salvage;

use super::super::claims::OpenClaim;
use super::super::manifest::{Manifest, write_lock};
use super::super::rotation::start;
use super::super::size::{CARRY_BYTES, size_for};
use super::super::values::{Copier, LargeBytes};
use super::keys::{Found, Keys, Latest};
use super::sources::Sources;

/// Writes the new store.
///
/// # Errors
///
/// [`Error::Io`]; what has been written is no store.
///
/// # Durability
///
/// The store is durable when this returns.
pub(super) fn write(
    sources: &Sources,
    mut keys: Keys,
    timeline: &Timeline,
    last_sequence: u64,
    disk: Arc<dyn Disk>,
    settings: &Settings,
    report: &mut Salvage,
) -> Result<()> {
    let now = timeline.now();
    let mut claims = keys.take_claims();
    claims.retain(|(_, claim)| claim.expiry() > now);
    let longest_ttl = keys.longest_ttl;
    let store = Identity { uuid: sources.store.uuid, entries: DigestKey::random() };
    let generation = sources.next_generation;
    let pool = Pool::new(disk);
    let disk: &dyn Disk = &*pool;
    let sequence = last_sequence.max(sources.sealed);
    let segment = Writer { sources, pool: &pool, store, timeline, now, longest_ttl, report }
        .write_segment(keys.into_latest(), generation, sequence)?;
    // As if all had been sealed: the log with the claims follows, and goes on with the sequences.
    let sealed = End { generation: generation + 1, offset: PAGE, sequence };
    let log = generation + 2;
    write_claims(disk, store, log, sealed, &claims, timeline, settings)?;
    report.open_claims = claims.len() as u64;
    disk.sync().map_err(|error| Error::io("sync", disk.path(), error))?;
    write_lock(disk, store.uuid)?;
    let manifest = Manifest {
        uuid: store.uuid,
        digests: store.entries,
        longest_ttl: millis(longest_ttl),
        next_generation: log + 1,
        sealed: Some(sealed),
        logs: vec![log],
        segments: segment.into_iter().collect(),
    };
    manifest.write(disk).map_err(Trouble::into_error)
}

/// Writes a log that begins with all claims.
fn write_claims(
    disk: &dyn Disk,
    store: Identity,
    generation: u64,
    follows: End,
    claims: &[(Address, OpenClaim)],
    timeline: &Timeline,
    settings: &Settings,
) -> Result<()> {
    let carried: u64 = claims.iter().map(|(_, claim)| claim.carried_bytes()).sum();
    let size = size_for(2 * carried).next_power_of_two().max(settings.first_log_bytes);
    let log = Log::create(disk, generation, store, size)?;
    let mut tail = Tail::new(Arc::new(log), follows.sequence);
    let mut batch = BatchBuilder::new();
    start(&store.entries, &mut batch, Some(follows));
    for (address, claim) in claims {
        // A claim and its checkpoints share a batch.
        let entries = claim.encode(&store.entries, address);
        let bytes: usize = entries.iter().map(|entry| entry.bytes.len()).sum();
        if batch.span() + bytes as u64 > CARRY_BYTES {
            tail.append(&mut batch, timeline.anchor())?;
            batch.clear();
        }
        for entry in &entries {
            batch.push(entry);
        }
    }
    tail.append(&mut batch, timeline.anchor()).map(drop)
}

/// Writes the segment.
struct Writer<'a> {
    sources: &'a Sources,
    pool: &'a Arc<Pool>,
    store: Identity,
    timeline: &'a Timeline,
    now: Moment,
    longest_ttl: Duration,
    report: &'a mut Salvage,
}

impl Writer<'_> {
    /// Writes all that is live, and returns the description of the segment, if there is one.
    fn write_segment(
        self,
        latest: Vec<(u128, Latest)>,
        generation: u64,
        last_sequence: u64,
    ) -> Result<Option<SegmentMeta>> {
        let meta = SegmentMeta {
            uuid: self.store.uuid,
            format: SegmentMeta::FORMAT,
            file: generation + 1,
            first_generation: generation,
            generation: generation + 1,
            first_sequence: 1,
            last_sequence,
            latest_expiry: 0,
            records: 0,
            damaged: 0,
            values: Vec::new(),
        };
        let copier = RefCell::new(self.copier(&latest, generation)?);
        let (records, damaged) = (Cell::new(0), RefCell::new((0, Vec::new())));
        let items = latest.into_iter().filter_map(|(hash, latest)| {
            let item = self.item(hash, &latest, &copier).transpose()?;
            match &item {
                Ok(Item::Damaged(_)) => {
                    let mut damaged = damaged.borrow_mut();
                    damaged.0 += 1;
                    damaged.1.extend(latest.name);
                }
                _ => records.set(records.get() + 1),
            }
            Some(item)
        });
        let values = || {
            let kept = copier.take().map(|copier| copier.finish(&**self.pool)).transpose()?;
            if let Some(keep) = &kept {
                // What is not cut off is in nobody's way but the disk's.
                let _ = keep.log.file.set_len(keep.log.size);
            }
            Ok(kept.into_iter().map(|keep| keep.end).collect())
        };
        let draft = Draft { meta, key: self.store.entries };
        let segment = segment::build(self.pool, &draft, items, values, || Ok(()))?;
        self.report.records = records.get();
        (self.report.damaged_keys, self.report.damaged) = damaged.into_inner();
        Ok(segment.map(|segment| segment.meta))
    }

    /// Creates the log for the larger records, if there are any.
    fn copier(&self, latest: &[(u128, Latest)], generation: u64) -> Result<Option<Copier>> {
        // Too many rather than too few: a payload is shorter than its entry.
        let lengths = latest.iter().map(|(_, latest)| match latest.found {
            Found::Log { location, .. } => location.length,
            Found::Row { large, .. } => large,
            Found::Damaged { .. } => 0,
        });
        let large = lengths.filter(|length| is_large(*length as usize));
        let large = large.fold(LargeBytes::default(), |sum, length| LargeBytes {
            entries: sum.entries + 1,
            bytes: sum.bytes + u64::from(length) + Parts::MAX_ADDRESS_BYTES as u64,
        });
        if large.entries == 0 {
            return Ok(None);
        }
        let size = Copier::size_for(large);
        let log = Log::create_unnamed(&**self.pool, generation, self.store, size)?;
        let anchor = self.timeline.anchor();
        Ok(Some(Copier::new(log, anchor, self.store.entries, Arc::clone(self.pool))))
    }

    /// Returns what becomes of an entry: nothing if it has expired, or hides others.
    fn item(
        &self,
        hash: u128,
        latest: &Latest,
        copier: &RefCell<Option<Copier>>,
    ) -> Result<Option<Item>> {
        let damaged = |until: Moment| {
            (until > self.now).then(|| Item::Damaged(Damaged::gone(hash, latest.at, until)))
        };
        if let Found::Damaged { until } = latest.found {
            return Ok(damaged(until));
        }
        let read = latest.name.as_ref().and_then(|name| self.read(latest, name));
        let Some((address, payload)) = read else {
            return Ok(damaged(latest.at.plus(self.longest_ttl)));
        };
        match self.sealed(latest.at, address, &payload, copier)? {
            Ok(sealed) => Ok(sealed.map(Item::Sealed)),
            Err(Malformed(_)) => Ok(damaged(latest.at.plus(self.longest_ttl))),
        }
    }

    /// Reads the payload of an entry.
    fn read(&self, latest: &Latest, (scope, key): &(Scope, Key)) -> Option<(Address, Bytes)> {
        let address = Address::new(&self.store.uuid, *scope, key.clone());
        let in_log = |log: u64, location: Location| {
            let bytes = self.sources.log(log)?.read_entry(location).ok()?;
            let parts = Parts::of(&bytes).ok().filter(|parts| parts.is_at(&address))?;
            Some(bytes.slice_ref(parts.payload))
        };
        let payload = match latest.found {
            Found::Log { log, location } => in_log(log, location)?,
            Found::Row { segment, row, .. } => {
                let segment = self.sources.segments.get(segment)?;
                match segment.content(segment.rows.get(row)?)? {
                    RowContent::Inline(payload) => payload,
                    RowContent::InLog { log, location } => {
                        let values = segment.meta.as_ref().map(|meta| &meta.values);
                        let listed = values.and_then(|values| values.get(usize::from(log)));
                        // Without a description any log may be meant: the entry shows it.
                        let others = self.sources.logs.keys().filter(|_| values.is_none());
                        let logs = listed.map(|end| end.generation).into_iter();
                        logs.chain(others.copied()).find_map(|log| in_log(log, location))?
                    }
                }
            }
            Found::Damaged { .. } => return None,
        };
        Some((address, payload))
    }

    /// Returns a record as it goes into the segment; a larger one is copied.
    fn sealed(
        &self,
        at: Moment,
        address: Address,
        payload: &Bytes,
        copier: &RefCell<Option<Copier>>,
    ) -> Result<Result<Option<Sealed>, Malformed>> {
        let stored = match entry::decode(payload) {
            Ok(Entry::Completion(stored)) => stored,
            // Nothing older is left that it could hide.
            Ok(Entry::Forget(_)) => return Ok(Ok(None)),
            Ok(_) => return Ok(Err(Malformed("entry is neither a completion nor a forget"))),
            Err(error) => return Ok(Err(error)),
        };
        let expires = at.plus(stored.ttl());
        if expires <= self.now {
            return Ok(Ok(None));
        }
        let mut copier = copier.borrow_mut();
        let kept = match &mut *copier {
            Some(copier) if payload.len() > MAX_INLINE_BYTES => {
                let entry = entry::join(&address, payload);
                let length = u32::try_from(entry.len()).expect("entries are bounded");
                let from = Location { offset: 0, length, check: 0, at };
                let location = copier.push(address.hash, from, &entry)?;
                let (status, bare) = (stored.status(), stored.encode_bare().into());
                Kept::InLog { log: 0, location, status, bare }
            }
            _ => Kept::Inline(payload.clone()),
        };
        Ok(Ok(Some(Sealed { address, at, kept, expires })))
    }
}

/// Returns true if an entry of this length may be too large for a row.
fn is_large(length: usize) -> bool {
    length > MAX_INLINE_BYTES
}
