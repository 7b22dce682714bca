//! The rare states that the trials have reached: a proof that never meets them proves little.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// A state of an image that was opened after a cut.
#[derive(Clone, Copy)]
pub enum State {
    /// An image of any kind.
    Image,
    /// The image held a sealed segment.
    Segment,
    /// The image held logs that wait for sealing.
    FrozenLog,
    /// The image held a file that was being made.
    HalfMade,
    /// The image held durable claims without a verdict.
    OpenClaim,
    /// A key had a record that was not expired.
    LiveRecord,
    /// A key's last request had no answer, so it was not known how the request had ended.
    Unanswered,
    /// The creation of the store was not over.
    Creation,
    /// The disk had no room for a log of the usual size.
    NearlyFull,
}

const STATES: [(State, &str); 9] = [
    (State::Image, "images"),
    (State::Segment, "with a segment"),
    (State::FrozenLog, "with logs to be sealed"),
    (State::HalfMade, "with a half-made file"),
    (State::OpenClaim, "with open claims"),
    (State::LiveRecord, "with live records"),
    (State::Unanswered, "with unanswered requests"),
    (State::Creation, "from within creation"),
    (State::NearlyFull, "on a disk that is nearly full"),
];

static REACHED: [AtomicU64; STATES.len()] = [const { AtomicU64::new(0) }; STATES.len()];

/// Notes that a state was reached.
pub fn note(state: State, reached: bool) {
    REACHED[state as usize].fetch_add(u64::from(reached), Ordering::Relaxed);
}

/// The number of times that a state was reached.
pub fn count(state: State) -> u64 {
    REACHED[state as usize].load(Ordering::Relaxed)
}

/// One line on all states, if any was reached.
pub fn line() -> String {
    let mut line = String::new();
    for (state, what) in STATES {
        let separator = if line.is_empty() { "opened after a cut: " } else { ", " };
        write!(line, "{separator}{} {what}", count(state)).expect("a string takes it");
    }
    if count(State::Image) == 0 { String::new() } else { line + "\n" }
}
