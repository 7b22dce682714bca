//! Opening a store: proving that its files are ours and whole, and starting a new log.
//!
//! Every opening, after a clean stop or a crash, does the same (rules 1 to 5 of `docs/format.md`):
//! the newest started log is walked to where nothing verifies, its predecessors to exactly where
//! their successor says that they end, and a new log begins by repeating the last batch. That batch
//! alone may be in the page cache and not on disk, so nothing is served before the repetition is
//! durable. Nothing is removed before everything has proved to be ours.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::clock::{Moment, Timeline};
use crate::disk::Disk;
use crate::entry::{self, Encoded, End, Entry, Malformed, Parts};
use crate::error::{Error, Result};
use crate::key::{Address, random_bytes};
use crate::log::{Batch, BatchBuilder, Change, Location, Log, PAGE, Tail};
use crate::segment::{Handles, Segment};

use super::manifest::{LOCK, MANIFEST, Manifest, read_lock, write_lock};
use super::seal::{Frozen, Retired};
use super::{Claims, Ledger, OpenClaim, Settings, Snapshot, Space};

/// The log of a store's creation holds one empty batch.
const SEED_LOG_BYTES: u64 = 2 * PAGE;

/// An open store: its files, and where the writer goes on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) ledger: Ledger,
    pub(crate) tail: Tail,
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) retired: Vec<Retired>,
}

/// Opens the store in a directory, which is locked already, or makes one if it is empty.
pub(crate) fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<Opened> {
    // A name that only the cache knows could be built upon and then vanish.
    disk.sync().map_err(|error| Error::io("sync", disk.path(), error))?;
    let names = Names::list(&*disk)?;
    let uuid = match read_lock(&*disk)? {
        Some(uuid) => uuid,
        None => {
            names.expect_none_but_leftovers(&*disk)?;
            let uuid = random_bytes();
            write_lock(&*disk, uuid)?;
            uuid
        }
    };
    if !disk.lock(LOCK).map_err(|error| Error::io("lock", disk.path_of(LOCK), error))? {
        return Err(Error::Locked { path: disk.path().into() });
    }
    let manifest = match Manifest::read(&*disk)? {
        Some(manifest) if manifest.uuid == uuid => manifest,
        Some(_) => {
            return Err(Error::foreign(disk.path_of(MANIFEST), "it has another store's uuid"));
        }
        None => finish_creation(&*disk, uuid, &settings, &names)?,
    };
    let names = Names::list(&*disk)?;
    let found = Found::read(&*disk, &manifest, &names)?;
    found.resume(disk, settings, manifest, &names)
}

/// Creation was cut short, or has just begun: makes the first log and then `MANIFEST`.
fn finish_creation(
    disk: &dyn Disk,
    uuid: [u8; 16],
    settings: &Settings,
    names: &Names,
) -> Result<Manifest> {
    const FIRST: u64 = 1;
    let missing = || Error::corrupt(disk.path_of(MANIFEST), "it is missing");
    if !names.segments.is_empty() || names.logs.iter().any(|generation| *generation != FIRST) {
        return Err(missing());
    }
    if names.logs.contains(&FIRST) {
        let log = Log::open(disk, FIRST, uuid)?;
        if log.size != SEED_LOG_BYTES {
            return Err(missing());
        }
        disk.remove(&log.name)
            .map_err(|error| Error::io("remove", disk.path_of(&log.name), error))?;
    }
    names.remove_temporaries(disk);
    let log = Arc::new(Log::create(disk, FIRST, uuid, SEED_LOG_BYTES)?);
    disk.sync().map_err(|error| Error::io("sync", disk.path(), error))?;
    let mut batch = BatchBuilder::new();
    batch.push(&Encoded::new(None, &Entry::Start(None)));
    let anchor = Timeline::begin(Arc::clone(&settings.clock)).anchor();
    Tail::new(log, 0).append(&mut batch, anchor)?;
    let manifest = Manifest {
        uuid,
        next_generation: FIRST + 1,
        sealed: None,
        logs: vec![FIRST],
        segments: Vec::new(),
    };
    manifest.write(disk)?;
    Ok(manifest)
}

/// The names in the directory, by what they are. Other people's names are left alone.
#[derive(Debug, Default)]
struct Names {
    logs: Vec<u64>,
    segments: Vec<u64>,
    temporaries: Vec<String>,
    manifest: bool,
    others: Vec<String>,
}

