//! Logs and segments together: the files of a store, and the lookup of a key in them.
//!
//! ```text
//!   writer ──append──► active log ──full──► frozen logs ──reaper seals──► segments ──expire─► gone
//!                          │                     │                            │
//!                          └──────────── one immutable snapshot ──────────────┘
//!                                                ▲
//!                                   lookups, newest file first
//! ```
//!
//! The writer rotates, the reaper prepares, seals, expires and frees, and callers look up; opening
//! a store is in `recovery`.
//!
//! Invariants:
//! - A log or segment is in the snapshot for as long as it may hold the latest entry of a key.
//! - `MANIFEST` lists a log before anything in it is served, and lists a segment before it drops the
//!   logs that the segment took over. A listed file that is missing is therefore damage.
//! - Of the mutexes, `preparing` is taken first, then `next` or the one of the claims, then the one of
//!   `MANIFEST`, and then the one in [`Space`]; no others are held together. Wakers run outside all
//!   of them.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Moment, Timeline};
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, DiskFile, Pool};
use crate::engine::entry::Found;
pub(crate) use crate::engine::log::Frozen;
use crate::engine::log::{Log, Tail};
use crate::engine::segment::Handles;
pub(crate) use crate::engine::settings::Settings;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::key::{Address, Scope};
use crate::observe;
use crate::record::Record;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, OnceLock, RwLock};

mod admission;
mod backlog;
mod backup;
mod chain;
mod claims;
mod creation;
mod first_log;
mod held;
mod latest;
mod listing;
mod manifest;
mod merge;
mod names;
mod notes;
mod preparation;
mod purge;
mod recovery;
mod repeated;
mod retired;
mod room;
mod rotation;
mod salvage;
mod seal;
mod segments;
mod sieve;
mod size;
mod space;
mod values;
mod verification;

pub(crate) use backup::UNFINISHED;
pub(crate) use claims::{Claims, OpenClaim};
use held::Held;
pub(crate) use listing::Listing;
use manifest::Manifest;
pub(crate) use manifest::{LOCK, MANIFEST};
pub(crate) use recovery::{Opened, open};
pub(crate) use retired::Retired;
pub(crate) use salvage::salvage;
pub(crate) use seal::reap_interval;
pub(crate) use segments::Segments;
pub(crate) use space::{Admission, MAX_KEY_PAGES, Reservation, Space, Turn};

/// Logs that may be added to those that a store had when it was opened, however little is in each.
const MAX_MORE_LOGS: usize = 6;

/// The files of an open store.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) disk: Arc<Pool>,
    pub(crate) uuid: [u8; 16],
    /// The key of the digests of everything that is written.
    pub(crate) digests: DigestKey,
    pub(crate) settings: Settings,
    pub(crate) timeline: Timeline,
    pub(crate) claims: Mutex<Claims>,
    claim_count: Arc<AtomicUsize>,
    /// The logs that are not sealed for the claims in them, if the opening had no room to carry those.
    held: Mutex<Option<Held>>,
    pub(crate) space: Arc<Space>,
    snapshot: RwLock<Arc<Snapshot>>,
    handles: Handles,
    manifest: Mutex<Manifest>,
    /// The error after which it is unknown which `MANIFEST` is on disk.
    manifest_failure: OnceLock<Error>,
    /// Of `LOCK` and `MANIFEST`, those that were damaged in part when the store was opened.
    damaged_lists: usize,
    /// The longest TTL that any entry can have.
    longest_ttl: Duration,
    /// Lookups that a segment's filter let through.
    pub(crate) segment_lookups: AtomicU64,
    /// A prepared log, ready to become the active one.
    next: Mutex<Option<Arc<Log>>>,
    /// Held while a log is prepared, which the writer and the reaper both do: logs that could not be
    /// listed, to be used again.
    preparing: Mutex<Vec<Retired>>,
    /// Set while a purge is under way.
    purging: AtomicBool,
    /// Held while the notes of operators are written or read.
    noting: Mutex<()>,
    /// The size of log that the load suggests, a power of two.
    load_bytes: AtomicU64,
    /// The generation of the next log. `MANIFEST` may be behind, because some belong to logs that
    /// could not be listed on a full disk.
    next_generation: AtomicU64,
    /// The backups under way, which need all files that were listed when they began.
    backups: AtomicUsize,
    /// No log is frozen for its age while there are more logs than this, however little is in each.
    max_logs: usize,
}

