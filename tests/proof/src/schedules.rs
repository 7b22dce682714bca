//! Threads under chosen schedules: the tests in `src/schedules.rs`, which are built of their own.

use std::path::Path;
use std::process::Command;

use parking_lot::Mutex;

use crate::trial::Failure;

/// Schedules of each test in a trial.
const SCHEDULES: u64 = 2_000;

/// One at a time: each takes all cores, and the first one builds.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the tests from a seed on, and says how many schedules they tried.
///
/// # Errors
///
/// What the tests have printed, if one failed.
pub fn explore(seed: u64) -> Result<u64, Failure> {
    let _turn = TURN.lock();
    let first = seed.wrapping_mul(SCHEDULES);
    let again = format!("schedules --seed {seed}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("cargo")
        .args(["test", "--quiet", "--release", "--lib", "schedules", "--", "--nocapture"])
        .args(["--skip", "a_seed_repeats_its_schedule"])
        .current_dir(&root)
        .env("RUSTFLAGS", "--cfg shuttle")
        .env("CARGO_TARGET_DIR", root.join("target/schedules"))
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
