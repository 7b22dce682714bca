//! Preparing the next log, ahead of need and as large as the load asks for.
//!
//! ```text
//!  none is prepared ─────────────► create one, or recycle a retired log ──┐
//!  it is too small for what is                                            ▼
//!  reserved, or waits for room ──► create a larger one ──────► list it, and offer its space
//! ```
//!
//! Logs begin small. One that was filled is followed by a log twice as large, up to `log_bytes`; one
//! that was frozen for its age, by a log of the size that it took. So logs are small again once a
//! load has ended. No log changes its size.
//!
//! Invariants:
//! - A next log that is replaced by a larger one is unlisted as that one is listed: one of the two
//!   is always there.
//! - The space of a next log is offered only once all that is reserved has room in it.
//! - Logs leave space on the disk for the next opening.

use std::io;
use std::sync::Arc;

use crate::engine::disk::{Disk, RESERVE_BYTES};
use crate::engine::entry::End;
use crate::engine::log::{Log, PAGE};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;

use super::Ledger;
use super::admission::Wakers;
use super::retired::Retired;
use super::room::Next;
use super::size::{size_for, sizes, usable};

/// The smallest log, in bytes, that is made if the disk is too full for a larger one, unless more
/// is needed.
const LEAST_LOG_BYTES: u64 = 8 * PAGE;
/// The fraction of the space that is free, or in logs, that one log may take: two are in use, some
/// wait for sealing, and the segment that takes them over needs space too.
const DISK_SHARE: u64 = 8;

/// The sizes, in bytes, between which a log is to be prepared.
struct Wanted {
    size: u64,
    /// The size that is enough for what is reserved and for those who wait.
    enough: u64,
    /// The size of a smaller one, for a disk that is too full.
    least: u64,
    /// The size up to which no space is left for the segments that take over the logs.
    urgent: u64,
}

impl Ledger {
    /// Prepares and lists a next log, unless there is one that is large enough, and lets new keys in.
    /// A retired log of about the right size is recycled. The number of logs that wait for sealing
    /// does not matter: admission bounds them.
    ///
    /// # Errors
    ///
    /// After a transient error, admitted operations complete in the log that was prepared before, or
    /// in the rest of the active log.
    ///
    /// # Durability
    ///
    /// The log and its entry in `MANIFEST` are durable when this returns.
    pub(crate) fn prepare(&self, retired: &mut Vec<Retired>) -> Result<(), Trouble> {
        let mut unlisted = self.preparing.lock();
        retired.append(&mut unlisted);
        self.prepare_for(0, retired)
    }

    /// Replaces the next log by one that holds nothing of older logs, or prepares such a log. It is
    /// for purges, during which no log is recycled.
    ///
    /// # Errors
    ///
    /// Those of [`prepare`](Self::prepare); the next log is as it was.
    ///
    /// # Durability
    ///
    /// The log and its entry in `MANIFEST` are durable when this returns.
    pub(crate) fn prepare_clean(&self, retired: &mut Vec<Retired>) -> Result<(), Trouble> {
        {
            let _preparing = self.preparing.lock();
            let size = self.next.lock().as_ref().filter(|log| !log.is_clean()).map(|log| log.size);
            if let Some(size) = size {
                let wanted = Wanted { size, enough: size, least: size, urgent: size };
                let replaced = self.replace_next(&wanted, retired);
                self.offer_next().wake();
                replaced?;
            }
        }
        self.prepare(retired)
    }

    /// Prepares a next log on the caller's thread, with room for so many bytes besides what is
    /// reserved in it.
    ///
    /// # Errors
    ///
    /// Those of [`prepare`](Self::prepare).
    pub(crate) fn prepare_at_once(&self, bytes: u64) -> Result<(), Trouble> {
        let mut unlisted = self.preparing.lock();
        let mut retired = std::mem::take(&mut *unlisted);
        let outcome = self.prepare_for(bytes, &mut retired);
        unlisted.append(&mut retired);
        outcome
    }

