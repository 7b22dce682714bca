//! The commands, and the run of one.

pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod forget;
pub(crate) mod get;
pub(crate) mod interrupted;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod reap;
pub(crate) mod resolve;
pub(crate) mod restore;
pub(crate) mod salvage;
pub(crate) mod status;
pub(crate) mod top;
pub(crate) mod verify;

use crate::args::{Arguments, Command};
use crate::failure::Result;
use crate::output::Output;
use crate::target::{Target, named};

/// Runs a command.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let mut output = Output::new(arguments.format());
    let outcome = dispatch(arguments.command, arguments.store, &mut output);
    // What was printed before a failure is shown too.
    let flushed = output.finish();
    outcome.and(flushed)
}

fn dispatch(command: Command, store: Option<Target>, output: &mut Output) -> Result<()> {
    match command {
        Command::Status(_) => status::run(&named(store)?, output),
        Command::Get(asked) => get::run(&named(store)?, &asked, output),
        Command::Ls(asked) => ls::run(&named(store)?, &asked, output),
        Command::Interrupted(asked) => interrupted::run(&named(store)?, &asked, output),
        Command::Top(asked) => top::run(&named(store)?, &asked, output),
        Command::Resolve(asked) => resolve::run(&named(store)?, &asked, output),
        Command::Forget(asked) => forget::run(&named(store)?, &asked, output),
        Command::Reap(asked) => reap::run(&named(store)?, &asked, output),
        Command::Verify(asked) => verify::run(&named(store)?, &asked, output),
        Command::Salvage(asked) => salvage::run(&asked, output),
        Command::Backup(asked) => backup::run(&named(store)?, &asked, output),
        Command::Restore(asked) => restore::run(&asked, output),
        Command::Export(asked) => export::run(&named(store)?, &asked, output),
        Command::Doctor(_) => doctor::run(&named(store)?, output),
        Command::Completions(asked) => completions::run(&asked, output),
        Command::Man(asked) => man::run(&asked, output),
    }
}
