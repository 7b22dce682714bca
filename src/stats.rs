//! A store in numbers.

use std::time::Duration;

use serde::Serialize;

/// A store in numbers. Counters start at zero when the store is opened.
///
/// Logs and segments are the embedded engine's; they are zero over another backend.
#[derive(Clone, Debug, Default, Serialize)]
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
    /// Lookups in a segment, because its filter could not rule the key out.
    pub segment_lookups: u64,
    /// Segments sealed.
    pub segments_sealed: u64,
    /// Segments dropped because all in them had expired.
    pub segments_dropped: u64,
    /// Responses left out of their records because the disk was full.
    pub bodies_left_out: u64,
    /// Whether the next log is prepared, and with it room for further keys.
    pub next_log_ready: bool,
    /// The jump of the wall clock over a reboot, if it exceeds the trusted downtime. Deletion is
    /// then delayed by one TTL.
    pub clock_jump: Option<Duration>,
    /// The error of the background thread's latest round, if it had one.
    pub last_trouble: Option<String>,
    /// Whether the store has failed, and must be opened by a new process.
    pub failed: bool,
}
