//! Runs a scenario under many schedules, and prints the command that repeats the one that fails.
//!
//! The tests of the in-flight table (`src/table/schedules.rs`) include this file too.

use std::ops::Range;
use std::panic;
use std::sync::Once;

use shuttle::thread::JoinHandle;
use shuttle::{Config, FailurePersistence, Runner};

// The path is the same from both places that include this file.
#[path = "explorer/seeded.rs"]
mod seeded;

use seeded::{CURRENT, Seeded};

/// Schedules of each test, unless it is told otherwise.
const SCHEDULES: u64 = 2_000;
/// Sealing is redb's, and needs more than shuttle's own default.
const STACK_BYTES: usize = 256 * 1024;
/// Switches of one schedule, of which none needs a tenth. More means that it goes nowhere.
const MAX_SWITCHES: usize = 100_000;

/// Runs a test's scenario under as many schedules as are asked for.
pub(super) fn explore<F: Fn() + Send + Sync + 'static>(scenario: F) {
    // The test is what its closure is named after.
    let test = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let (first, count) = (number("REFRAIN_SEED", 0), number("REFRAIN_SCHEDULES", SCHEDULES));
    run(test, first..first.saturating_add(count), scenario);
    let scenario = test.rsplit("::").next().unwrap_or(test);
    println!("schedules {scenario} {count}");
}

pub(super) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("it is a number"))
}

/// Runs a test's scenario once for each seed, and returns a digest of the last schedule.
pub(super) fn run<F: Fn() + Send + Sync + 'static>(
    test: &'static str,
    seeds: Range<u64>,
    scenario: F,
) -> u64 {
    say_how_to_repeat();
    TEST.set(test);
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    // It says that weaker orderings than the strongest are not modelled.
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = shuttle::MaxSteps::FailAfter(MAX_SWITCHES);
    Runner::new(Seeded::new(seeds), config).run(scenario);
    let (_, digest) = CURRENT.take().expect("there is a seed");
    digest
}

// The path of the test that runs on this thread, its crate first.
thread_local!(static TEST: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") });

/// From a hook, since a panic that meets another one ends the process before anyone can report it.
fn say_how_to_repeat() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            if let (Some((seed, _)), Some((of, name))) =
                (CURRENT.get(), TEST.get().split_once("::"))
            {
                let target = if of == "refrain" { "--lib" } else { "--test schedules" };
                eprintln!(
                    "repeat it: REFRAIN_SEED={seed} REFRAIN_SCHEDULES=1 RUSTFLAGS='--cfg shuttle' \
                     CARGO_TARGET_DIR=target/schedules cargo test --release {target} {name}"
                );
            }
            print(what);
        }));
    });
}
