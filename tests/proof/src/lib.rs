//! Tries to break what refrain promises: power cuts, failing disks, kills, rot, schedules of
//! threads, and histories compared with a model.
//!
//! ```text
//!   chance ──► step ──► history ──asks──► a store ──► machine ──► platter
//!                          │                 ▲           (cache)   (what a cut leaves)
//!                        model ◄──compared───┘
//!
//!   cuts, faults, histories, rot, kill, schedules, codec, fleet: a trial for each seed
//!   lane: trials side by side, for hours     main: `soak`
//! ```
//!
//! Requests and their answers alone decide what must be found, and nothing that the store keeps.
//! A trial that fails prints the command that repeats it. The scheduling of the store's threads is
//! not repeated, so the command may have to run a few times.

#![allow(missing_docs, reason = "nobody outside the repository uses it")]

pub mod chance;
pub mod codec;
pub mod content;
pub mod cuts;
pub mod faults;
pub mod fleet;
pub mod histories;
pub mod history;
pub mod journal;
pub mod kill;
pub mod lane;
pub mod machine;
pub mod model;
pub mod platter;
pub mod reached;
pub mod rot;
pub mod schedules;
pub mod step;
pub mod trial;
