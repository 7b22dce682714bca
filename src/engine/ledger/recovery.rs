//! Opening a store: proving that its files are ours and whole, and starting a new log.
//!
//! Every opening, after a clean stop or a crash, does the same (rules 1 to 5 of `docs/format.md`).
//! The newest started log is read up to the first place where nothing verifies, and each of its
//! predecessors to exactly the end that its successor names. Then a new log begins by
//! [repeating](super::repeated) the last batch.
//!
//! Invariants:
//! - Nothing is served before the last batch is repeated durably: that batch alone may be in the
//!   page cache and not on disk.
//! - Nothing is removed before every listed file has proved to be this store's, and whole.
//! - The generation of the new log is reserved in `MANIFEST` before its first batch is written, and
//!   the log is listed once the repeated batches are durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::{Timeline, millis};
use crate::engine::disk::{Disk, Pool};
use crate::engine::log::{BatchBuilder, Frozen, Log, Tail};
use crate::engine::segment::Segment;
use crate::engine::settings::Settings;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::key::random_bytes;
use crate::observe;

use super::chain::{self, Found, Walked};
use super::creation::{self, FIRST};
use super::first_log::{FirstLog, Needed, has_room};
use super::manifest::{LOCK, MANIFEST, Manifest, is_damaged_lock, read_lock, write_lock};
use super::names::Names;
use super::repeated::Repeated;
use super::retired::Retired;
use super::{Ledger, Snapshot};

/// The part of a listed file that a salvage loses.
const KEYS: &str = "the keys in what is damaged";

/// An open store: its files, and the place where the writer goes on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) ledger: Ledger,
    pub(crate) tail: Tail,
    /// Logs that wait for sealing, oldest first.
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) retired: Vec<Retired>,
}

/// Opens the store in a directory, or creates one if the directory is empty.
///
/// # Errors
///
/// [`Error::Locked`], [`Error::Foreign`], [`Error::Newer`], [`Error::Corrupt`] and [`Error::Io`];
/// no file of the store has been removed then.
///
/// # Durability
///
/// All that the store serves is durable when this returns.
pub(crate) fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<Opened> {
    let disk = Pool::new(disk);
    // A name that is only in the page cache could vanish after the store has relied on it.
    disk.sync().map_err(|error| Error::io("sync", disk.path(), error))?;
    let names = Names::list(&*disk)?;
    let (uuid, is_lock_damaged) = lock(&*disk, &names)?;
    let is_manifest_damaged = names.manifest && !Manifest::is_whole(&*disk).unwrap_or(false);
    let manifest = Manifest::read(&*disk);
    let manifest = match manifest.map_err(|error| error.or_damage().or_salvage("no record"))? {
        Some(manifest) if manifest.uuid == uuid => manifest,
        Some(_) => {
            return Err(Error::foreign(disk.path_of(MANIFEST), "it has another store's uuid"));
        }
        None => {
            observe::created(disk.path());
            creation::create(&*disk, uuid, &settings, &names)?
        }
    };
    if manifest.next_generation == FIRST + 1 {
        // As with `LOCK`: a first `MANIFEST` may exist only in the page cache.
        manifest.write(&*disk).map_err(Trouble::into_error)?;
    }
    let names = Names::list(&*disk)?;
    let listed = Listed::open(&disk, &manifest, &names)?;
    let mut opened = listed.resume(disk, settings, manifest, &names)?;
    names.remove_backup_marker(&*opened.ledger.disk);
    opened.ledger.damaged_lists = usize::from(is_lock_damaged) + usize::from(is_manifest_damaged);
    Ok(opened)
}

