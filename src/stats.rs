//! How a store is doing, in numbers.

use std::time::Duration;

use serde::Serialize;

use crate::engine::core::Engine;
use crate::sync::atomic::{AtomicU64, Ordering};

/// How a store is doing. Counters start at zero when it is opened.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Operations in flight, waiting ones included.
    pub in_flight: usize,
    /// Durable claims without a verdict: held by a permit, or interrupted.
    pub open_claims: usize,
    /// Batches committed: writes and syncs.
    pub batches: u64,
    /// Entries committed, of all kinds.
    pub entries: u64,
    /// Bytes written to logs.
    pub log_bytes_written: u64,
    /// Logs that may decide a key, the active one included.
    pub logs: usize,
    /// Addresses indexed in memory for those logs.
    pub log_records: usize,
    /// Segments that may decide a key.
    pub segments: usize,
    /// Records in those segments, expired ones included.
    pub segment_records: u64,
    /// Memory that the segments' filters take, in bytes.
    pub filter_bytes: usize,
    /// Times that a segment was asked for a key, since its filter could not say no.
    pub segment_lookups: u64,
    /// Segments sealed.
    pub segments_sealed: u64,
    /// Segments dropped because all in them had expired.
    pub segments_dropped: u64,
    /// Responses not stored for want of room.
    pub bodies_left_out: u64,
    /// Whether a next log is prepared, and with it room for further keys.
    pub next_log_ready: bool,
    /// How far the wall clock jumped over a reboot, if further than is trusted. Deletion is put off
    /// by one TTL then.
    pub clock_jump: Option<Duration>,
    /// What the background thread could not do the last time, if anything.
    pub last_trouble: Option<String>,
    /// Whether the store has failed, and must be opened by a new process.
    pub failed: bool,
}

impl Stats {
    pub(crate) fn of(engine: &Engine) -> Self {
        let Engine { ledger, table, counters, .. } = engine;
        let snapshot = ledger.snapshot();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            in_flight: table.in_flight(),
            open_claims: ledger.claims.lock().len(),
            batches: count(&counters.batches),
            entries: count(&counters.entries),
            log_bytes_written: count(&counters.bytes),
            logs: snapshot.logs.len(),
            log_records: snapshot.logs.iter().map(|log| log.len()).sum(),
            segments: snapshot.segments.len(),
            segment_records: snapshot.segments.iter().map(|segment| segment.meta.records).sum(),
            filter_bytes: snapshot.segments.iter().map(|segment| segment.filter_bytes()).sum(),
            segment_lookups: count(&ledger.segment_lookups),
            segments_sealed: count(&counters.segments_sealed),
            segments_dropped: count(&counters.segments_dropped),
            bodies_left_out: count(&counters.bodies_left_out),
            next_log_ready: ledger.has_next(),
            clock_jump: ledger.timeline.jump(),
            last_trouble: counters.last_trouble.lock().as_ref().map(ToString::to_string),
            failed: engine.has_failed(),
        }
    }
}
