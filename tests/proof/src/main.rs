//! `soak`: tries to break a store in every way, for as long as it is told to.

use std::io::{self, IsTerminal, Write};
use std::num::NonZero;
use std::process::{self, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use refrain_proof::chance::Chance;
use refrain_proof::kill::{self, Injected, Kills};
use refrain_proof::lane::{Goal, Lane, Race};
use refrain_proof::machine::Fault;
use refrain_proof::trial::Failure;
use refrain_proof::{codec, cuts, faults, fleet, histories, reached, rot, schedules};

/// Tries to break a store in every way: power cuts, disks that fail, kills, rot, and histories that
/// are held against a model.
#[derive(Parser)]
#[command(
    bin_name = "cargo run --release -p refrain-proof --",
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    /// The time to run for, such as 10m or 2h; 1m if neither it nor a count is given
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// The count at which a lane is done
    #[arg(long)]
    count: Option<u64>,
    /// The first seed; each seed is another trial
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of failures that end the run
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    max_failures: usize,
    /// The lanes to run; all if none is named
    #[arg(long, value_name = "LANE", value_parser = LANES)]
    only: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// One trial, or as much as is tried before every change.
#[derive(Subcommand)]
enum Command {
    /// As much as is tried before every change
    Ci,
    /// Power cuts everywhere in one history
    Cuts {
        #[arg(long)]
        seed: u64,
    },
    /// One operation of the disk fails, or each in turn
    Faults {
        /// The workload, or, if all of its operations fail, eight times that and the way
        #[arg(long)]
        seed: u64,
        /// The way in which the operation fails
        #[arg(long, requires = "at")]
        kind: Option<Kind>,
        /// The number of operations that succeed before
        #[arg(long, requires = "kind")]
        at: Option<u64>,
        /// All later ones fail too
        #[arg(long)]
        for_good: bool,
    },
    /// A sync fails, then the process ends, then the power fails
    Syncs {
        #[arg(long)]
        seed: u64,
    },
    /// One long history against the model
    Histories {
        #[arg(long)]
        seed: u64,
    },
    /// All short histories with one beginning
    Short {
        /// The beginning's number
        #[arg(long)]
        seed: u64,
    },
    /// Damage to the files that one history left
    Rot {
        #[arg(long)]
        seed: u64,
    },
    /// Processes that are killed at random
    Kills {
        #[arg(long)]
        seed: u64,
    },
    /// A process that is killed, or fails, at one of its system calls
    Inject {
        #[arg(long)]
        seed: u64,
    },
    /// Threads under chosen schedules
    Schedules {
        #[arg(long)]
        seed: u64,
    },
    /// Records that were damaged
    Codec {
        #[arg(long)]
        seed: u64,
    },
    /// A group of histories of three nodes over PostgreSQL
    Fleet {
        #[arg(long)]
        seed: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Broken,
    Full,
    NoRoom,
    Short,
    Sync,
}

impl From<Kind> for Fault {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Broken => Self::Broken,
            Kind::Full => Self::Full,
            Kind::NoRoom => Self::NoRoom,
            Kind::Short => Self::Short,
            Kind::Sync => Self::Sync,
        }
    }
}

/// The names of the lanes.
const LANES: [&str; 11] = [
    "cuts",
    "faults",
    "syncs",
    "histories",
    "short",
    "rot",
    "kills",
    "inject",
    "schedules",
    "codec",
    "fleet",
];

/// The time of a run, unless another one or a count is given.
const TIME: Duration = Duration::from_secs(60);
/// Trials wait for the pauses of sealing, so there are more threads than cores.
const THREADS_PER_CORE: usize = 4;

