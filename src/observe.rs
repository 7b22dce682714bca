//! The metrics and events of a store: metrics through the `metrics` facade, events through
//! `tracing`, each with the feature of its name. Without the features, these functions do nothing.
//!
//! Neither metrics nor events contain a key or a scope. `docs/http.md` lists the names.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::clock::Timeline;
#[cfg(feature = "tracing")]
use crate::error::WithCauses;
use crate::stats::{Refusing, Stats};

#[cfg(feature = "metrics")]
mod catalog;

/// Describes all metrics of a store, and registers them at zero.
pub(crate) fn register() {
    #[cfg(feature = "metrics")]
    catalog::register();
}

/// Counts the outcome of asking for a key.
pub(crate) fn begun(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_begin_total", "outcome" => outcome).increment(1);
    let _ = outcome;
}

/// Records the time of a wait for another request.
pub(crate) fn waited(outcome: &'static str, waited: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("refrain_wait_duration_seconds", "outcome" => outcome)
        .record(waited.elapsed());
    let _ = (outcome, waited);
}

/// Counts the keys that did not find room at once: those that `waited`, and those that were
/// `refused`.
pub(crate) fn admission(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_admission_total", "outcome" => outcome).increment(1);
    let _ = outcome;
}

/// Records the time of a wait for room.
pub(crate) fn admitted(waited: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("refrain_admission_duration_seconds").record(waited.elapsed());
    let _ = waited;
}

/// Counts a verdict that is durable.
pub(crate) fn ended(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_complete_total", "outcome" => outcome).increment(1);
    let _ = outcome;
}

/// Sets the number of operations in flight, waiting ones included.
pub(crate) fn in_flight(operations: impl FnOnce() -> usize) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!("refrain_in_flight_records").set(operations() as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = operations;
}

/// Sets the number of keys that are held until a restart.
pub(crate) fn retained(keys: impl FnOnce() -> usize) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!("refrain_retained_records").set(keys() as f64);
    #[cfg(not(feature = "metrics"))]
    let _ = keys;
}

/// Records a durable batch: its numbers of entries and bytes, and the time of its write and
/// fdatasync.
pub(crate) fn committed(entries: usize, bytes: u64, took: Stopwatch) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("refrain_log_bytes_total").increment(bytes);
        metrics::histogram!("refrain_commit_duration_seconds").record(took.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a histogram takes floats")]
        metrics::histogram!("refrain_commit_batch_records").record(entries as f64);
    }
    let _ = (entries, bytes, took);
}

/// Counts responses that were left out of their records because the disk was full.
pub(crate) fn left_out(bodies: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_bodies_left_out_total").increment(bodies);
    let _ = bodies;
}

/// Counts a lookup in a segment.
pub(crate) fn looked_up() {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_segment_lookups_total").increment(1);
}

/// Sets the sizes and the states in a store's statistics. Counters count by themselves, and the keys
/// in flight too.
pub(crate) fn figures(stats: &Stats, max_open_claims: usize) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    {
        let flag = |is_set: bool| if is_set { 1.0 } else { 0.0 };
        metrics::gauge!("refrain_trouble").set(flag(stats.last_trouble.is_some()));
        metrics::gauge!("refrain_open_claims").set(stats.open_claims as f64);
        metrics::gauge!("refrain_max_open_claims").set(max_open_claims as f64);
        metrics::gauge!("refrain_records", "state" => "log").set(stats.log_records as f64);
        metrics::gauge!("refrain_records", "state" => "segment").set(stats.segment_records as f64);
        metrics::gauge!("refrain_files", "state" => "log").set(stats.logs as f64);
        metrics::gauge!("refrain_files", "state" => "segment").set(stats.segments as f64);
        metrics::gauge!("refrain_next_log_ready").set(flag(stats.next_log_ready));
        metrics::gauge!("refrain_filter_bytes").set(stats.filter_bytes as f64);
        metrics::gauge!("refrain_damaged_records").set(stats.damaged_records as f64);
        metrics::gauge!("refrain_damaged_files").set(stats.damaged_files as f64);
        let jump = stats.clock_jump.unwrap_or_default();
        metrics::gauge!("refrain_clock_jump_seconds").set(jump.as_secs_f64());
        metrics::gauge!("refrain_boot_unknown").set(flag(stats.boot_unknown));
    }
    refusing(stats.refusing);
    let _ = (stats, max_open_claims);
}

/// Sets the reason for which new keys are refused, or wait.
pub(crate) fn refusing(why: Option<Refusing>) {
    #[cfg(feature = "metrics")]
    for reason in catalog::REASONS {
        let is_it = why.is_some_and(|why| reason_of(why) == reason);
        let set = if is_it { 1.0 } else { 0.0 };
        metrics::gauge!("refrain_refusing", "reason" => reason).set(set);
    }
    let _ = why;
}

