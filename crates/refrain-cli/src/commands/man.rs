//! `refrain man`.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use crate::args;
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Print the manual page, or write a page for each command into a directory
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The directory, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

pub(crate) fn run(asked: &Arguments, output: &mut Output) -> Result<()> {
    let command = args::Arguments::command();
    match &asked.into {
        Some(into) => clap_mangen::generate_to(command, into).map_err(|source| Failure::File {
            action: "write the manual pages into",
            path: into.clone(),
            source,
        }),
        None => {
            let mut page = Vec::new();
            let rendered: io::Result<()> = Man::new(command).render(&mut page);
            rendered.map_err(Failure::Output)?;
            output.bytes(&page)
        }
    }
}
