//! The sizes of logs: small at first, and larger as the load asks for it.
//!
//! ```text
//!  writer ──half full──► reaper: the active log twice as large, the next one as what is written
//!  caller ──no room for a key──► the next log twice as large, by the caller itself
//! ```
//!
//! A log grows in place, and only while it is active or the next one. The bytes that were written
//! to the latest log tell the size of the one after the next, so logs are small again once a load
//! has ended.
//!
//! Invariants:
//! - A log grows by one thread at a time.
//! - No log is made larger than [`Ledger::ceiling`], but for claims and reservations that need it.
//! - A log that cannot grow for want of space stays as it is, and nothing has failed.
//! - Logs leave space on the disk for the next opening.
//! - Whoever finds too little room in a log that may grow lets it grow, also for those who wait: so
//!   that nobody waits for the reaper's next round.

use std::io;
use std::sync::Arc;

use crate::engine::entry::End;
use crate::engine::log::{Log, PAGE, Tail};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;

use super::Ledger;
use super::admission::Wakers;
use super::room::Next;
use super::size::{size_for, sizes, small, usable};
use super::space::{Admission, Reservation};
use crate::key::Scope;

/// The smallest log, in bytes, that is made if the disk is too full for a larger one, unless more
/// is needed.
const LEAST_LOG_BYTES: u64 = 8 * PAGE;
/// The bytes that logs leave free, so that the store opens again: for a small log, and `MANIFEST`.
const RESERVE_BYTES: u64 = 128 * 1024;
/// The fraction of the space that is free, or in logs, that one log may take: two are in use, some
/// wait for sealing, and the segment that takes them over needs space too.
const DISK_SHARE: u64 = 8;

impl Ledger {
    /// Returns the size of a log in a store without load.
    pub(crate) fn small(&self) -> u64 {
        small(self.settings.log_bytes)
    }

    /// Returns the size up to which logs grow: `log_bytes`, or less on a small disk.
    pub(crate) fn ceiling(&self) -> u64 {
        let free = self.free_bytes();
        let in_logs: u64 = self.snapshot().logs.iter().map(|log| log.size()).sum();
        let in_next = self.next.lock().as_ref().map_or(0, |next| next.size());
        let share = free.saturating_add(in_logs + in_next) / DISK_SHARE;
        share.next_multiple_of(PAGE).clamp(self.small(), self.settings.log_bytes)
    }

    /// Returns the bytes that are free on the disk. One that does not tell counts as large.
    fn free_bytes(&self) -> u64 {
        self.disk.free_bytes().unwrap_or(u64::MAX)
    }

    /// Checks that a log may take so many bytes of the disk.
    ///
    /// # Errors
    ///
    /// That of a full disk, if too little would be left.
    pub(super) fn expect_free(&self, bytes: u64) -> Result<()> {
        if self.free_bytes() >= bytes.saturating_add(RESERVE_BYTES) {
            return Ok(());
        }
        let full = io::ErrorKind::StorageFull.into();
        Err(Error::io("make room for logs in", self.disk.path(), full))
    }

    /// Returns the size up to which a next log may grow: the ceiling, or more if that is what the
    /// claims need that it begins with.
    fn most(&self) -> u64 {
        self.ceiling().max(size_for(2 * self.space.carried() + self.small() / 2))
    }

    /// Returns the size that the next log is to have: as much as the latest log took, with room for
    /// what is claimed and reserved.
    pub(super) fn suggested(&self) -> u64 {
        let latest = self.latest_bytes.load(Ordering::Acquire);
        let needed = size_for(2 * self.space.needed());
        needed.next_power_of_two().max(latest).max(self.small()).min(self.most())
    }

    /// Notes the end of a log that is frozen.
    pub(super) fn note_size(&self, log: &Log, end: End) {
        // A full log would have taken more.
        let was_full = end.offset > log.size() - log.size() / 4;
        let bytes = if was_full { 2 * log.size() } else { end.offset };
        self.latest_bytes.store(bytes.next_power_of_two(), Ordering::Release);
    }

    /// Creates a next log of `size` bytes, or a smaller one if the disk has too little space, down
    /// to what is claimed and reserved.
    pub(super) fn create_next(&self, generation: u64, size: u64) -> Result<Log> {
        let least = size_for(self.space.needed()).max(LEAST_LOG_BYTES);
        let create = |size| {
            self.expect_free(size)?;
            Log::create(&*self.disk, generation, self.identity(), size)
        };
        let free = self.free_bytes();
        for size in sizes(size, least) {
            // The segments that take over the logs need space too.
            if size > self.small() && free / 3 < size {
                continue;
            }
            match create(size) {
                Err(error) if error.is_full() && size > least => {}
                created => return created,
            }
        }
        create(least)
    }

    /// Makes the active log larger if it is half full, and the next log as large as what is written
    /// to the active one or asked for. The reaper calls this ahead of need.
    ///
    /// # Errors
    ///
    /// Those of [`Log::allocate`], but for a full disk.
    pub(crate) fn grow(&self) -> Result<(), Trouble> {
        let active = Arc::clone(&self.snapshot().logs[0]);
        let (size, written) = (active.size(), active.written());
        if written >= size / 2 {
            self.grow_log(&active, (2 * size).min(self.ceiling()))?;
        }
        let next = self.next.lock().clone();
        if let Some(next) = next
            && next.size() < written
        {
            self.grow_log(&next, written.next_power_of_two().min(self.ceiling()))?;
        }
        self.make_room(0);
        Ok(())
    }