/// Takes the lock on the store, and returns its uuid, and whether `LOCK` is damaged; it is created if
/// there is no store yet.
fn lock(disk: &dyn Disk, names: &Names) -> Result<([u8; 16], bool)> {
    let mut is_damaged = false;
    let mut uuid = read_lock(disk).or_else(|error| {
        // `MANIFEST` names the store too.
        let manifest = Manifest::read(disk).ok().flatten();
        let Some(uuid) = manifest.map(|manifest| manifest.uuid) else {
            return Err(error.or_salvage("no record"));
        };
        is_damaged = is_damaged_lock(disk, uuid);
        if is_damaged { Ok(Some(uuid)) } else { Err(error.or_damage().or_salvage("no record")) }
    })?;
    if !names.manifest && names.is_unfinished_backup() {
        return Err(Error::foreign(disk.path(), "it is a backup that was cut short: remove it"));
    }
    if !names.manifest {
        // Creation was cut short, or has not begun.
        creation::expect_unfinished(disk, uuid, names)?;
        // Written even if it exists: after a failed sync it may be only in the page cache.
        uuid = Some(write_lock(disk, uuid.unwrap_or_else(random_bytes))?);
    }
    let missing = || Error::corrupt(disk.path_of(LOCK), "it is missing").or_salvage("no record");
    let uuid = uuid.ok_or_else(missing)?;
    match disk.lock(LOCK) {
        Ok(true) => Ok((uuid, is_damaged)),
        Ok(false) => Err(Error::Locked { path: disk.path().into() }),
        Err(error) => Err(Error::io("lock", disk.path_of(LOCK), error)),
    }
}

/// The files that `MANIFEST` lists, opened and verified to be this store's.
struct Listed {
    /// Newest first.
    segments: Vec<Arc<Segment>>,
    /// The chain of started logs, oldest first, each with its content read.
    chain: Vec<Walked>,
    /// Listed logs outside the chain.
    unused: Vec<Arc<Log>>,
}

impl Listed {
    /// Opens the listed files, and checks that unlisted ones are leftovers.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Foreign`], [`Error::Newer`] and [`Error::Io`]; nothing has been
    /// removed.
    fn open(disk: &Arc<Pool>, manifest: &Manifest, names: &Names) -> Result<Self> {
        let segments = manifest.segments.iter().rev();
        let segments: Result<Vec<_>> = segments
            .map(|meta| Segment::open(disk, meta, manifest.digests).map(Arc::new))
            .map(|segment| segment.map_err(|error| error.or_salvage(KEYS)))
            .collect();
        let mut logs = BTreeMap::new();
        for generation in &manifest.logs {
            let log = Log::open(&**disk, *generation, manifest.identity());
            logs.insert(*generation, Arc::new(log.map_err(|error| error.or_salvage(KEYS))?));
        }
        let chain = chain::read(&**disk, manifest, &mut logs);
        let chain = chain.map_err(|error| error.or_salvage(KEYS))?;
        expect_leftovers(&**disk, manifest, names)?;
        Ok(Self { segments: segments?, chain, unused: logs.into_values().collect() })
    }

