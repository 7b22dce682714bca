//! P8, and what else threads could break between them: real stores, with their writer, settler and
//! reaper, under schedules that are chosen (see `sync.rs`).
//!
//! `REFRAIN_SCHEDULES` says how many each test tries, and `REFRAIN_SEED` with which seed it begins.
//! A failure prints the command that repeats it.

use std::collections::HashSet;
use std::ops::Range;
use std::panic;
use std::sync::Once;

use shuttle::thread::JoinHandle;
use shuttle::{Config, FailurePersistence, Runner};

mod batches;
mod claims;
mod closing;
mod expiry;
mod history;
mod machine;
mod medium;
mod seeded;
mod table;
mod waiting;

use seeded::{CURRENT, Seeded};

/// Schedules of each test, unless it is told otherwise.
const SCHEDULES: u64 = 2_000;
/// Sealing is redb's, and needs more than shuttle's own default.
const STACK_BYTES: usize = 256 * 1024;
/// Switches of one schedule, of which none needs a tenth. More means that it goes nowhere.
const MAX_SWITCHES: usize = 100_000;

/// Runs a test's scenario under as many schedules as are asked for.
fn explore<F: Fn() + Send + Sync + 'static>(scenario: F) {
    // The test is what its closure is named after.
    let path = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let name = path.split_once("::").map_or(path, |(_crate, name)| name);
    let (first, count) = (number("REFRAIN_SEED", 0), number("REFRAIN_SCHEDULES", SCHEDULES));
    run(name, first..first.saturating_add(count), scenario);
    let scenario = name.rsplit("::").next().unwrap_or(name);
    println!("schedules {scenario} {count}");
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("it is a number"))
}

/// Runs a scenario once for each seed, and gives a digest of the last schedule.
fn run<F: Fn() + Send + Sync + 'static>(name: &'static str, seeds: Range<u64>, scenario: F) -> u64 {
    say_how_to_repeat();
    NAME.set(name);
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

thread_local!(static NAME: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") });

/// From a hook, since a panic that meets another one ends the process before anyone can report it.
fn say_how_to_repeat() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            if let Some((seed, _)) = CURRENT.get() {
                eprintln!(
                    "repeat it: REFRAIN_SEED={seed} REFRAIN_SCHEDULES=1 RUSTFLAGS='--cfg shuttle' \
                     cargo test --release --lib {}",
                    NAME.get()
                );
            }
            print(what);
        }));
    });
}

#[test]
fn a_seed_repeats_its_schedule() {
    let name = "schedules::a_seed_repeats_its_schedule";
    let digest = |seed| run(name, seed..seed + 1, || batches::end_in_every_way(|_| ()));
    let digests: Vec<u64> = (0..100).map(digest).collect();
    assert!((0..100).map(digest).eq(digests.iter().copied()));
    let different: HashSet<u64> = digests.into_iter().collect();
    assert!(different.len() > 90, "only {} of them differ", different.len());
}
