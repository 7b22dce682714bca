//! P8, and whatever else threads could break among themselves: real stores, with their writer,
//! settler and reaper, under chosen schedules. Empty unless the build sets `cfg(shuttle)`.
//!
//! `REFRAIN_SCHEDULES` sets the number of schedules a test, and `REFRAIN_SEED` the first seed.
//! A failure prints the command that repeats it.

#![cfg(shuttle)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a failure prints how to repeat it, and a test how many schedules it tried"
)]

use std::collections::HashSet;

mod batches;
mod claims;
mod closing;
mod expiry;
mod explorer;
mod history;
mod machine;
mod medium;
mod waiting;

#[test]
fn a_seed_repeats_its_schedule() {
    let name = "schedules::a_seed_repeats_its_schedule";
    let digest = |seed| explorer::run(name, seed..seed + 1, || batches::end_in_every_way(|_| ()));
    let digests: Vec<u64> = (0..100).map(digest).collect();
    assert!((0..100).map(digest).eq(digests.iter().copied()));
    let different: HashSet<u64> = digests.into_iter().collect();
    assert!(different.len() > 90, "only {} of them differ", different.len());
}
