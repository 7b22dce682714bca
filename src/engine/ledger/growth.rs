//! The sizes of logs: small at first, and larger as the load asks for it.
//!
//! ```text
//!  writer ──half full──► reaper: the active log twice as large, the next one as what is written
//!  caller ──no room for a verdict──► the next log twice as large, by the caller itself
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

use std::io;
use std::sync::Arc;

use crate::engine::entry::End;
use crate::engine::log::{Log, PAGE, Tail};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;

use super::Ledger;
use super::size::{size_for, sizes, small};
use super::space::Reservation;

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
    fn expect_free(&self, bytes: u64) -> Result<()> {
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
            Log::create(&*self.disk, generation, self.uuid, size)
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
    /// to the active one. The reaper calls this ahead of need.
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
            self.admit_again();
        }
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
        let _turn = self.growth.lock();
        match self.enlarge(log, size) {
            Err(error) if !error.is_full() => Err(Trouble::classify(error)),
            _ => Ok(()),
        }
    }

    /// Makes a log larger, for the one whose turn it is.
    fn enlarge(&self, log: &Log, size: u64) -> Result<()> {
        let more = size.saturating_sub(log.size());
        if more == 0 {
            return Ok(());
        }
        self.expect_free(more)?;
        log.allocate(size)?;
        // A page goes to the record of the new length.
        self.space.grow(log.generation, more.saturating_sub(PAGE), || log.set_size(size));
        Ok(())
    }

    /// Reserves a page for an entry, and further pages for `content` bytes. If the log that takes
    /// the reservations is too small, it grows first.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if there is too little space, because the disk is full or sealing is behind,
    /// and [`Error::Io`] if the log cannot grow for another reason.
    pub(crate) fn reserve(&self, content: u64) -> Result<Reservation> {
        let bytes = PAGE + content.next_multiple_of(PAGE);
        loop {
            match self.space.reserve(content) {
                Err(Error::Full) if self.make_room_for(bytes)? => {}
                reserved => return reserved,
            }
        }
    }

    /// Makes the next log large enough for one more reservation, or the active one while there is
    /// no next log. Returns whether there may be room now.
    fn make_room_for(&self, bytes: u64) -> Result<bool> {
        let _turn = self.growth.lock();
        if self.is_behind() {
            return Ok(false);
        }
        let next = self.next.lock().clone();
        let (log, size) = match next {
            Some(next) => {
                let needed = size_for(self.space.needed() + bytes);
                if needed > self.most() {
                    return Ok(false);
                }
                let size = needed.next_power_of_two().min(self.most());
                (next, size)
            }
            None => {
                let active = Arc::clone(&self.snapshot().logs[0]);
                let (size, ceiling) = (active.size(), self.ceiling());
                if size + bytes + PAGE > ceiling {
                    return Ok(false);
                }
                (active, (2 * size).max(size + bytes + PAGE).min(ceiling))
            }
        };
        match self.enlarge(&log, size) {
            Err(error) if error.is_transient() => return Ok(false),
            enlarged => enlarged?,
        }
        self.admit_again();
        Ok(true)
    }
}
