//! `refrain completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args;
use crate::failure::Result;
use crate::output::Output;

/// Print the completions for a shell
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    shell: Shell,
}

pub(crate) fn run(asked: &Arguments, output: &mut Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut args::Arguments::command(), "refrain", &mut script);
    output.bytes(&script)
}
