//! Threads under chosen schedules: `tests/schedules`, and the tests of the table of keys in flight.
//! They are built apart, because every dependency is built anew for them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::trial::Failure;

/// Schedules of each test in a trial.
const SCHEDULES: u64 = 2_000;
/// The tests that cargo is told to run: those of whole stores, and of the table of keys in flight.
const SELECTIONS: [[&str; 2]; 2] = [["--test", "schedules"], ["--lib", "table::schedules"]];

/// Builds the tests, which takes minutes the first time.
///
/// # Errors
///
/// The message of cargo.
pub fn build() -> Result<(), String> {
    for selection in SELECTIONS {
        let output = cargo(selection).arg("--no-run").output();
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(())
}

fn cargo(selection: [&str; 2]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--release"]).args(selection);
    cargo.current_dir(&root).env("RUSTFLAGS", "--cfg shuttle");
    cargo.env("CARGO_TARGET_DIR", target.join("schedules"));
    cargo
}

/// Runs the tests from a seed on, and returns the number of schedules that they tried.
///
/// # Errors
///
/// The output of the tests, if one failed.
pub fn explore(seed: u64) -> Result<u64, Failure> {
    SELECTIONS.into_iter().map(|selection| explore_in(selection, seed)).sum()
}

fn explore_in(selection: [&str; 2], seed: u64) -> Result<u64, Failure> {
    let first = seed.wrapping_mul(SCHEDULES);
    let again = format!("schedules --seed {seed}");
    let output = cargo(selection)
        .args(["--", "--nocapture", "--skip", "a_seed_repeats_its_schedule"])
        .env("REFRAIN_SCHEDULES", SCHEDULES.to_string())
        .env("REFRAIN_SEED", first.to_string())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return Err(Failure { what: format!("cannot run cargo: {error}"), again }),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let what = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
        return Err(Failure { what, again });
    }
    let counts = said.lines().filter_map(|line| line.split_once("schedules ")?.1.split_once(' '));
    match counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum() {
        0 => Err(Failure { what: "no test has run".to_owned(), again }),
        count => Ok(count),
    }
}