impl Names {
    fn list(disk: &dyn Disk) -> Result<Self> {
        let mut names = Self::default();
        let all = disk.names().map_err(|error| Error::io("list", disk.path(), error))?;
        for name in all {
            let generation = |digits: &str| {
                let canonical = digits.len() == 16 && !digits.contains(|c: char| c.is_uppercase());
                canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
            };
            match name.split_once('.') {
                Some((digits, "log")) if generation(digits).is_some() => {
                    names.logs.extend(generation(digits));
                }
                Some((digits, "redb")) if generation(digits).is_some() => {
                    names.segments.extend(generation(digits));
                }
                Some((digits, "log.tmp" | "redb.tmp")) if generation(digits).is_some() => {
                    names.temporaries.push(name);
                }
                Some((LOCK | MANIFEST, "tmp")) => names.temporaries.push(name),
                None if name == LOCK => {}
                None if name == MANIFEST => names.manifest = true,
                _ => names.others.push(name),
            }
        }
        Ok(names)
    }

    /// A directory without a `LOCK` is ours only if it is empty, or creation had just begun.
    fn expect_none_but_leftovers(&self, disk: &dyn Disk) -> Result<()> {
        if self.manifest || !self.logs.is_empty() || !self.segments.is_empty() {
            return Err(Error::corrupt(disk.path_of(LOCK), "it is missing"));
        }
        if !self.others.is_empty() {
            return Err(Error::foreign(disk.path(), "it holds other files and no LOCK"));
        }
        Ok(())
    }

    fn remove_temporaries(&self, disk: &dyn Disk) {
        for name in &self.temporaries {
            // It is in nobody's way, and the next opening tries again.
            let _ = disk.remove(name);
        }
    }

    fn max_generation(&self) -> u64 {
        self.logs.iter().chain(&self.segments).copied().max().unwrap_or_default()
    }
}

/// What is listed, opened and proved to be ours.
struct Found {
    segments: Vec<Arc<Segment>>,
    /// The chain of started logs, oldest first, each with what it holds.
    chain: Vec<Walked>,
    /// Listed logs outside the chain.
    unused: Vec<Arc<Log>>,
}

/// A log whose batches have been read, except the newest log's last.
struct Walked {
    log: Arc<Log>,
    start: Option<End>,
    claims: Vec<ClaimEvent>,
    end: End,
    /// The newest log's last batch, which is repeated and counts for the new log.
    last: Option<Batch>,
    /// The addresses that it completes or forgets.
    ends: HashSet<u128>,
}

/// Something about a durable claim, where it stands in a log.
struct ClaimEvent {
    address: Address,
    offset: u64,
    what: ClaimChange,
}

enum ClaimChange {
    Open(OpenClaim),
    Checkpoint(Bytes),
    End,
}

impl Found {
    fn read(disk: &dyn Disk, manifest: &Manifest, names: &Names) -> Result<Self> {
        let segments = manifest.segments.iter().rev();
        let segments: Result<Vec<_>> =
            segments.map(|meta| Segment::open(disk, meta).map(Arc::new)).collect();
        let mut logs = BTreeMap::new();
        for generation in &manifest.logs {
            logs.insert(*generation, Arc::new(Log::open(disk, *generation, manifest.uuid)?));
        }
        let chain = Self::chain(disk, manifest, &mut logs)?;
        // Unlisted files of ours are leftovers; another store's are not ours to remove.
        for generation in names.logs.iter().filter(|log| !manifest.logs.contains(log)) {
            Log::open(disk, *generation, manifest.uuid)?;
        }
        let listed = |generation: &u64| {
            manifest.segments.iter().any(|segment| segment.generation == *generation)
        };
        for generation in names.segments.iter().filter(|generation| !listed(generation)) {
            Segment::expect_ours(disk, *generation, manifest.uuid)?;
        }
        Ok(Self { segments: segments?, chain, unused: logs.into_values().collect() })
    }

