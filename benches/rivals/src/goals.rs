//! The goals that refrain is to reach beside the others, and what it reached.

use crate::parts::{KIB, USUAL};
use crate::results::{Results, What};
use crate::rivals::Kind;

/// A ratio or figure, and what it should be.
pub struct Goal {
    pub measure: String,
    pub against: String,
    pub reached: f64,
    pub wanted: f64,
    pub at_least: bool,
}

impl Goal {
    pub fn holds(&self) -> bool {
        if self.at_least { self.reached >= self.wanted } else { self.reached <= self.wanted }
    }
}

/// The stores that claim to be durable stores of bytes or rows; Redis is printed besides.
const RIVALS: [Kind; 6] =
    [Kind::Rocksdb, Kind::Fjall, Kind::Sqlite, Kind::Lmdb, Kind::Redb, Kind::Postgres];

/// The goals, without those that compare with a store which was skipped.
pub fn goals(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    completes(results, &mut goals);
    lookups(results, &mut goals);
    space(results, &mut goals);
    times(results, &mut goals);
    goals
}

fn completes(results: &Results, goals: &mut Vec<Goal>) {
    let rate =
        |kind, committers| results.completes(kind, committers, KIB).map(|it| it.per_second());
    let mut compare = |committers: usize, ours, theirs: &[Kind], wanted| {
        if theirs.iter().any(|kind| rate(*kind, committers).is_none()) {
            return;
        }
        let best = theirs
            .iter()
            .filter_map(|kind| rate(*kind, committers).map(|rate| (rate, kind.name())))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let (Some(our), Some((their, name))) = (rate(ours, committers), best) {
            goals.push(Goal {
                measure: format!("{}: completes/s, {committers} committers, 1 KB", ours.name()),
                against: name,
                reached: our / their,
                wanted,
                at_least: true,
            });
        }
    };
    compare(64, Kind::Refrain, &RIVALS, 2.8);
    compare(256, Kind::Refrain, &RIVALS, 3.2);
    compare(8, Kind::Refrain, &RIVALS, 1.6);
    compare(1, Kind::Refrain, &[Kind::Rocksdb], 1.0);
    compare(64, Kind::Refrain, &[Kind::Append], 1.2);
    compare(64, Kind::RefrainDurable, &[Kind::Refrain], 0.45);
}

fn lookups(results: &Results, goals: &mut Vec<Goal>) {
    let ns = |kind, what| results.lookups(kind, what).map(|it| it.ns());
    for (what, place, wanted) in
        [(What::HitInLog, "in a log", 0.4), (What::HitInOldest, "in the oldest segment", 1.0)]
    {
        // Which of RocksDB's are in memory is not ours to choose: of all there are.
        if let (Some(ours), Some(theirs)) =
            (ns(Kind::RefrainSegments, what), ns(Kind::Rocksdb, What::Hit))
        {
            goals.push(Goal {
                measure: format!("replay hit, 1 KB, {place}"),
                against: "rocksdb get".into(),
                reached: ours / theirs,
                wanted,
                at_least: false,
            });
        }
    }
    if let Some(miss) = results.lookups(Kind::RefrainSegments, What::Miss) {
        goals.push(figure("begin on an unknown key", "us of CPU", miss.cpu_ns() / 1000.0, 1.5));
    }
    if let Some(asked) = results.segments_asked {
        goals.push(figure("segments asked for an unknown key", "one", asked, 0.01));
    }
}

fn space(results: &Results, goals: &mut Vec<Goal>) {
    let Some(space) = results.space(Kind::Refrain) else { return };
    let payload = KIB as f64;
    goals.push(figure("bytes written per 1 KB record", "payload", space.written / payload, 3.0));
    if let Some(sealed) = space.sealed {
        goals.push(figure(
            "bytes on disk per sealed 1 KB record",
            "payload",
            sealed / payload,
            1.5,
        ));
    }
    let filter = space.facts.iter().find(|(name, _)| name == "filter bytes per sealed record");
    if let Some((name, bytes)) = filter {
        goals.push(figure(name, "bytes", *bytes, 4.0));
    }
}

fn times(results: &Results, goals: &mut Vec<Goal>) {
    for it in results.reopenings.iter().filter(|it| it.kind == Kind::Refrain) {
        let measure = format!("reopen after a kill, {} records of {} B", it.records, it.body_bytes);
        goals.push(figure(&measure, "seconds", it.millis / 1000.0, 1.0));
    }
    let p99 = |kind| results.completes(kind, USUAL, KIB).map(|it| it.p99_us());
    if let (Some(busy), Some(calm)) = (p99(Kind::RefrainBusy), p99(Kind::RefrainCalm)) {
        let measure = "p99 of complete while sealing, rotating, dropping, 64 committers";
        goals.push(figure(measure, "p99 without them", busy / calm, 3.0));
    }
}

fn figure(measure: &str, against: &str, reached: f64, wanted: f64) -> Goal {
    Goal { measure: measure.into(), against: against.into(), reached, wanted, at_least: false }
}
