//! The bytes that wait for the store's own work: those that are queued for the writer, and those
//! that are not sealed yet.
//!
//! Invariant: new keys wait only while the writer or the reaper has work, and never for the verdict
//! of another caller. Operations in flight count only while there is work.

use crate::engine::log::PAGE;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The bytes of entries that may be queued for the writer, and in memory for it.
const MAX_QUEUED_BYTES: u64 = 16 * 1024 * 1024;
/// Two thirds of that.
const NEAR_QUEUED_BYTES: u64 = MAX_QUEUED_BYTES / 3 * 2;
/// The full logs that may wait for sealing, beside the active one. A store that opens with more
/// allows as many as it found, so that it serves at once.
const MAX_FROZEN_LOGS: u64 = 2;
/// An entry's weight in the average.
const AVERAGED: u64 = 16;

/// The bytes of logs that are not sealed yet.
#[derive(Debug)]
pub(super) struct Backlog {
    /// The most bytes of a log: less on a small disk.
    log_bytes: u64,
    /// The bytes that the store found in frozen logs when it was opened.
    found: u64,
    /// New keys wait while there are more bytes than this.
    max: u64,
    /// Two thirds of that.
    near: u64,
    /// The bytes that are not sealed, of all that follow.
    unsealed: u64,
    /// Bytes in the active log.
    written: u64,
    /// Bytes in frozen logs.
    frozen: u64,
    /// Bytes of the frozen logs that are in the segment at hand.
    sealed: u64,
}

/// The entries that are queued for the writer, counted without a mutex.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// Bytes of the entries.
    bytes: AtomicU64,
    /// Bytes that are reserved for them.
    reserved: AtomicU64,
    /// Average bytes of an entry.
    average: AtomicU64,
}

impl Backlog {
    /// The backlog of a store that opens with as many bytes in frozen logs.
    pub(super) fn new(log_bytes: u64, frozen: u64) -> Self {
        let mut backlog = Self {
            log_bytes,
            found: frozen,
            max: 0,
            near: 0,
            unsealed: 0,
            written: 0,
            frozen,
            sealed: 0,
        };
        backlog.set_log_bytes(log_bytes);
        backlog
    }

    /// Returns the most bytes of a log.
    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Sets the most bytes of a log, on a disk that may have become smaller.
    pub(super) fn set_log_bytes(&mut self, log_bytes: u64) {
        self.log_bytes = log_bytes;
        let logs = MAX_FROZEN_LOGS.max(self.found.div_ceil(log_bytes));
        self.max = (logs + 1) * log_bytes;
        self.near = self.max / 3 * 2;
        self.update();
    }

    /// Sets the bytes in the active log.
    pub(super) fn set_written(&mut self, bytes: u64) {
        self.written = bytes;
        self.update();
    }

    /// Counts the active log as frozen.
    pub(super) fn freeze(&mut self, bytes: u64) {
        self.frozen += bytes;
        self.set_written(0);
    }

    /// Counts further bytes of frozen logs as sealed, for the time being.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.sealed += bytes;
        self.update();
    }

    /// Counts logs of so many bytes as sealed for good: none if sealing failed.
    pub(super) fn finish(&mut self, bytes: u64) {
        self.frozen = self.frozen.saturating_sub(bytes);
        self.sealed = 0;
        self.update();
    }

    /// Returns the bytes of frozen logs that are not sealed.
    pub(super) fn frozen(&self) -> u64 {
        self.frozen.saturating_sub(self.sealed)
    }

    /// Returns true if another key, for which so many bytes are `reserved`, must wait for sealing or
    /// for the writer.
    ///
    /// More than two thirds of the maximum are more than the active log and what need not be sealed
    /// yet, so there is work. From then on keys in flight count as well, each with the bytes of an
    /// average entry, so that those who wait are not all let in at once.
    pub(super) fn is_behind(&self, queued: &Queued, reserved: u64) -> bool {
        let in_queue = queued.bytes();
        let unsealed = self.unsealed + in_queue;
        if unsealed <= self.near && in_queue <= NEAR_QUEUED_BYTES {
            return false;
        }
        let outstanding = reserved.saturating_sub(queued.reserved()) / PAGE;
        let expected = outstanding * queued.average.load(Ordering::Relaxed);
        (unsealed > self.near && unsealed + expected > self.max)
            || (in_queue > NEAR_QUEUED_BYTES && in_queue + expected > MAX_QUEUED_BYTES)
    }

    fn update(&mut self) {
        // A log may be longer than most, and only its own rotation makes it work for the reaper.
        self.unsealed = self.written.min(self.log_bytes) + self.frozen();
    }
}

impl Queued {
    /// Counts an entry that is queued, in room that was reserved for it.
    pub(super) fn add(&self, bytes: u64, reserved: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.reserved.fetch_add(reserved, Ordering::AcqRel);
        // Two at once may lose one of them, which an average survives.
        let average = self.average.load(Ordering::Relaxed);
        let next = average - average / AVERAGED + bytes / AVERAGED;
        self.average.store(next, Ordering::Relaxed);
    }

    /// Counts an entry out.
    pub(super) fn remove(&self, bytes: u64, reserved: u64) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.reserved.fetch_sub(reserved, Ordering::AcqRel);
    }

    /// Returns the bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Returns the bytes that are reserved for them.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }
}