/// The files that may hold the latest entry of a key, newest first. It is immutable, and swapped
/// whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) logs: Vec<Arc<Log>>,
    pub(crate) segments: Segments,
}

impl Ledger {
    /// The ledger of a store whose files are all open: those in the snapshot, which `manifest`
    /// lists, `frozen` being the snapshot's logs but the active one. It has no claims yet.
    fn new(
        disk: Arc<Pool>,
        settings: Settings,
        timeline: Timeline,
        manifest: Manifest,
        snapshot: Snapshot,
        frozen: &[Frozen],
    ) -> Self {
        let frozen_bytes: u64 = frozen.iter().map(|frozen| frozen.end.offset).sum();
        let space = Arc::new(Space::new(settings.log_bytes, frozen_bytes));
        let claims = Claims::new(&settings, Arc::clone(&space));
        Self {
            uuid: manifest.uuid,
            digests: manifest.digests,
            timeline,
            claim_count: claims.count(),
            claims: Mutex::new(claims),
            held: Mutex::default(),
            space,
            snapshot: RwLock::new(Arc::new(snapshot)),
            handles: Handles::default(),
            next_generation: AtomicU64::new(manifest.next_generation),
            longest_ttl: Duration::from_millis(manifest.longest_ttl),
            manifest: Mutex::new(manifest),
            manifest_failure: OnceLock::new(),
            damaged_lists: 0,
            segment_lookups: AtomicU64::new(0),
            next: Mutex::new(None),
            preparing: Mutex::default(),
            purging: AtomicBool::new(false),
            noting: Mutex::default(),
            load_bytes: AtomicU64::default(),
            backups: AtomicUsize::default(),
            max_logs: frozen.len() + MAX_MORE_LOGS,
            disk,
            settings,
        }
    }

