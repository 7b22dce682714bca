//! Where threads meet: locks, atomics, queues, threads themselves, and how long they wait.
//!
//! The engine takes all of these from here. They are those of `parking_lot`, `crossbeam-channel` and
//! the standard library; under `cfg(shuttle)` they are shuttle's, so that the tests in
//! `schedules.rs` choose at each of them who goes on. No time passes there: whether a wait is over
//! is for the schedule to say, so the same seed gives the same schedule.
//!
//! `disk/` keeps the real ones, since redb holds locks of its own while it calls there. So does
//! `clock.rs`, whose locks put nothing in order.

#[cfg(not(shuttle))]
pub(crate) use real::*;
#[cfg(shuttle)]
pub(crate) use scheduled::*;

#[cfg(not(shuttle))]
mod real {
    pub(crate) use std::sync::{OnceLock, atomic};
    pub(crate) use std::time::Instant;
    pub(crate) use std::{thread, thread_local};

    pub(crate) use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
    pub(crate) use parking_lot::{Condvar, Mutex, RwLock};

    /// The time that waits are measured with, and nothing else.
    pub(crate) fn now() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a wait has no other clock")]
        Instant::now()
    }
}

#[cfg(shuttle)]
mod scheduled;
