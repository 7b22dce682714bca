//! The command `refrain`: what an operator reaches for when an idempotency store needs a look.
//!
//! A command parses its arguments in `args`, opens its `target`, and writes to `output`. The
//! modules below say one thing each: `failure` has the exit codes, `advice` the remedies, `desk` what
//! a store or its server is asked for.

mod act;
mod address;
mod advice;
mod answer;
mod args;
mod checks;
mod commands;
mod consent;
mod copying;
mod desk;
mod entry;
mod failure;
mod holder;
mod indent;
mod output;
mod owner;
mod progress;
mod response;
mod served;
mod space;
mod target;
mod text;
mod time;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Err(failure) = commands::run(arguments) else { return ExitCode::SUCCESS };
    if !failure.is_silent() {
        // Without standard error only the exit code is left to tell it.
        let _ = writeln!(std::io::stderr(), "refrain: {failure}");
    }
    ExitCode::from(failure.code())
}
