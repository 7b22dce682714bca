//! Opening a store: proving that its files are ours and whole, and starting a new log.
//!
//! Every opening, after a clean stop or a crash, does the same (rules 1 to 5 of `docs/format.md`):
//! the newest started log is walked to where nothing verifies, its predecessors to exactly where
//! their successor says that they end, and a new log begins by repeating the last batch. That batch
//! alone may be in the page cache and not on disk, so nothing is served before the repetition is
//! durable. Nothing is removed before everything has proved to be ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Timeline;
use crate::engine::disk::{Disk, remove_leftover};
use crate::engine::entry::{Encoded, End, Entry};
use crate::engine::log::{Batch, BatchBuilder, Frozen, Log, PAGE, Tail, log_name};
use crate::engine::segment::{Handles, Segment, segment_name};
use crate::engine::settings::Settings;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::key::{Address, random_bytes};
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, RwLock};

use super::chain::{self, Walked};
use super::claims::{Claims, OpenClaim, needed_for};
use super::manifest::{LOCK, MANIFEST, Manifest, read_lock, write_lock};
use super::names::Names;
use super::retired::Retired;
use super::space::Space;
use super::{Ledger, Snapshot};

/// A log that begins on a full disk has this much room, if no more.
const MIN_BYTES: u64 = 256 * 1024;
/// Logs that may wait for sealing before new keys are refused, or as many as waited when the store
/// was opened: it serves at once.
const MAX_FROZEN: u64 = 2;
/// Logs more than when the store was opened, however full.
const MAX_MORE_LOGS: usize = 6;
/// The generation of the log that a store's creation makes.
const FIRST: u64 = 1;
/// It holds one empty batch.
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
    let mut uuid = read_lock(&*disk)?;
    if !names.manifest {
        // Creation was cut short, or has just begun.
        expect_unfinished(&*disk, uuid, &names)?;
        // Written again if it is there: after a sync that failed it may be in the cache alone.
        uuid = Some(write_lock(&*disk, uuid.unwrap_or_else(random_bytes))?);
    }
    let uuid = uuid.ok_or_else(|| Error::corrupt(disk.path_of(LOCK), "it is missing"))?;
    if !disk.lock(LOCK).map_err(|error| Error::io("lock", disk.path_of(LOCK), error))? {
        return Err(Error::Locked { path: disk.path().into() });
    }
    let manifest = match Manifest::read(&*disk)? {
        Some(manifest) if manifest.uuid == uuid => manifest,
        Some(_) => {
            return Err(Error::foreign(disk.path_of(MANIFEST), "it has another store's uuid"));
        }
        None => begin(&*disk, uuid, &settings, &names)?,
    };
    if manifest.next_generation == FIRST + 1 {
        // As with `LOCK`: nothing may be built on a first one that the cache alone has.
        manifest.write(&*disk).map_err(Trouble::into_error)?;
    }
    let names = Names::list(&*disk)?;
    let found = Found::read(&*disk, &manifest, &names)?;
    found.resume(disk, settings, manifest, &names)
}

/// A directory without a `MANIFEST` is that of a store whose creation was cut short, or empty.
fn expect_unfinished(disk: &dyn Disk, uuid: Option<[u8; 16]>, names: &Names) -> Result<()> {
    let Some(uuid) = uuid else { return names.expect_none_but_leftovers(disk) };
    let missing = || Error::corrupt(disk.path_of(MANIFEST), "it is missing");
    if !names.segments.is_empty() || names.logs.iter().any(|generation| *generation != FIRST) {
        return Err(missing());
    }
    if names.logs.contains(&FIRST) && Log::open(disk, FIRST, uuid)?.size != SEED_LOG_BYTES {
        return Err(missing());
    }
    Ok(())
}

/// Makes the first log, again if creation was cut short, and says what `MANIFEST` will.
fn begin(disk: &dyn Disk, uuid: [u8; 16], settings: &Settings, names: &Names) -> Result<Manifest> {
    let name = log_name(FIRST);
    remove_leftover(disk, &name)
        .map_err(|error| Error::io("remove", disk.path_of(&name), error))?;
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
    Ok(manifest)
}

/// What is listed, opened and proved to be ours.
struct Found {
    segments: Vec<Arc<Segment>>,
    /// The chain of started logs, oldest first, each with what it holds.
    chain: Vec<Walked>,
    /// Listed logs outside the chain.
    unused: Vec<Arc<Log>>,
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
        let chain = chain::read(disk, manifest, &mut logs)?;
        let is_older = || {
            let reason = "it is an older one: there are files that came after it";
            Err(Error::corrupt(disk.path_of(MANIFEST), reason))
        };
        // Unlisted files of ours are leftovers; another store's are not ours to remove.
        for generation in names.logs.iter().filter(|log| !manifest.logs.contains(log)) {
            let log = Log::open(disk, *generation, manifest.uuid)?;
            // Logs are listed before their first batch.
            if *generation >= manifest.next_generation && log.is_started()? {
                return is_older();
            }
        }
        let listed = |generation: &u64| {
            manifest.segments.iter().any(|segment| segment.generation == *generation)
        };
        for generation in names.segments.iter().filter(|generation| !listed(generation)) {
            Segment::expect_ours(disk, *generation, manifest.uuid)?;
            if *generation >= manifest.next_generation {
                return is_older();
            }
        }
        Ok(Self { segments: segments?, chain, unused: logs.into_values().collect() })
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
        let claims = chain::open_claims(&chain);
        let mut newest = chain.pop().expect("a chain has a newest log");
        let last = newest.last.take().expect("the newest log was walked to its last batch");
        let anchor = last.head.anchor;
        let timeline =
            Timeline::resume(Arc::clone(&settings.clock), anchor, settings.trusted_downtime);

