//! Tries to break what refrain promises: power cuts, failing disks, kills, rot, schedules of threads, and
//! histories against a model.
//!
//! ```text
//!   chance ──► step ──► history ──asks──► a store ──► machine ──► platter
//!                          │                 ▲           (cache)   (what a cut leaves)
//!                        model ◄──compared───┘
//!
//!   cuts, faults, histories, rot, kill, schedules, codec: a trial for each seed
//!   lane: trials side by side, for hours     main: `soak`
//! ```
//!
//! What must be found is decided here, by what was asked and answered, and by nothing that the store
//! keeps. A trial that fails prints the command that repeats it; the threads of the store go their own
//! way, so it may take a few.

#![allow(missing_docs, reason = "nobody outside the repository uses it")]

pub mod chance;
pub mod codec;
pub mod content;
pub mod cuts;
pub mod faults;
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
