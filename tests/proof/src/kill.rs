//! Real kills: a child works in a store through the public face, and the parent ends it with SIGKILL,
//! at random or at the N-th system call, and holds the store against what the child was told.
//!
//! ```text
//!   parent ──starts──► child ──works──► store
//!     │  ◄──lines────────┘ killed         │
//!   ledger ◄──────── reopens, looks ──────┘
//! ```
//!
//! - The child says what it asks before it asks, and what it is told after, each line with one write.
//!   So what is acknowledged is certain, and one thing for each key may be unknown.
//! - After the kill the parent opens the store itself, and looks at every key that was ever used.
//! - The store's time moves only while nothing is under way, so what expires is certain too.
//!
//! A child is the same executable, started again: its caller says how, and calls [`child_main`] where
//! [`is_child`] says so.

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
    /// The seed decides what children do and about when they are killed; which threads are how far by
    /// then it does not decide.
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
    /// What was lost, or what else is wrong, and where the store is kept.
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

    /// How many children were killed.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// How many answers of the store children had told of.
    pub fn answers(&self) -> u64 {
        self.home.ledger.answers()
    }

    /// The longest that a store took to open again.
    pub fn slowest_opening(&self) -> Duration {
        self.home.slowest_opening
    }
}

/// What became of a run with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// The fault happened.
    Happened,
    /// The run had ended before its thread made so many calls.
    NeverCame,
}

/// Runs a child from an empty directory on, with a fault in it, and then looks at every key.
///
/// # Errors
///
/// What was lost, or what else is wrong, and where the store is kept.
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
