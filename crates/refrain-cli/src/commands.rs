//! The commands, and the run of one.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod forget;
pub(crate) mod get;
pub(crate) mod in_flight;
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
pub(crate) mod watch;

use crate::args::{Arguments, Command};
use crate::failure::Result;
use crate::output::Output;
use crate::target::Named;

/// Runs a command.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let mut output = Output::new(arguments.format());
    let outcome = dispatch(arguments.command, arguments.named, &mut output);
    // What was printed before a failure is shown too.
    let flushed = output.finish();
    outcome.and(flushed)
}

fn dispatch(command: Command, named: Named, output: &mut Output) -> Result<()> {
    match command {
        Command::Status(_) => status::run(&named.target()?, output),
        Command::Get(asked) => get::run(&named.target()?, &asked, output),
        Command::Ls(asked) => ls::run(&named.target()?, &asked, output),
        Command::InFlight(_) => in_flight::run(&named.target()?, output),
        Command::Watch(asked) => watch::run(&named.target()?, &asked, output),
        Command::Interrupted(asked) => interrupted::run(&named.target()?, &asked, output),
        Command::Top(asked) => top::run(&named.target()?, &asked, output),
        Command::Resolve(asked) => resolve::run(&named.target()?, &asked, output),
        Command::Forget(asked) => forget::run(&named.target()?, &asked, output),
        Command::Reap(asked) => reap::run(&named.target()?, &asked, output),
        Command::Audit(asked) => audit::run(&named.target()?, &asked, output),
        Command::Verify(asked) => verify::run(&named.target()?, &asked, output),
        Command::Salvage(asked) => salvage::run(&asked, output),
        Command::Backup(asked) => backup::run(&named.target()?, &asked, output),
        Command::Restore(asked) => restore::run(&asked, output),
        Command::Export(asked) => export::run(&named.target()?, &asked, output),
        Command::Doctor(_) => doctor::run(&named.target()?, output),
        Command::Completions(asked) => completions::run(&asked, output),
        Command::Man(asked) => man::run(&asked, output),
    }
}
