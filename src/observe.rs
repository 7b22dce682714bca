//! What those who watch a store are told: metrics through the `metrics` facade, and events through
//! `tracing`, each with the feature of its name. Without them all of this is nothing.
//!
//! Neither carries a key or a scope. `docs/http.md` lists the names.

use std::time::{Duration, Instant};

/// How asking for a key ended.
pub(crate) fn begun(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_begin_total", "outcome" => outcome).increment(1);
    let _ = outcome;
}

/// A wait for another request has ended.
pub(crate) fn waited(outcome: &'static str, waited: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("refrain_wait_duration_seconds", "outcome" => outcome)
        .record(waited.elapsed());
    let _ = (outcome, waited);
}

/// How a permit ended.
pub(crate) fn ended(outcome: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_complete_total", "outcome" => outcome).increment(1);
    let _ = outcome;
}

/// How many operations are in flight, waiting ones included.
pub(crate) fn in_flight(operations: usize) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!("refrain_in_flight_records").set(operations as f64);
    let _ = operations;
}

/// A batch is durable.
pub(crate) fn committed(entries: usize, took: Stopwatch) {
    #[cfg(feature = "metrics")]
    {
        metrics::histogram!("refrain_commit_duration_seconds").record(took.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a histogram takes floats")]
        metrics::histogram!("refrain_commit_batch_records").record(entries as f64);
    }
    let _ = (entries, took);
}

/// How many records the store holds, in logs and in segments, expired ones included.
pub(crate) fn records(in_logs: usize, in_segments: u64) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    {
        metrics::gauge!("refrain_records", "state" => "log").set(in_logs as f64);
        metrics::gauge!("refrain_records", "state" => "segment").set(in_segments as f64);
    }
    let _ = (in_logs, in_segments);
}

/// Logs have become a segment.
pub(crate) fn sealed(logs: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_sealed_total").increment(logs as u64);
    #[cfg(feature = "tracing")]
    tracing::debug!(logs, "sealed logs");
    let _ = logs;
}

/// Segments whose last record had expired were dropped.
pub(crate) fn expired(segments: usize, records: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_expired_total").increment(records);
    #[cfg(feature = "tracing")]
    tracing::debug!(segments, records, "dropped what has expired");
    let _ = (segments, records);
}

/// The background thread has done what was due.
pub(crate) fn swept(took: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("refrain_sweep_duration_seconds").record(took.elapsed());
    let _ = took;
}

/// Something in the background did not work, and will be tried again.
pub(crate) fn trouble(error: &crate::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(error = error as &dyn std::error::Error, "background work did not succeed");
    let _ = error;
}

/// The store has stopped for good.
pub(crate) fn failed(error: &crate::Error) {
    #[cfg(feature = "metrics")]
    metrics::counter!("refrain_failed_total").increment(1);
    #[cfg(feature = "tracing")]
    tracing::error!(error = error as &dyn std::error::Error, "store has stopped");
    let _ = error;
}

/// An empty store was created, because the directory held none. A mistyped path shows here.
pub(crate) fn created(directory: &std::path::Path) {
    #[cfg(feature = "tracing")]
    tracing::info!(directory = %directory.display(), "created an empty store");
    let _ = directory;
}

/// The store is open.
pub(crate) fn opened(logs: usize, segments: usize, took: Stopwatch) {
    #[cfg(feature = "metrics")]
    metrics::gauge!("refrain_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    #[cfg(feature = "tracing")]
    tracing::info!(logs, segments, took = ?took.elapsed(), "store is open");
    let _ = (logs, segments, took);
}

/// Measures a duration for those who watch, and decides nothing.
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
