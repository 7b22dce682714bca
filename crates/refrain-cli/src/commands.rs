//! The commands, and the run of one.

pub(crate) mod get;
pub(crate) mod ls;
pub(crate) mod status;

use crate::args::{Arguments, Command};
use crate::failure::Result;
use crate::output::Output;
use crate::target;

/// Runs a command.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let mut output = Output::new(arguments.format());
    let target = arguments.target();
    let outcome = match arguments.command {
        Command::Status(_) => status::run(&target::named(target)?, &mut output),
        Command::Get(asked) => get::run(&target::named(target)?, &asked, &mut output),
        Command::Ls(asked) => ls::run(&target::named(target)?, &asked, &mut output),
    };
    // What was printed before a failure is shown too.
    let flushed = output.finish();
    outcome.and(flushed)
}