fn main() -> ExitCode {
    if kill::is_child() {
        return kill::child_main().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if fleet::is_node() {
        return fleet::node_main().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        None => {
            let mut lanes = chosen(&arguments.only);
            lanes.retain(|lane| is_ready(lane.name));
            let time = arguments.time.or(arguments.count.is_none().then_some(TIME));
            if let Some(count) = arguments.count {
                lanes.iter_mut().for_each(|lane| lane.goal = Goal::Count(count));
            }
            return race(&Race::new(lanes, arguments.seed, time, arguments.max_failures));
        }
        Some(Command::Ci) => return race(&Race::new(ci_lanes(), 1, None, 1)),
        Some(Command::Cuts { seed }) => cuts::explore(seed),
        Some(Command::Faults { seed, kind: Some(kind), at: Some(at), for_good }) => {
            faults::fail_at(seed, kind.into(), at, for_good).map(u64::from)
        }
        Some(Command::Faults { seed, .. }) => faults::fail_everywhere(seed),
        Some(Command::Syncs { seed }) => faults::fail_sync(seed).map(u64::from),
        Some(Command::Histories { seed }) => histories::long(seed),
        Some(Command::Short { seed }) => histories::short(seed),
        Some(Command::Rot { seed }) => rot::explore(seed),
        Some(Command::Kills { seed }) => kill_at_random(seed),
        Some(Command::Inject { seed }) => inject(seed),
        Some(Command::Schedules { seed }) => schedules::explore(seed),
        Some(Command::Codec { seed }) => codec::explore(seed),
        Some(Command::Fleet { seed }) => fleet::explore(seed, &this_again),
    };
    match outcome {
        Ok(count) => {
            say(&format!("{count} tried, and nothing went wrong\n"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say(&format!("{failure}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Runs lanes side by side, and prints what came of it.
fn race(race: &Race) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let terminal = io::stderr().is_terminal();
    let mut beats = 0_u64;
    race.run(cores * THREADS_PER_CORE, |race| {
        if let Some(failure) = race.standstill() {
            say(&format!("{failure}\n{race}"));
            // Its thread cannot be ended otherwise.
            process::exit(1);
        }
        tell(race);
        beats += 1;
        if terminal {
            note(&format!("\r{}", race.line()));
        } else if beats.is_multiple_of(30) {
            note(&format!("{}\n", race.line()));
        }
    });
    if terminal {
        note("\n");
    }
    tell(race);
    say(&format!("{race}{}{}", reached::line(), fleet::lines()));
    match race.failures() {
        0 => say("nothing went wrong\n"),
        failures => {
            say(&format!("{failures} trials failed: each is told above, with its repetition\n"));
        }
    }
    if race.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the failures since the last call.
fn tell(race: &Race) {
    for (lane, failure) in race.new_failures() {
        say(&format!("{lane}: {failure}\n"));
    }
}

/// The lanes that were asked for, or all.
fn chosen(only: &[String]) -> Vec<Lane> {
    let mut lanes = lanes();
    lanes.retain(|lane| only.is_empty() || only.iter().any(|name| name == lane.name));
    lanes
}

/// Returns true if this machine has what a lane needs. What takes long to build is built before the
/// time counts.
fn is_ready(lane: &str) -> bool {
    let missing = match lane {
        "inject" => match process::Command::new("strace").arg("-V").output() {
            Ok(_) => return true,
            Err(_) => "strace is not here, which injects the faults".to_owned(),
        },
        "schedules" => {
            note("building the tests of schedules, which takes minutes the first time\n");
            match schedules::build() {
                Ok(()) => return true,
                Err(error) => error,
            }
        }
        "fleet" if !fleet::is_installed() => {
            "PostgreSQL's server is not installed, nor named in REFRAIN_POSTGRES".to_owned()
        }
        _ => return true,
    };
    note(&format!("{lane} is left out: {missing}\n"));
    false
}

/// The lanes, which run until time is up.
fn lanes() -> Vec<Lane> {
    vec![
        lane("cuts", "crash images", 8, Goal::Never, cuts::explore),
        lane("faults", "failed operations", 3, Goal::Never, faults::fail_somewhere),
        lane("syncs", "failed syncs", 3, Goal::Never, |seed| {
            faults::fail_sync(seed).map(u64::from)
        }),
        lane("histories", "histories", 3, Goal::Never, histories::long),
        lane("short", "short histories", 2, Goal::Seeds(histories::beginnings()), histories::short),
        lane("rot", "damages", 2, Goal::Never, rot::explore),
        lane("kills", "kills at random", 2, Goal::Never, kill_at_random),
        lane("inject", "kills and errors at a call", 2, Goal::Never, inject),
        Lane { at_once: 1, ..lane("schedules", "schedules", 2, Goal::Never, schedules::explore) },
        lane("codec", "codec executions", 2, Goal::Never, codec::explore),
        Lane {
            at_once: 3,
            ..lane("fleet", "histories of 3 nodes", 2, Goal::Never, |seed| {
                fleet::explore(seed, &this_again)
            })
        },
    ]
}

fn kill_at_random(seed: u64) -> Result<u64, Failure> {
    let again = format!("kills --seed {seed}");
    let kills = Kills::new(seed, Box::new(this_again)).map_err(|error| error.to_string());
    let killed = kills.and_then(|mut kills| kills.random_round().map(|()| kills.kills()));
    killed.map_err(|what| Failure { what, again })
}

fn inject(seed: u64) -> Result<u64, Failure> {
    let fault = kill::Fault::draw(&mut Chance::new(seed));
    match kill::injected(fault, seed, &this_again) {
        Ok(Injected::Happened) => Ok(1),
        Ok(Injected::NeverCame) => Ok(0),
        Err(what) => Err(Failure { what, again: format!("inject --seed {seed}") }),
    }
}

/// The command that starts this program again, to be killed.
fn this_again() -> process::Command {
    process::Command::new(std::env::current_exe().expect("a program has a file"))
}

/// The lanes, each until it has come far enough. Schedules have a step of their own, and so have
/// nodes over PostgreSQL.
fn ci_lanes() -> Vec<Lane> {
    let goal = |lane: &Lane| match lane.name {
        "cuts" => Goal::Count(50_000),
        "faults" => Goal::Seeds(3 * faults::WAYS),
        "syncs" => Goal::Count(5_000),
        "histories" => Goal::Count(500),
        "rot" => Goal::Count(10_000),
        "kills" => Goal::Count(50),
        "inject" => Goal::Count(50),
        "codec" => Goal::Count(10_000_000),
        _ => lane.goal,
    };
    let lanes = lanes().into_iter().filter(|lane| !["schedules", "fleet"].contains(&lane.name));
    let lanes = lanes.map(|lane| Lane { goal: goal(&lane), ..lane });
    // Every operation of some workloads, where the others draw.
    lanes
        .map(|lane| match lane.name {
            "faults" => Lane { trial: Box::new(faults::fail_everywhere), ..lane },
            _ => lane,
        })
        .collect()
}

fn lane(
    name: &'static str,
    counts: &'static str,
    share: u32,
    goal: Goal,
    trial: impl Fn(u64) -> Result<u64, Failure> + Send + Sync + 'static,
) -> Lane {
    Lane { name, counts, share, goal, trial: Box::new(trial), at_once: usize::MAX }
}

fn say(text: &str) {
    // Whoever closed the pipe has seen enough.
    let _ = io::stdout().write_all(text.as_bytes());
}

fn note(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
