//! The figures of an open store.

use super::Engine;
use crate::error::WithCauses;
use crate::observe;
use crate::stats::Stats;
use crate::sync::atomic::{AtomicU64, Ordering};

impl Engine {
    /// Returns the statistics of the store.
    pub(crate) fn stats(&self) -> Stats {
        let Self { ledger, counters, .. } = self;
        let snapshot = ledger.snapshot();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let away = self.expect_back().err();
        let (counts, _) = ledger.space.figures();
        let trouble = away.or_else(|| counters.last_trouble.lock().clone());
        Stats {
            refusing: self.refusing(),
            waited_for_room: counts.waited,
            refused_for_room: counts.refused,
            open_claims: ledger.claims.lock().len(),
            batches: count(&counters.batches),
            entries: count(&counters.entries),
            log_bytes_written: count(&counters.bytes),
            logs: snapshot.logs.len(),
            log_records: snapshot.logs.iter().map(|log| log.len()).sum(),
            segments: snapshot.segments.len(),
            segment_records: snapshot.segments.iter().map(|segment| segment.meta.records).sum(),
            damaged_records: snapshot.segments.iter().map(|segment| segment.meta.damaged).sum(),
            damaged_files: ledger.damaged_files(),
            filter_bytes: snapshot.segments.filter_bytes(),
            segment_lookups: count(&ledger.segment_lookups),
            segments_sealed: count(&counters.segments_sealed),
            segments_merged: count(&counters.segments_merged),
            segments_dropped: count(&counters.segments_dropped),
            bodies_left_out: count(&counters.bodies_left_out),
            next_log_ready: ledger.space.has_next(),
            clock_jump: ledger.timeline.jump(),
            boot_unknown: !ledger.timeline.knows_boot(),
            last_trouble: trouble.map(|error| WithCauses(&error).to_string()),
            failed: self.has_failed(),
            ..Stats::default()
        }
    }

    /// Shows the figures to those who watch.
    pub(crate) fn show(&self) {
        if cfg!(feature = "metrics") {
            observe::figures(&self.stats(), self.ledger.settings.max_open_claims);
        }
    }
}