    /// Takes the chain of started logs out of those that are listed, and reads them.
    fn chain(
        disk: &dyn Disk,
        manifest: &Manifest,
        logs: &mut BTreeMap<u64, Arc<Log>>,
    ) -> Result<Vec<Walked>> {
        let mut newest = None;
        for log in logs.values().rev() {
            if log.is_started()? {
                newest = Some(log.generation);
                break;
            }
        }
        let Some(mut generation) = newest else {
            return Err(Error::corrupt(disk.path(), "none of its logs holds a batch"));
        };
        let mut jobs = Vec::new();
        let mut until = None;
        loop {
            let log = logs.remove(&generation).ok_or_else(|| {
                let reason = format!("log {generation:016x} is missing from the chain");
                Error::corrupt(disk.path(), reason)
            })?;
            let start = start_of(&log)?;
            jobs.push((log, start, until));
            until = start;
            match start {
                Some(end) if Some(end.generation) == manifest.sealed.map(|end| end.generation) => {
                    if start != manifest.sealed {
                        let reason = "the oldest log does not follow the newest sealed one";
                        return Err(Error::corrupt(disk.path(), reason));
                    }
                    break;
                }
                Some(end) if end.generation < generation => generation = end.generation,
                None if manifest.sealed.is_none() => break,
                _ => return Err(Error::corrupt(disk.path(), "its logs make no chain")),
            }
        }
        jobs.reverse();
        walk_all(jobs, manifest.uuid)
    }

    /// Starts a new log behind the chain, and with it the store.
    fn resume(
        self,
        disk: Arc<dyn Disk>,
        settings: Settings,
        mut manifest: Manifest,
        names: &Names,
    ) -> Result<Opened> {
        let Self { segments, mut chain, mut unused } = self;
        let claims = open_claims(&chain);
        let mut newest = chain.pop().expect("a chain has a newest log");
        let last = newest.last.take().expect("the newest log was walked to its last batch");
        let anchor = last.head.anchor;
        let timeline =
            Timeline::resume(Arc::clone(&settings.clock), anchor, settings.trusted_downtime);

        let generation = manifest.next_generation.max(names.max_generation() + 1);
        let size = size_for(&settings, &last, &claims);
        names.remove_temporaries(&*disk);
        let log = Arc::new(Log::create(&*disk, generation, manifest.uuid, size)?);
        disk.sync().map_err(|error| Error::io("sync", disk.path(), error))?;
        manifest.next_generation = generation + 1;
        // The newest log stays listed until its last batch is repeated, even if it is then replaced.
        manifest.logs = chain.iter().map(|walked| walked.log.generation).collect();
        manifest.logs.extend([newest.log.generation, generation]);
        manifest.write(&*disk)?;

        let replaces = last.head.sequence == newest.start.map_or(0, |start| start.sequence) + 1;
        let start = if replaces { newest.start } else { Some(newest.end) };
        let mut tail = Tail::new(log, last.head.sequence - 1);
        repeat(&last, start, &mut tail, manifest.uuid)?;
        if replaces {
            manifest.logs.retain(|listed| *listed != newest.log.generation);
            manifest.write(&*disk)?;
            unused.push(newest.log);
        } else {
            chain.push(newest);
        }

        let snapshot = Snapshot {
            logs: std::iter::once(Arc::clone(&tail.log))
                .chain(chain.iter().rev().map(|walked| Arc::clone(&walked.log)))
                .collect(),
            segments,
        };
        let ledger = Ledger {
            uuid: manifest.uuid,
            timeline,
            claims: Mutex::new(Claims::new(
                settings.max_open_claims,
                settings.max_checkpoint_bytes(),
            )),
            space: Arc::new(Space::default()),
            snapshot: RwLock::new(Arc::new(snapshot)),
            handles: Handles::default(),
            manifest: Mutex::new(manifest),
            next: Mutex::new(None),
            disk,
            settings,
        };
        for (address, claim) in claims {
            ledger.claims.lock().insert(address, claim);
        }
        // Also pins engine time to this boot, so that a second opening continues this one's time.
        ledger.carry(&mut tail, &mut BatchBuilder::new(), ledger.timeline.anchor())?;
        ledger.measure(&tail);
        let retired = ledger.remove_leftovers(names, unused);
        let frozen =
            chain.into_iter().map(|walked| Frozen { log: walked.log, end: walked.end }).collect();
        Ok(Opened { ledger, tail, frozen, retired })
    }
}

impl Ledger {
    /// Removes files of ours that no list has, except logs, which are retired to be used again.
    fn remove_leftovers(&self, names: &Names, unused: Vec<Arc<Log>>) -> Vec<Retired> {
        let manifest = self.manifest.lock();
        for generation in &names.segments {
            if !manifest.segments.iter().any(|segment| segment.generation == *generation) {
                // It is in nobody's way, and the next opening tries again.
                let _ = self.disk.remove(&crate::segment::segment_name(*generation));
            }
        }
        for generation in &names.logs {
            let used = unused.iter().any(|log| log.generation == *generation);
            if !used && !manifest.logs.contains(generation) {
                let _ = self.disk.remove(&crate::log::log_name(*generation));
            }
        }
        unused.into_iter().map(Retired::Log).collect()
    }
}