#[cfg(feature = "metrics")]
fn reason_of(why: Refusing) -> &'static str {
    match why {
        Refusing::Full => "full",
        Refusing::Behind => "behind",
        Refusing::Reserved => "reserved",
        Refusing::OpenClaims => "open_claims",
        Refusing::Unavailable => "unavailable",
        Refusing::Away => "away",
    }
}

/// Counts the logs that were sealed into a segment.
pub(crate) fn sealed(logs: usize) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("refrain_sealed_total").increment(logs as u64);
        metrics::counter!("refrain_segments_sealed_total").increment(1);
    }
    #[cfg(feature = "tracing")]
    tracing::debug!(logs, "sealed logs");
    let _ = logs;
}

/// Counts the segments that were merged into one, or rewritten.
pub(crate) fn merged(segments: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_merged_total").increment(segments as u64);
    #[cfg(feature = "tracing")]
    tracing::debug!(segments, "merged segments");
    let _ = segments;
}

/// Reports records that could not be read when their log was sealed.
pub(crate) fn damaged(records: u64, file: &Path) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_damaged_total").increment(records);
    #[cfg(feature = "tracing")]
    tracing::error!(records, file = %file.display(), "records are damaged, and their keys say so");
    let _ = (records, file);
}

/// Reports files that were damaged in part when the store was opened.
pub(crate) fn damaged_files(files: usize, store: &Path) {
    #[cfg(feature = "tracing")]
    if files > 0 {
        tracing::error!(files, store = %store.display(), "files are damaged in part: verify the store");
    }
    let _ = (files, store);
}

/// Counts the segments that were dropped because their last record had expired, and their records.
pub(crate) fn expired(segments: usize, records: u64) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("refrain_segments_dropped_total").increment(segments as u64);
        metrics::counter!("refrain_expired_total").increment(records);
    }
    #[cfg(feature = "tracing")]
    tracing::debug!(segments, records, "dropped what has expired");
    let _ = (segments, records);
}

/// Records the time of one round of the background thread.
pub(crate) fn swept(took: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("refrain_sweep_duration_seconds").record(took.elapsed());
    let _ = took;
}

/// Logs that the wall clock and engine time disagree, and that the boot is unknown, if so.
pub(crate) fn doubts(timeline: &Timeline) {
    #[cfg(feature = "tracing")]
    {
        if let Some(by) = timeline.jump() {
            tracing::warn!(?by, "the wall clock has jumped: records may be replayed for longer");
        }
        if !timeline.knows_boot() {
            tracing::warn!("the boot is unknown: after a restart, the clock that says less counts");
        }
    }
    let _ = timeline;
}

/// Logs that background work does not succeed. It will be tried again.
pub(crate) fn trouble(error: &crate::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(error = %WithCauses(error), "background work did not succeed");
    let _ = error;
}

/// Logs that background work succeeds again.
pub(crate) fn trouble_is_over() {
    #[cfg(feature = "tracing")]
    tracing::warn!("background work succeeds again");
}

/// Logs that the store is not at its path, which it need not be for good.
pub(crate) fn away(error: &crate::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(error = %WithCauses(error), "{}", Refusing::Away);
    let _ = error;
}

/// Logs that the store refuses new keys, or makes them wait, and that it takes them again.
pub(crate) fn refusal(why: Option<Refusing>) {
    #[cfg(feature = "tracing")]
    match why {
        Some(why) => tracing::warn!("{why}"),
        None => tracing::warn!("new keys are taken again"),
    }
    let _ = why;
}

/// Logs that responses were left out of their records because the disk was full.
pub(crate) fn bodies(left_out: u64) {
    #[cfg(feature = "tracing")]
    tracing::warn!(left_out, "responses are recorded without their bodies: the disk is full");
    let _ = left_out;
}

/// Counts and logs the failure that stops the store for good.
pub(crate) fn failed(error: &crate::Error) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_failed_total").increment(1);
    #[cfg(feature = "tracing")]
    tracing::error!(error = %WithCauses(error), "store has stopped");
    let _ = error;
}

/// Logs the creation of an empty store, so that a mistyped path can be noticed.
pub(crate) fn created(directory: &std::path::Path) {
    #[cfg(feature = "tracing")]
    tracing::info!(directory = %directory.display(), "created an empty store");
    let _ = directory;
}

/// Logs that the store is open, with the number of its logs and segments.
pub(crate) fn opened(logs: usize, segments: usize, took: Stopwatch) {
    #[cfg(feature = "tracing")]
    tracing::info!(logs, segments, took = ?took.elapsed(), "store is open");
    let _ = (logs, segments, took);
}

/// A measurement of a duration, for metrics and events only: no decision depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "nothing depends on it")]
        Self(Instant::now())
    }

    #[cfg_attr(not(any(feature = "metrics", feature = "tracing")), expect(dead_code))]
    fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
