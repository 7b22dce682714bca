//! The settings that a child gets when it starts, through its environment.

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// The thread that opens the store, by which strace finds it.
pub(super) const OPENER: &str = "opener";

const DIRECTORY: &str = "REFRAIN_KILL_DIRECTORY";
const NUMBERS: [&str; 4] =
    ["REFRAIN_KILL_SEED", "REFRAIN_KILL_ROUND", "REFRAIN_KILL_NOW", "REFRAIN_KILL_TICKS"];

#[derive(Debug)]
pub(super) struct Script {
    pub(super) directory: PathBuf,
    pub(super) seed: u64,
    /// The number of the child, so that no two requests have one id.
    pub(super) round: u64,
    /// The store's time, in milliseconds.
    pub(super) now: u64,
    /// The ticks that the child works for, if nothing ends it before.
    pub(super) ticks: u64,
}

/// Returns true if this process was started to be a child.
pub fn is_child() -> bool {
    std::env::var_os(DIRECTORY).is_some()
}

impl Script {
    pub(super) fn hand_to(&self, command: &mut Command) {
        command.env(DIRECTORY, &self.directory);
        for (name, value) in NUMBERS.into_iter().zip([self.seed, self.round, self.now, self.ticks])
        {
            command.env(name, value.to_string());
        }
    }

    pub(super) fn from_environment() -> io::Result<Self> {
        let missing = |name| io::Error::other(format!("{name} is not set as a parent sets it"));
        let directory = std::env::var_os(DIRECTORY).ok_or_else(|| missing(DIRECTORY))?;
        let [seed, round, now, ticks] = NUMBERS.map(|name| {
            let value = std::env::var(name).ok().and_then(|value| value.parse().ok());
            value.ok_or_else(|| missing(name))
        });
        let (seed, round, now, ticks) = (seed?, round?, now?, ticks?);
        Ok(Self { directory: directory.into(), seed, round, now, ticks })
    }
}
