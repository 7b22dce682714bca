//! The consent to an act that cannot be undone.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use refrain::admin::Mandate;

use crate::failure::{Failure, Result};

/// The answer to the question, if it was given ahead.
#[derive(Args, Debug)]
pub(crate) struct Consent {
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it without a question, which only a terminal can answer
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// The reason, for the audit
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

impl Consent {
    /// Says who acts, and why: the user, behind `sudo` the one who called it.
    pub(crate) fn mandate(&self) -> Mandate {
        let name =
            ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        let uid = rustix::process::getuid().as_raw();
        let who = name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"));
        Mandate { who, why: self.why.clone() }
    }

    /// Fails if the question could not be asked, so that nothing is opened for it.
    pub(crate) fn expect_possible(&self) -> Result<()> {
        let is_possible = self.yes || self.dry_run || is_terminal();
        let impossible = "nobody can be asked here; give --yes to do it, or --dry-run to see what \
                          would be done";
        is_possible.then_some(()).ok_or_else(|| Failure::Usage(impossible.into()))
    }

    /// Asks, if it has to, and returns true if the act is to be done; false for a dry run. Nobody has
    /// the store open meanwhile: a person may take long, and the server has to start.
    pub(crate) fn given(&self, question: &str) -> Result<bool> {
        if self.yes || self.dry_run {
            return Ok(self.yes);
        }
        let asked = write!(io::stderr(), "{question} [y/N] ");
        asked.map_err(Failure::Output)?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(Failure::Input)?;
        let is_yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        is_yes.then_some(true).ok_or(Failure::Declined)
    }
}

fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}
