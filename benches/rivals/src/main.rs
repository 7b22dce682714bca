//! refrain beside the stores that people would use instead, at the same durability.
//!
//! ```text
//! cargo run --release --manifest-path benches/rivals/Cargo.toml -- --quick
//! ```
//!
//! Each store runs in a process of its own, and rounds are interleaved: one of each store, and
//! again. So whatever a shared machine does to one of them it does to all.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use parts::Plan;
use results::Results;
use rivals::Kind;

mod goals;
mod grouped;
mod guest;
mod host;
mod machine;
mod measure;
mod parts;
mod report;
mod results;
mod rivals;
mod server;
mod workload;

/// Measures refrain beside the stores that people would use instead.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Measures for a few minutes: fewer records, rounds and sizes, too few to be judged.
    #[arg(long)]
    quick: bool,
    /// These stores alone.
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// These parts alone; an existing report keeps the others.
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Records in the store before the measurement.
    #[arg(long)]
    records: Option<u64>,
    /// Rounds of each.
    #[arg(long)]
    rounds: Option<usize>,
    /// The directory of the stores, on the disk that is to be measured.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/stores"))]
    directory: PathBuf,
    /// The directory of the report: `docs/benchmarks`, unless the report is about less than all.
    #[arg(long)]
    report: Option<PathBuf>,
}

const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/benchmarks");
const SAVED: &str = "results.json";

impl Args {
    /// The results of other parts in the report, if some parts alone are measured.
    fn earlier(&self) -> Result<Results> {
        match &self.report {
            Some(directory) if !self.part.is_empty() && directory.join(SAVED).exists() => {
                let text = std::fs::read_to_string(directory.join(SAVED))?;
                Ok(serde_json::from_str(&text)?)
            }
            _ => Ok(Results::default()),
        }
    }

    fn report(&self) -> Option<PathBuf> {
        let all = !self.quick && self.only.is_empty() && self.part.is_empty();
        self.report.clone().or_else(|| all.then(|| REPORT.into()))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Writes the report again, from the results that lie beside it.
    Report,
    #[command(hide = true)]
    Host { kind: Kind, directory: PathBuf },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Completes per second, reopening and expiry.
    Stores,
    /// The memory and the disk space that records take.
    Space,
    Lookups,
    /// Opening after a kill, with many small records.
    Reopening,
    /// The tail of latencies while files come and go.
    Stalls,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.command {
        Some(Command::Host { kind, directory }) => host::serve(kind, &directory),
        Some(Command::Report) => {
            let directory = args.report.unwrap_or_else(|| REPORT.into());
            let text = std::fs::read_to_string(directory.join(SAVED));
            let text = text.with_context(|| format!("{}: no results", directory.display()))?;
            report::write(&serde_json::from_str(&text)?, &directory)
        }
        None => {
            let results = measure(&args)?;
            report::print(&results);
            args.report().map_or(Ok(()), |directory| report::write(&results, &directory))
        }
    }
}

fn measure(args: &Args) -> Result<Results> {
    std::fs::create_dir_all(&args.directory)?;
    let directory = tempfile::tempdir_in(&args.directory)?;
    open_to_servers(directory.path())?;
    let (quick, full) = ((30_000, 3, 300, 30_000), (1_000_000, 5, 1_000, 200_000));
    let (records, rounds, millis, counted) = if args.quick { quick } else { full };
    let plan = Plan {
        directory: directory.path(),
        records: args.records.unwrap_or(records),
        rounds: args.rounds.unwrap_or(rounds),
        millis,
        counted,
        killed: if args.quick { &[200_000] } else { &[1_000_000, 10_000_000] },
        bodies: if args.quick { &[parts::KIB] } else { &parts::BODIES },
        only: &args.only,
    };
    let wants = |part| args.part.is_empty() || args.part.contains(&part);
    let machine = machine::describe(directory.path());
    let mut results = Results {
        machine,
        quick: args.quick,
        records: plan.records,
        rounds: plan.rounds,
        ..args.earlier()?
    };
    for (part, run) in [
        (Part::Stores, parts::stores as fn(&Plan<'_>, &mut Results) -> Result<()>),
        (Part::Space, parts::space),
        (Part::Lookups, parts::lookups),
        (Part::Reopening, parts::reopening),
        (Part::Stalls, parts::stalls),
    ] {
        if wants(part) {
            results.forget(part);
            run(&plan, &mut results)?;
            // The next part may go wrong.
            if let Some(directory) = args.report() {
                std::fs::create_dir_all(&directory)?;
                let text = serde_json::to_string_pretty(&results)?;
                std::fs::write(directory.join(SAVED), text)?;
            }
        }
    }
    Ok(results)
}

/// A server that may not run as root works in this directory as another user.
fn open_to_servers(directory: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    Ok(std::fs::set_permissions(directory, mode)?)
}
