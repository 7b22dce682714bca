//! The command line as a whole; each command has its own arguments in its own file.

use clap::{Parser, Subcommand};

use crate::commands::{
    audit, backup, completions, doctor, export, forget, get, in_flight, interrupted, ls, man, reap,
    resolve, restore, salvage, status, top, verify, watch,
};
use crate::output::Format;
use crate::target::Named;

/// Looks into an idempotency store, acts on its keys, verifies and copies it: one that no process
/// has open, or one that a server has open which answers operators.
///
/// No command ever creates a store where there was none.
#[derive(Debug, Parser)]
#[command(name = "refrain", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Print one JSON document
    #[arg(long, global = true, conflicts_with = "jsonl")]
    json: bool,
    /// Print one line of JSON for each item
    #[arg(long, global = true)]
    jsonl: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 open in another process or busy,
5 damaged.";

/// A command with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Status(status::Arguments),
    Get(get::Arguments),
    Ls(ls::Arguments),
    InFlight(in_flight::Arguments),
    Interrupted(interrupted::Arguments),
    Watch(watch::Arguments),
    Top(top::Arguments),
    Resolve(resolve::Arguments),
    Forget(forget::Arguments),
    Reap(reap::Arguments),
    Audit(audit::Arguments),
    Verify(verify::Arguments),
    Salvage(salvage::Arguments),
    Backup(backup::Arguments),
    Restore(restore::Arguments),
    Export(export::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

impl Arguments {
    /// Returns the form of the output that was asked for.
    pub(crate) fn format(&self) -> Format {
        match (self.json, self.jsonl) {
            (true, _) => Format::Document,
            (_, true) => Format::Lines,
            _ => Format::People,
        }
    }
}
