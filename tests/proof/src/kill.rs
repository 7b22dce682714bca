//! Real kills: a child works in a store through the public API. The parent ends the child with
//! SIGKILL, at random or at the N-th system call, and compares the store with the child's reports.
//!
//! ```text
//!   parent ──starts──► child ──works──► store
//!     │  ◄──lines────────┘ killed         │
//!   ledger ◄──────── reopens, looks ──────┘
//! ```
//!
//! - The child reports each request before making it, and each answer after getting it, one write
//!   for each line. So acknowledged work is certain, and one request for each key may be open.
//! - After the kill the parent opens the store itself, and looks at every key that was ever used.
//! - The store's time moves only while nothing is under way, so it is also certain what expires.
//!
//! A child is the same executable, started again by the command of a [`Start`]. That
//! executable calls [`child_main`] if [`is_child`] returns true.

use std::io;
use std::process::Command;
use std::time::Duration;

use crate::chance::Chance;

mod child;
mod fault;
mod home;
mod ledger;
mod script;
mod subject;
mod words;

pub use child::child_main;
pub use fault::{Blow, Call, Fault, Stage};
use home::{End, Home, Ticks};
pub use script::is_child;

/// Makes the command that starts this executable again, to be a child.
pub type Start = dyn Fn() -> Command;

/// The most lines that a child of random kills says.
const LINES: usize = 1200;
/// The most kills between two looks at the store.
const KILLS: usize = 3;
/// Before a recovery with a fault: short runs, so that there are small logs to be sealed in it.
const SHORT_RUNS: usize = 5;
const SHORT_LINES: usize = 100;
/// In a run without a fault logs are rotated and sealed, and segments expire and are dropped.
const TICKS: Ticks = Ticks(7);

/// Random kills, one round after the other in one store.
pub struct Kills {
    home: Home,
    seed: u64,
    chance: Chance,
    start: Box<Start>,
    kills: u64,
}

impl Kills {
    /// Kills in a store of their own.
    ///
    /// The seed decides the work of the children, and roughly the moments of the kills. It does not
    /// decide how far each thread is by then.
    ///
    /// # Errors
    ///
    /// If no directory can be made.
    pub fn new(seed: u64, start: Box<Start>) -> io::Result<Self> {
        Ok(Self { home: Home::new(seed)?, seed, chance: Chance::new(seed), start, kills: 0 })
    }

    /// Kills a child or a few, one after the other, and then looks at every key.
    ///
    /// # Errors
    ///
    /// If something was lost, or is wrong in another way: says where the store is kept.
    pub fn random_round(&mut self) -> Result<(), String> {
        self.kill_and_check().map_err(|what| {
            let (seed, kills, kept) = (self.seed, self.kills, self.home.keep());
            format!("seed {seed}, kill {kills}: {what} (kept in {})", kept.display())
        })
    }

    fn kill_and_check(&mut self) -> Result<(), String> {
        for _ in 0..=self.chance.below(KILLS) {
            let lines = 1 + self.chance.below(LINES);
            self.kills += 1;
            self.home.run(&*self.start, End::After(lines as u64))?;
        }
        self.home.check()
    }

    /// The number of children killed.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// The number of answers of the store that children have reported.
    pub fn answers(&self) -> u64 {
        self.home.ledger.answers()
    }

    /// The longest that a store took to open again.
    pub fn slowest_opening(&self) -> Duration {
        self.home.slowest_opening
    }
}

/// The result of a run with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// The fault happened.
    Happened,
    /// The run ended before its thread had made so many calls.
    NeverCame,
}

/// Runs a child from an empty directory on, with a fault in it, and then looks at every key.
///
/// # Errors
///
/// If something was lost, or is wrong in another way: says where the store is kept.
pub fn injected(fault: Fault, seed: u64, start: &Start) -> Result<Injected, String> {
    let mut home = Home::new(seed).map_err(|error| format!("cannot make a directory: {error}"))?;
    inject_and_check(&mut home, fault, seed, start).map_err(|what| {
        let kept = home.keep();
        format!("seed {seed}, {fault}: {what} (kept in {})", kept.display())
    })
}

fn inject_and_check(
    home: &mut Home,
    fault: Fault,
    seed: u64,
    start: &Start,
) -> Result<Injected, String> {
    if fault.stage == Stage::Recovery {
        let mut chance = Chance::new(seed);
        for _ in 0..SHORT_RUNS {
            let lines = 1 + chance.below(SHORT_LINES);
            home.run(start, End::After(lines as u64))?;
        }
    }
    let happened = home.run(start, End::At(fault, TICKS))?;
    home.check()?;
    Ok(if happened { Injected::Happened } else { Injected::NeverCame })
}
