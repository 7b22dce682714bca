//! The primitives of concurrency: locks, atomics, queues, threads, and the time that waits take.
//!
//! The rest of the crate takes all of these from here. They are those of `parking_lot`,
//! `crossbeam-channel` and the standard library. Under `cfg(shuttle)` they are shuttle's, so that
//! tests can choose at each of them which thread runs next. No time passes under shuttle: the
//! schedule decides whether a wait is over, so the same seed gives the same schedule.
//!
//! `disk/` uses the real ones, since redb holds locks of its own during its calls there. So does
//! `clock.rs`, whose locks order no other memory.

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

    /// Returns the current time, for measuring waits and nothing else.
    pub(crate) fn now() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a wait has no other clock")]
        Instant::now()
    }
}

#[cfg(shuttle)]
mod scheduled;
