//! Random histories of three nodes over one PostgreSQL: clients ask, hold, complete, release and go,
//! while the nodes are killed, stopped and cut off.
//!
//! ```text
//!   plan ──► clients ──calls──► node (a process) ──► proxy ──┐
//!     │         │                                            ├──► PostgreSQL
//!     └──► faults: kill, stop ──► node;  cut, stall ──► proxy┘
//!               │
//!            journal ──► judge ◄── sessions that were marked dead
//! ```
//!
//! - A seed is a group of histories, which share three new nodes, an empty schema and the faults.
//!   Each history has keys of its own, and is judged by itself.
//! - The judge knows what each client was told and when, by the clock that the database has too, and
//!   which sessions the database says were dead since when. So a node that stood still on a busy
//!   machine and lost its lease is one that lost its lease, whatever the reason.
//!
//! A node is the same executable, started again by the command of a [`Start`]. That executable
//! calls [`node_main`] if [`is_node`] returns true.

use std::process::Command;

use crate::trial::{self, Failure};

mod client;
mod figures;
mod group;
mod journal;
mod judge;
mod node;
mod peer;
mod plan;
mod possession;
mod words;

// The server that the crate's own tests start, and the network in front of it.
#[path = "../../../crates/refrain-postgres/tests/kit/mod.rs"]
#[allow(
    clippy::semicolon_if_nothing_returned,
    clippy::zombie_processes,
    reason = "the tests' own, whose processes end with the program"
)]
mod kit;

pub use figures::lines;
pub use node::{is_node, node_main};

/// Makes the command that starts this executable again, to be a node.
pub type Start = dyn Fn() -> Command + Send + Sync;

/// Returns true if PostgreSQL's server is installed.
pub fn is_installed() -> bool {
    kit::server::binaries().is_some()
}

/// Lives through a group of histories, and returns their number.
///
/// # Errors
///
/// If an answer breaks a rule.
pub fn explore(seed: u64, start: &Start) -> Result<u64, Failure> {
    let again = || format!("fleet --seed {seed}");
    trial::run(again, || kit::server::runtime().block_on(group::live(seed, start)))
}
