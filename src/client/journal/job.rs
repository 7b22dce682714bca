//! A line of the list of a journal's unfinished jobs.

use std::time::{Duration, SystemTime};

use crate::Key;

/// An unfinished job, from [`Journal::jobs`](super::Journal::jobs).
///
/// `Debug` does not show the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// The job's name.
    pub name: String,
    /// The key that was sent, or may have been.
    pub key: Key,
    /// The wall-clock time when the key was first handed out.
    pub first_sent: SystemTime,
    /// The time that has gone by since then, as the journal's window counts it.
    ///
    /// It is [`Duration::MAX`] if the wall clock went backwards over a reboot, so that nobody knows.
    pub age: Duration,
    /// The state, which says if the job can go on.
    pub state: JobState,
}

/// The state of a [`Job`]. Complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// This process holds the job's entry.
    Held,
    /// Nobody holds the entry: [`Journal::key_for`](super::Journal::key_for) returns it, whatever
    /// request it is given.
    Waiting,
    /// The server may have forgotten the key, and no other is handed out. Find out what became of
    /// the job, and end it with [`Journal::done`](super::Journal::done).
    WindowPassed,
}
