//! The log with which an opening begins, on a disk that may be full.
//!
//! ```text
//!  a log as large as usual ──full──► the log that was prepared before ──none──► a smaller one
//!                                                                                 │ full
//!                        once more, without what has expired ◄────────────────────┘
//! ```
//!
//! Invariants:
//! - A smaller log than usual leaves [`RESERVE_BYTES`] free for the next opening, or is the smallest
//!   that will do.
//! - The log is not listed yet: a crash makes it a leftover. `MANIFEST` has reserved its generation,
//!   so that no older one takes it for a stranger.
//! - `MANIFEST` stops listing a segment before that segment's files are removed.

use std::io;
use std::sync::Arc;

use crate::clock::Moment;
use crate::engine::disk::{Disk, RESERVE_BYTES, is_alone};
use crate::engine::log::{Log, PAGE};
use crate::engine::segment::Segment;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};

use super::chain::Found;
use super::manifest::Manifest;
use super::names::Names;
use super::repeated::Repeated;
use super::size::{size_for, sizes};

/// The log that an opening asks for.
pub(super) struct FirstLog<'a> {
    pub(super) disk: &'a dyn Disk,
    /// The generation of the newest started log.
    pub(super) follows: u64,
    /// The usual size, in bytes.
    pub(super) size: u64,
    /// The size that will do.
    pub(super) least: u64,
    /// Listed logs that hold nothing that counts.
    pub(super) unused: &'a mut Vec<Arc<Log>>,
    pub(super) segments: &'a mut Vec<Arc<Segment>>,
}

impl FirstLog<'_> {
    /// Makes the log of an opening, and reserves its generation in `MANIFEST`. If the disk is too full
    /// for that, it removes what has expired, and tries again.
    ///
    /// # Errors
    ///
    /// Those of the disk. That of a full one names the bytes that are needed.
    ///
    /// # Durability
    ///
    /// The log, its name and its generation in `MANIFEST` are durable when this returns.
    pub(super) fn reserve(
        mut self,
        manifest: &mut Manifest,
        names: &Names,
        now: Moment,
    ) -> Result<Arc<Log>> {
        let refused = match self.reserve_log(manifest) {
            Err(Trouble::Transient(error)) if error.is_full() => error,
            reserved => return reserved.map_err(Trouble::into_error),
        };
        match self.drop_expired(manifest, now) {
            // Not before: the `MANIFEST` that unlisted them may have been in the page cache alone.
            Ok(()) => names.remove_leftovers(self.disk, manifest, self.unused),
            // It needs a page for `MANIFEST`.
            Err(Trouble::Transient(_)) => {}
            Err(Trouble::Fatal(error)) => return Err(error),
        }
        match self.reserve_log(manifest) {
            Err(Trouble::Transient(error)) if error.is_full() => {
                Err(refused.with_needed(self.least + manifest.file_bytes()))
            }
            reserved => reserved.map_err(Trouble::into_error),
        }
    }

    /// Makes a log of the usual size, or takes the one that was prepared before, or makes a smaller
    /// one.
    fn reserve_log(&mut self, manifest: &mut Manifest) -> Result<Arc<Log>, Trouble> {
        let mut outcome = self.create(self.size, manifest);
        if !is_refused(&outcome) {
            return outcome;
        }
        // It needs no free space, unless this is a sparse copy.
        if let Some(log) = self.take_preallocated().map_err(Trouble::Fatal)? {
            return reserve(self.disk, manifest, log);
        }
        for size in sizes(self.size, self.least).skip(1) {
            if is_refused(&outcome) {
                outcome = self.create(size, manifest);
            }
        }
        outcome
    }

    /// Makes a log of this size, if the next opening has room then too, or if it must be.
    fn create(&self, size: u64, manifest: &mut Manifest) -> Result<Arc<Log>, Trouble> {
        if size > self.least && !has_room(self.disk, size) {
            let full = io::ErrorKind::StorageFull.into();
            return Err(Trouble::Transient(Error::io("make a log in", self.disk.path(), full)));
        }
        create(self.disk, manifest, size)
    }

    /// Takes out the log that was prepared before the store stopped, with all of its blocks: it is
    /// newer than all started logs.
    fn take_preallocated(&mut self) -> Result<Option<Arc<Log>>> {
        let (newest, least) = (self.follows, self.least);
        let is_fit = |log: &Arc<Log>| {
            let is_whole = log.is_current() && !log.is_header_damaged();
            log.generation > newest && log.size >= least && is_whole && is_alone(&*log.file)
        };
        let Some(position) = self.unused.iter().position(is_fit) else { return Ok(None) };
        match self.unused[position].allocate() {
            Err(error) if error.is_full() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(Some(self.unused.swap_remove(position))),
        }
    }

    /// Drops the segments whose last record has expired, and removes their files.
    ///
    /// # Durability
    ///
    /// The list without them is durable when this returns.
    fn drop_expired(&mut self, manifest: &mut Manifest, now: Moment) -> Result<(), Trouble> {
        let is_live = |segment: &Arc<Segment>| segment.latest_expiry() > now;
        let mut changed = manifest.clone();
        changed.segments.retain(|listed| Moment(listed.latest_expiry) > now);
        changed.write(self.disk)?;
        *manifest = changed;
        for segment in self.segments.extract_if(.., |segment| !is_live(segment)) {
            let logs = segment.values.iter().map(|log| &log.name);
            for name in logs.chain([&segment.name]) {
                // What cannot be removed is a leftover.
                let _ = self.disk.remove(name);
            }
        }
        Ok(())
    }
}