    /// Returns the files as they are now. Files in a snapshot stay readable until it is dropped.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read())
    }

    /// Replaces the snapshot by a changed copy. Lookups under way keep the old one.
    fn update_snapshot(&self, update: impl FnOnce(&mut Snapshot)) {
        let mut current = self.snapshot.write();
        let mut snapshot = Snapshot::clone(&current);
        update(&mut snapshot);
        *current = Arc::new(snapshot);
    }

    /// Returns the record of an address, unless it has expired. The latest entry decides: one that
    /// has expired still hides older ones.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the entry, or the proof that there is none, is damaged, and
    /// [`Error::Io`] if a file cannot be read.
    pub(crate) fn find(&self, address: &Address) -> Result<Option<Record>> {
        let snapshot = self.snapshot();
        for log in &snapshot.logs {
            if let Some(found) = log.find(address)? {
                return Ok(self.live(found));
            }
        }
        for segment in snapshot.segments.that_may_hold(address) {
            self.segment_lookups.fetch_add(1, Ordering::Relaxed);
            observe::looked_up();
            match segment.find(&self.handles, address)? {
                Some(Found::Damaged { until }) if until > self.timeline.now() => {
                    return Err(segment.broken("the record of this key is damaged"));
                }
                Some(found) => return Ok(self.live(found)),
                None => {}
            }
        }
        Ok(None)
    }

    /// Returns true if a lookup of an address goes on to a segment. What the logs hold was written a
    /// short time ago, and the system still has it in memory.
    pub(crate) fn asks_segments(&self, address: impl FnOnce() -> Address) -> bool {
        let Snapshot { logs, segments } = &*self.snapshot();
        if segments.is_empty() {
            return false;
        }
        let address = address();
        logs.iter().all(|log| log.location(address.hash).is_none())
            && !segments.that_may_hold(&address).is_empty()
    }

    /// Returns the moment at which everything has expired that is there now.
    pub(crate) fn longest_expiry(&self) -> Moment {
        self.timeline.now().plus(self.longest_ttl)
    }

    /// Returns a record that was found, unless it has expired.
    fn live(&self, found: Found) -> Option<Record> {
        match found {
            Found::Record(record) if record.expiry() > self.timeline.now() => Some(record),
            Found::Record(_) | Found::Forgotten | Found::Damaged { .. } => None,
        }
    }

    /// Checks that the directory, the lock file and the active log are still in place: an operator
    /// may have moved the store, and started another there.
    ///
    /// # Errors
    ///
    /// A transient one while the path leads elsewhere, and a fatal one if the directory has lost its
    /// `LOCK` or its active log.
    pub(crate) fn expect_ownership(&self, active: &Log) -> Result<(), Trouble> {
        let path = self.disk.path();
        let failed = |error| Trouble::Fatal(Error::io("look up", path, error));
        if self.disk.still_owns(&active.name, &*active.file).map_err(failed)? {
            return Ok(());
        }
        if self.disk.is_replaced(&active.name, &*active.file).map_err(failed)? {
            return Err(Trouble::Fatal(Error::foreign(
                path,
                "its files were removed or replaced while open",
            )));
        }
        Err(Trouble::Transient(Error::foreign(
            path,
            "it was moved away while open, and goes on once the path leads back",
        )))
    }

    /// Checks that a name still leads to the file that is open.
    fn expect_in_place(&self, name: &str, file: &dyn DiskFile) -> Result<()> {
        let path = self.disk.path_of(name);
        match self.disk.still_owns(name, file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::corrupt(path, "it was moved, removed or replaced")),
            Err(error) => Err(Error::io("look for", path, error)),
        }
    }

    /// Checks that there is a place for the claim that an operation becomes if its outcome is unknown.
    ///
    /// # Errors
    ///
    /// Those of [`Claims::expect_room`].
    pub(crate) fn expect_room_for_claim(&self, scope: Scope) -> Result<()> {
        if self.has_claims() { self.claims.lock().expect_room(scope) } else { Ok(()) }
    }

    /// Returns whether there are claims, so that those who have none do not meet at the mutex, which
    /// is the writer's too.
    fn has_claims(&self) -> bool {
        self.claim_count.load(Ordering::Acquire) > 0
    }

    /// Removes the claims that have expired, which makes room for new keys.
    pub(crate) fn expire_claims(&self) {
        self.claims.lock().expire(self.timeline.now());
        self.space.serve().wake();
    }

    /// Returns the durable claim on an address that has no verdict yet, unless it has expired.
    pub(crate) fn open_claim(&self, address: &Address) -> Option<OpenClaim> {
        if !self.has_claims() {
            return None;
        }
        let claim = self.claims.lock().get(address).cloned()?;
        (claim.expiry() > self.timeline.now()).then_some(claim)
    }

    /// Updates [`Space`] with the bytes that are left for verdicts.
    pub(crate) fn measure(&self, tail: &Tail) {
        self.space.measure(tail.end().offset, tail.room()).wake();
    }

    /// Returns the bytes that wait for sealing, in logs of the largest size, rounded up.
    pub(crate) fn backlog(&self) -> u64 {
        self.space.frozen().div_ceil(self.space.log_bytes())
    }

    /// Returns true if a log may be frozen for its age. One that is hardly written takes as many
    /// blocks as a full one, so their number is limited too.
    pub(crate) fn may_freeze_early(&self) -> bool {
        self.snapshot().logs.len() <= self.max_logs
    }

    /// Changes `MANIFEST`, first on disk, durably, and then in memory.
    ///
    /// # Errors
    ///
    /// A transient error leaves both as they were. After a fatal one it is unknown which of the two
    /// is on disk, and every later change fails with the same error: the other threads go on until
    /// they are told to stop.
    fn change_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<(), Trouble> {
        let mut manifest = self.manifest.lock();
        self.expect_known_manifest().map_err(Trouble::Fatal)?;
        let mut changed = manifest.clone();
        change(&mut changed);
        changed.write(&*self.disk).inspect_err(|trouble| {
            if let Trouble::Fatal(error) = trouble {
                self.manifest_failure.get_or_init(|| error.clone());
            }
        })?;
        *manifest = changed;
        Ok(())
    }

    /// Checks that the `MANIFEST` on disk is the one in memory.
    ///
    /// # Errors
    ///
    /// The error after which that is unknown.
    fn expect_known_manifest(&self) -> Result<()> {
        self.manifest_failure.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

#[cfg(test)]
mod tests;
