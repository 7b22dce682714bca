//! The metrics of a store, each with its label and its meaning.
//!
//! All are registered when a store opens, so that an alert on a count that was never reached has a
//! zero to compare.

use metrics::{Label, Unit};

/// The reasons for which new keys are refused, as `refrain_refusing` names them.
pub(super) const REASONS: [&str; 6] =
    ["full", "behind", "reserved", "open_claims", "unavailable", "away"];
const BEGUN: &[&str] = &["new", "replayed", "mismatch", "interrupted", "in_progress", "error"];
const FILES: &[&str] = &["log", "segment"];

const METRICS: [Metric; 33] = [
    counter("refrain_begin_total", "keys asked for").by("outcome", BEGUN),
    counter("refrain_complete_total", "durable verdicts")
        .by("outcome", &["stored", "without_response", "released", "interrupted"]),
    histogram("refrain_wait_duration_seconds", "waits for a running request").by("outcome", BEGUN),
    counter("refrain_admission_total", "keys that did not find room at once")
        .by("outcome", &["waited", "refused"]),
    histogram("refrain_admission_duration_seconds", "waits for room"),
    gauge("refrain_in_flight_records", "operations in flight, waiting ones included"),
    gauge("refrain_retained_records", "keys that are held until a restart"),
    gauge("refrain_refusing", "1 for the reason why new keys are refused, or wait")
        .by("reason", &REASONS),
    gauge("refrain_trouble", "1 if the latest background work did not succeed"),
    gauge("refrain_open_claims", "durable claims without a verdict"),
    gauge("refrain_max_open_claims", "the most durable claims without a verdict"),
    gauge("refrain_records", "records, expired ones included").by("state", FILES),
    gauge("refrain_files", "files that may decide a key").by("state", FILES),
    histogram("refrain_commit_duration_seconds", "one write and one fdatasync"),
    histogram("refrain_commit_batch_records", "entries in a batch").of(Unit::Count),
    counter("refrain_log_bytes_total", "bytes written to logs").of(Unit::Bytes),
    counter("refrain_bodies_left_out_total", "responses left out because the disk was full"),
    gauge("refrain_next_log_ready", "1 if the next log is prepared"),
    counter("refrain_sealed_total", "sealed logs"),
    counter("refrain_segments_sealed_total", "segments that logs were sealed into"),
    counter("refrain_merged_total", "segments that were merged or rewritten"),
    counter("refrain_segments_dropped_total", "segments in which all had expired"),
    counter("refrain_expired_total", "records that had expired, in dropped segments"),
    counter("refrain_segment_lookups_total", "lookups in a segment"),
    gauge("refrain_filter_bytes", "memory of the segments' filters").of(Unit::Bytes),
    counter("refrain_damaged_total", "records that could not be read when their log was sealed"),
    gauge("refrain_damaged_records", "keys in segments whose record could not be read"),
    gauge("refrain_damaged_files", "files that were damaged in part when they were opened"),
    histogram("refrain_sweep_duration_seconds", "rounds of the background thread"),
    counter("refrain_failed_total", "stores that have stopped for good"),
    gauge("refrain_clock_jump_seconds", "wall clock against the time that the store counts")
        .of(Unit::Seconds),
    gauge("refrain_boot_unknown", "1 if the process cannot see the boot of the machine"),
    gauge("refrain_build_info", "the version of the crate")
        .by("version", &[env!("CARGO_PKG_VERSION")]),
];

struct Metric {
    kind: Kind,
    name: &'static str,
    unit: Unit,
    /// The name of the label; empty if there is none.
    label: &'static str,
    values: &'static [&'static str],
    meaning: &'static str,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const fn counter(name: &'static str, meaning: &'static str) -> Metric {
    Metric { kind: Kind::Counter, name, unit: Unit::Count, label: "", values: &[""], meaning }
}

const fn gauge(name: &'static str, meaning: &'static str) -> Metric {
    Metric { kind: Kind::Gauge, ..counter(name, meaning) }
}

const fn histogram(name: &'static str, meaning: &'static str) -> Metric {
    Metric { kind: Kind::Histogram, unit: Unit::Seconds, ..counter(name, meaning) }
}

impl Metric {
    /// Gives the metric a label with these values.
    const fn by(mut self, label: &'static str, values: &'static [&'static str]) -> Self {
        (self.label, self.values) = (label, values);
        self
    }

    const fn of(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    fn describe(&self) {
        let Self { kind, name, unit, meaning, .. } = *self;
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, meaning),
            Kind::Gauge => metrics::describe_gauge!(name, unit, meaning),
            Kind::Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }

    /// Registers the metric with one value of its label, and changes nothing: another store of the
    /// process may have counted before.
    fn register(&self, value: &'static str) {
        let named = (!self.label.is_empty()).then(|| Label::from_static_parts(self.label, value));
        let labels: Vec<_> = named.into_iter().collect();
        match self.kind {
            Kind::Counter => metrics::counter!(self.name, labels).increment(0),
            Kind::Gauge => metrics::gauge!(self.name, labels).increment(0.0),
            Kind::Histogram => drop(metrics::histogram!(self.name, labels)),
        }
    }
}

/// Describes all metrics of a store, and registers them at zero.
pub(crate) fn register() {
    for metric in &METRICS {
        metric.describe();
        metric.values.iter().for_each(|value| metric.register(value));
    }
    metrics::gauge!("refrain_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
}