/// Returns true if the disk was too full.
fn is_refused(outcome: &Result<Arc<Log>, Trouble>) -> bool {
    matches!(outcome, Err(Trouble::Transient(error)) if error.is_full())
}

/// Returns true if the next opening has room too beside a new file of this size.
pub(super) fn has_room(disk: &dyn Disk, size: u64) -> bool {
    disk.free_bytes().unwrap_or(u64::MAX) >= size.saturating_add(RESERVE_BYTES)
}

/// Creates a log of the next generation, and reserves that in `MANIFEST`.
///
/// # Errors
///
/// After a transient one the log is gone, and `manifest` is as before.
///
/// # Durability
///
/// The log, its name and its generation in `MANIFEST` are durable when this returns.
fn create(disk: &dyn Disk, manifest: &mut Manifest, size: u64) -> Result<Arc<Log>, Trouble> {
    let log = Log::create(disk, manifest.next_generation, manifest.identity(), size);
    let log = log.map_err(Trouble::classify)?;
    let synced = disk.sync().map_err(|error| Error::io("sync", disk.path(), error));
    synced.map_err(Trouble::Fatal)?;
    let name = log.name.clone();
    reserve(disk, manifest, Arc::new(log)).inspect_err(|trouble| {
        if !trouble.is_fatal() {
            // The next attempt needs its space. A file that cannot be removed is a leftover.
            let _ = disk.remove(&name);
        }
    })
}

/// Reserves the generation of a log in `MANIFEST`, which does not list the log from now on.
///
/// # Errors
///
/// Those of [`Manifest::write`]; `manifest` is as before then.
fn reserve(disk: &dyn Disk, manifest: &mut Manifest, log: Arc<Log>) -> Result<Arc<Log>, Trouble> {
    let mut changed = manifest.clone();
    changed.next_generation = changed.next_generation.max(log.generation + 1);
    // One that was prepared is listed until now. All others stay: any of them may count.
    changed.logs.retain(|listed| *listed != log.generation);
    changed.write(disk)?;
    *manifest = changed;
    Ok(log)
}

/// The bytes of the log of an opening.
pub(super) struct Needed {
    /// For the repeated batches, and one for the time unless they have it.
    pub(super) least: u64,
    /// For the claims that are carried behind them too.
    pub(super) carried: u64,
    /// For verdicts on those claims too.
    pub(super) comfort: u64,
}

impl Needed {
    /// The bytes for these batches, and for the claims behind them.
    pub(super) fn of(repeated: &Repeated, claims: &[Found], has_time: bool) -> Self {
        let carried: u64 = claims.iter().map(|found| found.claim.carried_bytes()).sum();
        let verdicts = claims.len() as u64 * PAGE;
        let bytes = repeated.bytes();
        Self {
            least: PAGE + bytes + if has_time { 0 } else { PAGE },
            carried: size_for(carried) + bytes,
            comfort: size_for(2 * carried) + verdicts + bytes,
        }
    }
}
