//! Threads under chosen schedules: `tests/schedules`, and the tests of the table of keys in flight.
//! They are built apart, because every dependency is built anew for them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::trial::Failure;

/// Schedules of each test in a trial.
const SCHEDULES: u64 = 2_000;
/// The tests that cargo is told to build: those of whole stores, and the library's own, of which those
/// of the table of keys in flight are run.
const SELECTIONS: [&[&str]; 2] = [&["--test", "schedules"], &["--lib"]];
/// The names of the tests that are run of each selection.
const FILTERS: [Option<&str>; 2] = [None, Some("table::schedules")];

/// The programs that hold the tests, once they are built. They are not built again when a source
/// changes: a trial that waited for cargo was taken for one that does not end.
static PROGRAMS: OnceLock<Result<Vec<PathBuf>, String>> = OnceLock::new();

/// Builds the tests, which takes minutes the first time.
///
/// # Errors
///
/// The message of cargo.
pub fn build() -> Result<(), String> {
    programs().map(drop)
}

fn programs() -> Result<&'static [PathBuf], String> {
    let built = PROGRAMS.get_or_init(|| SELECTIONS.into_iter().map(program).collect());
    built.as_deref().map_err(Clone::clone)
}

/// Builds the tests of a selection, and returns the program that holds them.
fn program(selection: &[&str]) -> Result<PathBuf, String> {
    let root = root();
    let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let mut cargo = Command::new("cargo");
    cargo
        .args(["test", "--release", "--no-run", "-p", "refrain"])
        .args(selection)
        .current_dir(&root);
    cargo.env("RUSTFLAGS", "--cfg shuttle").env("CARGO_TARGET_DIR", target.join("schedules"));
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Cargo names the program of each target: `Executable tests/x.rs (target/…/x-0123)`.
    let line = said.lines().find(|line| line.trim_start().starts_with("Executable"));
    let path = line.and_then(|line| line.rsplit_once('(')?.1.strip_suffix(')'));
    match path {
        Some(path) if output.status.success() => Ok(root.join(path)),
        _ => Err(said.into_owned()),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the tests from a seed on, and returns the number of schedules that they tried.
///
/// # Errors
///
/// The output of the tests, if one failed.
pub fn explore(seed: u64) -> Result<u64, Failure> {
    let again = || format!("schedules --seed {seed}");
    let programs = programs().map_err(|what| Failure { what, again: again() })?;
    programs.iter().zip(FILTERS).map(|(program, filter)| explore_in(program, filter, seed)).sum()
}

fn explore_in(program: &Path, filter: Option<&str>, seed: u64) -> Result<u64, Failure> {
    let first = seed.wrapping_mul(SCHEDULES);
    let again = format!("schedules --seed {seed}");
    let output = Command::new(program)
        .current_dir(root())
        .args(filter)
        .args(["--nocapture", "--quiet", "--skip", "a_seed_repeats_its_schedule"])
        .env("REFRAIN_SCHEDULES", SCHEDULES.to_string())
        .env("REFRAIN_SEED", first.to_string())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return Err(Failure { what: format!("cannot run the tests: {error}"), again });
        }
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