    /// Starts a new log behind the chain, and the store on it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] and [`Error::Io`].
    ///
    /// # Durability
    ///
    /// The new log and its first batches are durable when this returns.
    fn resume(
        mut self,
        disk: Arc<Pool>,
        settings: Settings,
        mut manifest: Manifest,
        names: &Names,
    ) -> Result<Opened> {
        let claims = chain::open_claims(&self.chain);
        let mut newest = self.chain.pop().expect("a chain has a newest log");
        let last = newest.last.take().expect("the newest log was walked to its last batch");
        let (clock, anchor) = (Arc::clone(&settings.clock), last.head.anchor);
        let timeline = Timeline::resume(clock, anchor, settings.trusted_downtime);
        let live = claims.iter().filter(|found| found.claim.expiry() > timeline.now());
        let live: Vec<Found> = live.cloned().collect();

        names.remove_temporaries(&*disk);
        manifest.longest_ttl = manifest.longest_ttl.max(millis(settings.ttl));
        manifest.next_generation = manifest.next_generation.max(names.max_generation() + 1);
        let is_nearly_full = !has_room(&*disk, settings.first_log_bytes);
        let free = disk.free_bytes().ok().filter(|_| is_nearly_full);
        let free = free.map(|free| free.saturating_sub(manifest.file_bytes()));
        let repeated = Repeated::of(&newest, last, &live, free);
        let has_time = repeated.has_time(&timeline, settings.anchor_age());
        let needed = Needed::of(&repeated, &live, has_time);
        let first = FirstLog {
            disk: &*disk,
            follows: newest.log.generation,
            size: settings.first_log_bytes.max(needed.comfort.next_power_of_two()),
            least: needed.least,
            unused: &mut self.unused,
            segments: &mut self.segments,
        };
        let log = first.reserve(&mut manifest, names, timeline.now())?;
        let mut tail = repeated.write(log, manifest.identity())?;
        if repeated.replaces {
            self.unused.push(newest.log);
        } else {
            self.chain.push(newest);
        }
        manifest.logs = self.chain.iter().map(|walked| walked.log.generation).collect();
        manifest.logs.push(tail.log.generation);
        manifest.write(&*disk).map_err(Trouble::into_error)?;

        let unused = std::mem::take(&mut self.unused);
        let (ledger, frozen) = self.into_ledger(disk, settings, timeline, manifest, &tail);
        {
            let mut open = ledger.claims.lock();
            claims.into_iter().for_each(|found| open.insert(found.address, found.claim));
            open.allow_for_found();
        }
        let fits = tail.log.size >= needed.carried;
        if !fits && !repeated.holds_claims {
            ledger.hold(&live, &tail);
        }
        if !has_time || (fits && !repeated.holds_claims) {
            // It ties engine time to this boot too, so that a second opening continues this one's time.
            let (mut batch, anchor) = (BatchBuilder::new(), ledger.timeline.anchor());
            if fits {
                ledger.carry(&mut tail, &mut batch, anchor)?;
            } else {
                tail.append(&mut batch, anchor)?;
            }
        }
        ledger.measure(&tail);
        names.remove_leftovers(&*ledger.disk, &ledger.manifest.lock(), &unused);
        let retired = unused.into_iter().map(Retired::Log).collect();
        Ok(Opened { ledger, tail, frozen, retired })
    }

    /// Returns the ledger of these files and of the log that the opening has begun, and the logs that
    /// wait for sealing.
    fn into_ledger(
        self,
        disk: Arc<Pool>,
        settings: Settings,
        timeline: Timeline,
        manifest: Manifest,
        tail: &Tail,
    ) -> (Ledger, Vec<Frozen>) {
        let frozen: Vec<Frozen> = self.chain.into_iter().map(Walked::into_frozen).collect();
        let older = frozen.iter().rev().map(|frozen| &frozen.log);
        let logs = std::iter::once(&tail.log).chain(older).map(Arc::clone).collect();
        let snapshot = Snapshot { logs, segments: self.segments.into() };
        let ledger = Ledger::new(disk, settings, timeline, manifest, snapshot, &frozen);
        (ledger, frozen)
    }
}

/// Checks that unlisted logs and segments are leftovers of this store.
///
/// # Errors
///
/// [`Error::Foreign`] for another store's file, which is not ours to remove, and [`Error::Corrupt`]
/// if `MANIFEST` is older than the files beside it.
fn expect_leftovers(disk: &dyn Disk, manifest: &Manifest, names: &Names) -> Result<()> {
    let is_older = || {
        let reason = "it is an older copy: there are files that came after it";
        Err(Error::corrupt(disk.path_of(MANIFEST), reason))
    };
    for generation in names.logs.iter().filter(|log| !manifest.lists_log(**log)) {
        // One that was kept for its records, until they expired, may be cut short.
        let log = Log::open_any(disk, *generation, manifest.identity())?;
        // Generations are reserved before a log's first batch.
        if *generation >= manifest.next_generation && log.is_started()? {
            return is_older();
        }
    }
    for generation in names.segments.iter().filter(|segment| !manifest.lists_segment(**segment)) {
        Segment::expect_ours(disk, *generation, manifest.uuid, manifest.digests)?;
        if *generation >= manifest.next_generation {
            return is_older();
        }
    }
    Ok(())
}
