//! The figures of all groups of this run.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::plan::Kind;
use super::words::{Answer, Ask};

const ANSWERS: [&str; 10] = [
    "runs",
    "records",
    "interrupted",
    "in flight",
    "conflicts",
    "fenced",
    "unavailable",
    "unanswered",
    "clients gone",
    "others",
];

static HISTORIES: AtomicU64 = AtomicU64::new(0);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static FAULTS: [AtomicU64; Kind::ALL.len()] = [const { AtomicU64::new(0) }; Kind::ALL.len()];
static HEARD: [AtomicU64; ANSWERS.len()] = [const { AtomicU64::new(0) }; ANSWERS.len()];
static TAKEN_OVER: AtomicU64 = AtomicU64::new(0);
static UNPROVOKED: AtomicU64 = AtomicU64::new(0);
static LATEST_MS: AtomicU64 = AtomicU64::new(0);

pub(super) fn histories(count: usize) {
    HISTORIES.fetch_add(count as u64, Ordering::Relaxed);
}

pub(super) fn fault(kind: Kind) {
    FAULTS[kind as usize].fetch_add(1, Ordering::Relaxed);
}

/// Counts leases that lapsed, and those among them that no fault explains.
pub(super) fn lapses(all: usize, unprovoked: usize) {
    TAKEN_OVER.fetch_add(all as u64, Ordering::Relaxed);
    UNPROVOKED.fetch_add(unprovoked as u64, Ordering::Relaxed);
}

/// Notes the time by which an answer came after its deadline.
pub(super) fn late(millis: u64) {
    LATEST_MS.fetch_max(millis, Ordering::Relaxed);
}

pub(super) fn operation(ask: &Ask, answer: Option<&Answer>) {
    OPERATIONS.fetch_add(1, Ordering::Relaxed);
    let at = match answer {
        Some(Answer::Run { .. }) => 0,
        Some(Answer::Record(_)) if !matches!(ask, Ask::Complete { .. }) => 1,
        Some(Answer::Interrupted { .. }) => 2,
        Some(Answer::InFlight { .. }) => 3,
        Some(Answer::Conflict { .. }) => 4,
        Some(Answer::Fenced) => 5,
        Some(Answer::Unavailable(_)) => 6,
        None => 7,
        Some(Answer::Gone) => 8,
        Some(_) => 9,
    };
    HEARD[at].fetch_add(1, Ordering::Relaxed);
}

/// A few lines on all groups, if there was one.
pub fn lines() -> String {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    if read(&HISTORIES) == 0 {
        return String::new();
    }
    let mut lines = format!(
        "histories of 3 nodes: {}, with {} operations\nfaults: ",
        read(&HISTORIES),
        read(&OPERATIONS)
    );
    let faults: Vec<_> = Kind::ALL
        .iter()
        .map(|kind| format!("{} {}", read(&FAULTS[*kind as usize]), kind.name()))
        .collect();
    let heard: Vec<_> =
        ANSWERS.iter().zip(&HEARD).map(|(name, count)| format!("{} {name}", read(count))).collect();
    writeln!(
        lines,
        "{}\nanswers: {}\nleases that lapsed: {}, of which {} without a fault; latest answer: {} ms \
         after its deadline",
        faults.join(", "),
        heard.join(", "),
        read(&TAKEN_OVER),
        read(&UNPROVOKED),
        read(&LATEST_MS)
    )
    .expect("a string takes it");
    lines
}