    /// Makes room for a batch in the active log: at once, where the reaper was not ahead of need
    /// and no next log takes the batch.
    ///
    /// # Errors
    ///
    /// Those of [`Log::allocate`], but for a full disk.
    pub(crate) fn grow_active(&self, tail: &Tail, bytes: u64) -> Result<(), Trouble> {
        let size = tail.log.size();
        let needed = (tail.end + bytes + 3 * PAGE).next_multiple_of(PAGE);
        let most = self.ceiling().max(needed.min(self.settings.log_bytes));
        self.grow_log(&tail.log, needed.max(2 * size).min(most))
    }

    /// Makes a log larger, unless the disk is full.
    fn grow_log(&self, log: &Log, size: u64) -> Result<(), Trouble> {
        let grown = {
            let _turn = self.growth.lock();
            self.enlarge(log, size)
        };
        match grown {
            Ok(wakers) => wakers.wake(),
            Err(error) if error.is_full() => {}
            Err(error) => return Err(Trouble::classify(error)),
        }
        Ok(())
    }

    /// Makes a log larger, for the one whose turn it is, and its space available.
    fn enlarge(&self, log: &Log, size: u64) -> Result<Wakers> {
        let more = size.saturating_sub(log.size());
        if more == 0 {
            return Ok(Wakers::default());
        }
        self.expect_free(more)?;
        log.allocate(size)?;
        // A page goes to the record of the new length.
        self.space.grow(log.generation, more.saturating_sub(PAGE), || log.set_size(size));
        Ok(self.offer_next())
    }

    /// Makes the space of the next log available, or of the active one if none is prepared.
    pub(super) fn offer_next(&self) -> Wakers {
        // Under the mutex, so that the log is not the active one before its space is offered.
        let next = self.next.lock();
        match next.as_deref() {
            Some(log) => {
                let size = log.size();
                let can_grow = size < self.settings.log_bytes;
                self.space.set_next(Next { usable: usable(size), can_grow })
            }
            None => self.space.serve(),
        }
    }

    /// Reserves so many pages for a new key of a scope, or queues for them. If the log that has the
    /// reservations is too small, it grows first.
    ///
    /// # Errors
    ///
    /// Those of [`Space::admit`](super::Space::admit).
    pub(crate) fn admit(&self, scope: Scope, pages: u64) -> Result<Admission> {
        if let Some(room) = self.space.try_admit(pages) {
            return Ok(Admission::Granted(room));
        }
        self.make_room(pages * PAGE);
        let admission = self.space.admit(scope, pages)?;
        if matches!(admission, Admission::Queued(_)) {
            // The log may be another one than before.
            self.make_room(0);
        }
        Ok(admission)
    }

    /// Reserves a page for an entry of an operation that was admitted before, and further pages for
    /// `content` bytes. If the log that has the reservations is too small, it grows first.
    ///
    /// # Errors
    ///
    /// Those of [`Space::reserve`](super::Space::reserve).
    pub(crate) fn reserve(&self, content: u64) -> Result<Reservation> {
        self.make_room(PAGE + content.next_multiple_of(PAGE));
        self.space.reserve(content)
    }

    /// Makes the next log large enough for what is reserved, for those who wait, and for so many bytes
    /// more; or the active one while there is no next log. Those who wait are answered.
    pub(super) fn make_room(&self, bytes: u64) {
        while self.space.is_short(bytes) {
            let turn = self.growth.lock();
            // Another caller may have had the same need.
            let (wakers, is_done) = if self.space.is_short(bytes) {
                self.enlarge_for(bytes)
            } else {
                (Wakers::default(), true)
            };
            drop(turn);
            wakers.wake();
            if is_done {
                return;
            }
        }
    }

    /// Makes the next log larger, for the one whose turn it is, or the active one. Returns true if
    /// there is nothing more to be done.
    fn enlarge_for(&self, bytes: u64) -> (Wakers, bool) {
        let Some(next) = self.next.lock().clone() else {
            return self.enlarge_active_for(bytes);
        };
        let (needed, most) = (size_for(self.space.needed() + bytes), self.most());
        let size = needed.next_power_of_two().min(most);
        if size <= next.size() {
            // It has grown as far as it may; others must give room back.
            return (self.space.stop_growing(None), true);
        }
        match self.enlarge(&next, size) {
            Ok(wakers) => (wakers, needed <= most),
            Err(error) => (self.space.stop_growing(Some(error)), true),
        }
    }

    /// Makes the active log larger, if it can be. If not, those who wait go on waiting for the next
    /// log to be prepared.
    fn enlarge_active_for(&self, bytes: u64) -> (Wakers, bool) {
        let active = Arc::clone(&self.snapshot().logs[0]);
        let (size, ceiling) = (active.size(), self.ceiling());
        if size >= ceiling {
            return (Wakers::default(), true);
        }
        match self.enlarge(&active, (2 * size).max(size + bytes + PAGE).min(ceiling)) {
            Ok(wakers) => (wakers, false),
            Err(_) => (Wakers::default(), true),
        }
    }
}