/// A new log's size: as set, and enough to begin with.
fn size_for(settings: &Settings, last: &Batch, claims: &[(Address, OpenClaim)]) -> u64 {
    let carried: usize = claims
        .iter()
        .flat_map(|(address, claim)| claim.encode(address))
        .map(|encoded| encoded.bytes.len() + PAGE as usize)
        .sum();
    let needed = u64::from(last.head.length) + 2 * carried as u64 + 16 * PAGE;
    settings.log_bytes.max(needed.next_multiple_of(PAGE))
}

/// Appends the last batch again, under its sequence and with its times, behind a start entry.
fn repeat(last: &Batch, start: Option<End>, tail: &mut Tail, uuid: [u8; 16]) -> Result<()> {
    let mut batch = BatchBuilder::new();
    batch.push(&Encoded::new(None, &Entry::Start(start)));
    let is_start = start_of_batch(last).is_some();
    for frame in last.frames().skip(usize::from(is_start)) {
        batch.push_bytes(frame.digest, frame.bytes);
    }
    let offset = tail.append(&mut batch, last.head.anchor)?;
    let repeated = tail.log.batch_at(offset)?;
    let repeated = repeated.ok_or_else(|| tail.log.broken("its first batch does not read back"))?;
    // Claims are carried over by the next batch.
    enter(&tail.log, offset, &repeated, &mut Vec::new(), uuid)
}

/// The predecessor that a log names in its first batch.
fn start_of(log: &Log) -> Result<Option<End>> {
    let first = log.batch_at(PAGE)?;
    let start = first.as_ref().and_then(|batch| Some((start_of_batch(batch)?, batch)));
    match start {
        Some((start, batch))
            if batch.head.sequence == start.map_or(0, |end| end.sequence) + 1 =>
        {
            Ok(start)
        }
        _ => Err(log.broken("it does not begin with a start entry")),
    }
}

/// The start entry of a batch that is its log's first.
fn start_of_batch(batch: &Batch) -> Option<Option<End>> {
    let frame = batch.frames().next()?;
    match entry::decode(Parts::of(frame.bytes).ok()?.payload).ok()? {
        Entry::Start(start) => Some(start),
        _ => None,
    }
}

type Job = (Arc<Log>, Option<End>, Option<End>);

/// Reads the logs of the chain, on all cores: this is most of what opening costs.
fn walk_all(jobs: Vec<Job>, uuid: [u8; 16]) -> Result<Vec<Walked>> {
    std::thread::scope(|scope| {
        let walks: Vec<_> = jobs
            .into_iter()
            .map(|(log, start, until)| {
                let path = log.name.clone();
                std::thread::Builder::new()
                    .name("refrain-recovery".into())
                    .spawn_scoped(scope, move || walk(log, start, until, uuid))
                    .map_err(|error| Error::io("start a thread to read", path, error))
            })
            .collect();
        walks
            .into_iter()
            .map(|walk| walk?.join().expect("reading a log does not panic"))
            .collect()
    })
}

/// Reads a log up to where it ends: where its successor says, or where nothing verifies.
fn walk(
    log: Arc<Log>,
    start: Option<End>,
    until: Option<End>,
    uuid: [u8; 16],
) -> Result<Walked> {
    let mut sequence = start.map_or(0, |start| start.sequence);
    let mut offset = PAGE;
    let mut claims = Vec::new();
    let mut last: Option<(u64, Batch)> = None;
    loop {
        if until.is_some_and(|end| offset >= end.offset) {
            break;
        }
        let Some(batch) = log.batch_at(offset)? else { break };
        if batch.head.sequence != sequence + 1 {
            return Err(log.broken("its batches are not dense"));
        }
        sequence += 1;
        let length = u64::from(batch.head.length).next_multiple_of(PAGE);
        if let Some((at, batch)) = last.replace((offset, batch)) {
            enter(&log, at, &batch, &mut claims, uuid)?;
        }
        offset += length;
    }
    let end = End { generation: log.generation, offset, sequence };
    if let Some(until) = until {
        if end != until {
            return Err(log.broken("it does not end where its successor says"));
        }
        if let Some((at, batch)) = last.take() {
            enter(&log, at, &batch, &mut claims, uuid)?;
        }
        return Ok(Walked { log, start, claims, end, last: None, ends: HashSet::new() });
    }
    if log.has_batch_from(offset + PAGE)? {
        return Err(log.broken(&format!("a batch is damaged at byte {offset}")));
    }
    let Some((at, batch)) = last else { return Err(log.broken("it holds no batch")) };
    // The last batch counts for the new log, and this one ends before it.
    let ends = read(&log, at, &batch, &mut claims, uuid)?.iter().map(|change| change.hash).collect();
    let end = End { generation: log.generation, offset: at, sequence: sequence - 1 };
    Ok(Walked { log, start, claims, end, last: Some(batch), ends })
}