        names.remove_temporaries(&*disk);
        manifest.next_generation = manifest.next_generation.max(names.max_generation() + 1);
        let needed = needed(&last, &claims);
        let size = settings.log_bytes.max(needed);
        let (log, is_new) = match create_log(&*disk, &mut manifest, size) {
            // The prepared one is there for this, and was none of what is left.
            Err(error) if error.is_full() => {
                match take_prepared(&mut unused, newest.log.generation, needed) {
                    Some(log) => (log, false),
                    None => (create_log(&*disk, &mut manifest, MIN_BYTES.max(needed))?, true),
                }
            }
            created => (created?, true),
        };
        let generation = log.generation;
        list(&*disk, &mut manifest, &log, is_new)?;

        let replaces = last.head.sequence == newest.start.map_or(0, |start| start.sequence) + 1;
        let start = if replaces { newest.start } else { Some(newest.end) };
        let mut tail = Tail::new(log, last.head.sequence - 1);
        repeat(&last, start, &mut tail, manifest.uuid)?;
        if replaces {
            unused.push(newest.log);
        } else {
            chain.push(newest);
        }
        manifest.logs = chain.iter().map(|walked| walked.log.generation).collect();
        manifest.logs.push(generation);
        manifest.write(&*disk).map_err(Trouble::into_error)?;

        let snapshot = Snapshot {
            logs: std::iter::once(Arc::clone(&tail.log))
                .chain(chain.iter().rev().map(|walked| Arc::clone(&walked.log)))
                .collect(),
            segments,
        };
        let frozen_bytes: u64 = chain.iter().map(|walked| walked.end.offset).sum();
        let ledger = Ledger {
            uuid: manifest.uuid,
            timeline,
            claims: Mutex::new(Claims::new(&settings)),
            space: Arc::new(Space::default()),
            snapshot: RwLock::new(Arc::new(snapshot)),
            handles: Handles::default(),
            manifest: Mutex::new(manifest),
            segment_lookups: AtomicU64::new(0),
            next: Mutex::new(None),
            unlisted: AtomicU64::default(),
            frozen_bytes: AtomicU64::new(frozen_bytes),
            max_frozen: MAX_FROZEN.max(frozen_bytes.div_ceil(settings.log_bytes)),
            max_logs: chain.len() + MAX_MORE_LOGS,
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
                let _ = self.disk.remove(&segment_name(*generation));
            }
        }
        for generation in &names.logs {
            let used = unused.iter().any(|log| log.generation == *generation);
            if !used && !manifest.logs.contains(generation) {
                let _ = self.disk.remove(&log_name(*generation));
            }
        }
        unused.into_iter().map(Retired::Log).collect()
    }
}

/// The log that was made ready to be the next: it is newer than all that hold a batch.
fn take_prepared(unused: &mut Vec<Arc<Log>>, newest: u64, size: u64) -> Option<Arc<Log>> {
    let prepared = unused.iter().position(|log| log.generation > newest && log.size >= size)?;
    Some(unused.swap_remove(prepared))
}

/// Lists a log beside what is listed already, and has to stay so until the last batch is repeated: that
/// may be in the cache alone, and on the disk only in a log that the newest one had replaced.
fn list(disk: &dyn Disk, manifest: &mut Manifest, log: &Log, is_new: bool) -> Result<()> {
    manifest.logs.retain(|listed| *listed != log.generation);
    manifest.logs.push(log.generation);
    manifest.write(disk).map_err(|trouble| {
        if is_new && !trouble.is_fatal() {
            // The next opening needs its room. What cannot be removed is a leftover.
            let _ = disk.remove(&log.name);
        }
        trouble.into_error()
    })
}

fn create_log(disk: &dyn Disk, manifest: &mut Manifest, size: u64) -> Result<Arc<Log>> {
    let log = Log::create(disk, manifest.next_generation, manifest.uuid, size)?;
    disk.sync().map_err(|error| Error::io("sync", disk.path(), error))?;
    manifest.next_generation += 1;
    Ok(Arc::new(log))
}

/// What a log must have room for to begin with.
fn needed(last: &Batch, claims: &[(Address, OpenClaim)]) -> u64 {
    let claims = needed_for(claims.iter().map(|(address, claim)| (address, claim)));
    (u64::from(last.head.length) + claims).next_multiple_of(PAGE)
}

/// Appends the last batch again, under its sequence and with its times, behind a start entry.
fn repeat(last: &Batch, start: Option<End>, tail: &mut Tail, uuid: [u8; 16]) -> Result<()> {
    let mut batch = BatchBuilder::new();
    batch.push(&Encoded::new(None, &Entry::Start(start)));
    let is_start = chain::start_of_batch(last).is_some();
    for frame in last.frames().skip(usize::from(is_start)) {
        batch.push_bytes(frame.digest, frame.bytes);
    }
    let offset = tail.append(&mut batch, last.head.anchor)?;
    let repeated = tail.log.batch_at(offset)?;
    let repeated = repeated.ok_or_else(|| tail.log.broken("its first batch does not read back"))?;
    // Claims are carried over by the next batch.
    chain::enter(&tail.log, offset, &repeated, &mut Vec::new(), uuid)
}