    /// Prepares a next log, for the one who has the mutex of preparing.
    fn prepare_for(&self, bytes: u64, retired: &mut Vec<Retired>) -> Result<(), Trouble> {
        if self.space.is_prepared(bytes) {
            return Ok(());
        }
        let outcome = loop {
            let Some(wanted) = self.wanted(bytes) else { break Ok(()) };
            match self.replace_next(&wanted, retired) {
                // The disk has no space for a larger one.
                Ok(size) if size < wanted.enough => break Ok(()),
                Ok(_) => {}
                Err(trouble) => break Err(trouble),
            }
        };
        self.offer_next().wake();
        if let Err(Trouble::Transient(error)) = &outcome {
            self.space.fall_back(error.clone());
        }
        outcome
    }

    /// Returns the size of the log that is to be prepared, if the next one is missing or too small.
    fn wanted(&self, bytes: u64) -> Option<Wanted> {
        let (carried, demand) = self.space.demand();
        let needed = size_for(demand + bytes);
        // What must be carried into a log may need more than the usual maximum.
        let most = self.ceiling().max(size_for(2 * carried + bytes + self.spare()));
        let enough = needed.min(most);
        let urgent = self.settings.first_log_bytes;
        let likely = self.likely_size();
        let next = self.next.lock();
        match next.as_deref() {
            Some(next) if next.size >= enough => None,
            Some(next) => {
                let size = needed.next_power_of_two().min(most);
                Some(Wanted { size, enough, least: next.size + PAGE, urgent })
            }
            None => {
                // As much again for those that come meanwhile.
                let size = size_for(2 * (demand + bytes)).next_power_of_two();
                let size = size.max(likely).min(most);
                let least = size_for(demand).max(LEAST_LOG_BYTES).min(most);
                Some(Wanted { size, enough, least, urgent: urgent.max(least) })
            }
        }
    }