/// Enters a batch into its log's index.
fn enter(
    log: &Log,
    offset: u64,
    batch: &Batch,
    claims: &mut Vec<ClaimEvent>,
    uuid: [u8; 16],
) -> Result<()> {
    let changes = read(log, offset, batch, claims, uuid)?;
    log.publish(&changes);
    Ok(())
}

/// Reads a batch: what it changes in the index, and what it says about claims.
fn read(
    log: &Log,
    offset: u64,
    batch: &Batch,
    claims: &mut Vec<ClaimEvent>,
    uuid: [u8; 16],
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for frame in batch.frames() {
        let location = Location::of(&frame, offset, batch.head.anchor.at);
        let mut read = || -> std::result::Result<(), Malformed> {
            let parts = Parts::of(frame.bytes)?;
            let what = match entry::decode(parts.payload)? {
                Entry::Start(_) => return Ok(()),
                Entry::Completion(_) => {
                    let hash = parts.hash128(&uuid);
                    changes.push(Change { hash, location, hides_until: None });
                    return Ok(());
                }
                Entry::Forget(until) => {
                    let (hash, hides_until) = (parts.hash128(&uuid), Some(Moment(until)));
                    changes.push(Change { hash, location, hides_until });
                    return Ok(());
                }
                Entry::Claim(claim) => {
                    let at = batch.head.anchor.at;
                    ClaimChange::Open(OpenClaim::read(&claim, batch.head.sequence, at)?)
                }
                Entry::Checkpoint(data) => {
                    ClaimChange::Checkpoint(Bytes::copy_from_slice(data))
                }
                Entry::Release => ClaimChange::End,
            };
            let address = parts.address(&uuid)?;
            claims.push(ClaimEvent { address, offset: location.offset, what });
            Ok(())
        };
        read().map_err(|error| log.damaged(location, error))?;
    }
    Ok(changes)
}

/// The claims that no verdict in the chain has ended.
fn open_claims(chain: &[Walked]) -> Vec<(Address, OpenClaim)> {
    let mut open: HashMap<&Address, (OpenClaim, usize, u64)> = HashMap::new();
    for (position, walked) in chain.iter().enumerate() {
        for event in &walked.claims {
            match &event.what {
                ClaimChange::Open(claim) => {
                    let checkpoints = match open.remove(&event.address) {
                        // Later attempts, and copies in newer logs, keep the first one's sequence.
                        Some((old, ..)) if is_later_attempt(claim, &old) => old.checkpoints,
                        _ => Vec::new(),
                    };
                    let claim = OpenClaim { checkpoints, ..claim.clone() };
                    open.insert(&event.address, (claim, position, event.offset));
                }
                ClaimChange::Checkpoint(data) => {
                    if let Some((claim, ..)) = open.get_mut(&event.address) {
                        claim.checkpoints.push(data.clone());
                    }
                }
                ClaimChange::End => drop(open.remove(&event.address)),
            }
        }
    }
    // Completions are not events, since there are so many; the indexes know the newest of each.
    open.retain(|address, (_, position, offset)| {
        let ended_in = |log: &Log| log.location(address.hash);
        let ended_here = ended_in(&chain[*position].log).is_some_and(|end| end.offset > *offset);
        let ended_later = chain[*position + 1..].iter().any(|w| ended_in(&w.log).is_some());
        let ended_last = chain.iter().any(|walked| walked.ends.contains(&address.hash));
        !ended_here && !ended_later && !ended_last
    });
    open.into_iter().map(|(address, (claim, ..))| (address.clone(), claim)).collect()
}

/// Whether a claim continues another in the same log or is its copy in a newer one. A copy brings
/// its checkpoints along.
fn is_later_attempt(claim: &OpenClaim, old: &OpenClaim) -> bool {
    claim.first_sequence == old.first_sequence && claim.attempt > old.attempt
}