    /// Creates a log, or recycles one, and makes it the next one instead of the one that is there.
    /// Returns its size.
    fn replace_next(&self, wanted: &Wanted, retired: &mut Vec<Retired>) -> Result<u64, Trouble> {
        let generation = self.take_generation();
        let log = self.make_log(generation, wanted, retired);
        // The log is not listed yet, so nothing is lost with it.
        let log = log.map(Arc::new).map_err(Trouble::classify)?;
        self.sync_names().map_err(Trouble::Fatal)?;
        // Held while `MANIFEST` is written, so that neither of the two becomes the active log.
        let (mut next, size) = (self.next.lock(), log.size);
        let replaced = next.as_ref().map(|log| log.generation);
        let listed = self.change_manifest(|manifest| {
            manifest.next_generation = manifest.next_generation.max(generation + 1);
            manifest.logs.retain(|listed| Some(*listed) != replaced);
            manifest.logs.push(generation);
        });
        match listed {
            Ok(()) => retired.extend(next.replace(log).map(Retired::Log)),
            // The next attempt recycles the blocks under another generation. After a fatal error
            // the log may be listed, and must keep its name.
            Err(trouble) if !trouble.is_fatal() => {
                retired.push(Retired::Log(log));
                return Err(trouble);
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(size)
    }

    /// Creates a log that is not listed yet, or recycles one.
    fn make_log(
        &self,
        generation: u64,
        wanted: &Wanted,
        retired: &mut Vec<Retired>,
    ) -> Result<Log> {
        let needs_old_files = self.is_backed_up() || self.is_purging();
        let may_recycle = self.disk.overwrites_in_place() && !needs_old_files;
        let fits = |file: &Retired| file.is_recyclable(wanted.size, wanted.enough);
        let old = retired.iter().position(|file| may_recycle && fits(file));
        match old.map(|at| retired.swap_remove(at)) {
            Some(Retired::Log(old)) => {
                let zeroed = self.settings.zero_recycled;
                let recycle = if zeroed { Log::recycle_zeroed } else { Log::recycle };
                recycle(&*self.disk, &old, generation, self.identity())
            }
            _ => self.create_log(generation, wanted),
        }
    }

    /// Creates a log of the wanted size, or a smaller one if the disk has too little space.
    fn create_log(&self, generation: u64, wanted: &Wanted) -> Result<Log> {
        let free = self.free_bytes();
        let mut refused = None;
        for size in sizes(wanted.size, wanted.least) {
            // The segments that take over the logs need space too.
            if size > wanted.urgent && free / 3 < size {
                continue;
            }
            let created = self
                .expect_free(size)
                .and_then(|()| Log::create(&*self.disk, generation, self.identity(), size));
            match created {
                Err(error) if error.is_full() => refused = Some(error),
                created => return created,
            }
        }
        Err(refused.unwrap_or_else(|| self.full()))
    }

    /// Makes the space of the next log available, if all that is reserved has room in it.
    fn offer_next(&self) -> Wakers {
        let (ceiling, spare) = (usable(self.ceiling()), self.spare());
        // Under the mutex, so that the log is not the active one before its space is offered.
        let next = self.next.lock();
        let offered = next
            .as_deref()
            .and_then(|log| self.space.offer(Next { usable: usable(log.size), ceiling, spare }));
        offered.unwrap_or_default()
    }

    /// Returns the bytes that a log may have beside twice those of the open claims.
    fn spare(&self) -> u64 {
        self.settings.first_log_bytes / 2
    }

    /// Returns the size that the load suggests for the next log.
    pub(super) fn likely_size(&self) -> u64 {
        let load = self.load_bytes.load(Ordering::Acquire).max(self.settings.first_log_bytes);
        load.min(self.ceiling())
    }

    /// Returns the size up to which logs grow: `log_bytes`, or less on a small disk.
    pub(super) fn ceiling(&self) -> u64 {
        let in_logs: u64 = self.snapshot().logs.iter().map(|log| log.size).sum();
        let in_next = self.next.lock().as_ref().map_or(0, |next| next.size);
        let share = self.free_bytes().saturating_add(in_logs + in_next) / DISK_SHARE;
        share.next_multiple_of(PAGE).clamp(self.settings.first_log_bytes, self.settings.log_bytes)
    }

    /// Measures the disk again: on a smaller one, fewer bytes may wait for sealing. The caller seals
    /// next, because new keys may wait for that from now on.
    pub(crate) fn measure_disk(&self) {
        self.space.set_log_bytes(self.ceiling());
    }

    /// Notes the load that a log has seen, now that it is frozen: `asked` are the bytes that did
    /// not fit, or none if it was frozen for its age; `follower` is the size of the log that
    /// follows.
    pub(super) fn note_load(&self, log: &Log, end: End, asked: u64, follower: u64) {
        let bytes = if asked > 0 { 2 * log.size.max(follower).max(asked) } else { end.offset };
        self.load_bytes.store(bytes.next_power_of_two(), Ordering::Release);
    }

    /// Checks that a log may take so many bytes of the disk.
    ///
    /// # Errors
    ///
    /// That of a full disk, if too little would be left.
    pub(super) fn expect_free(&self, bytes: u64) -> Result<()> {
        let is_enough = self.free_bytes() >= bytes.saturating_add(RESERVE_BYTES);
        if is_enough { Ok(()) } else { Err(self.full()) }
    }

    /// The error of a disk without space for a log.
    fn full(&self) -> Error {
        Error::io("make room for logs in", self.disk.path(), io::ErrorKind::StorageFull.into())
    }

    /// Returns the bytes that are free on the disk. One that does not tell counts as large.
    fn free_bytes(&self) -> u64 {
        self.disk.free_bytes().unwrap_or(u64::MAX)
    }
}
