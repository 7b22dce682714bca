//! `refrain doctor`.

use clap::Args;

use crate::checks;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::target::Target;
use crate::text;

/// Check the directory, its disk and this machine, and say what to change
///
/// The store is not opened, so it may be in use, or damaged.
#[derive(Args, Debug)]
pub(crate) struct Arguments {}

pub(crate) fn run(target: &Target, output: &mut Output) -> Result<()> {
    let checks = checks::all(target.expect_directory()?)?;
    let rows = checks.iter().map(|check| {
        let advice = check.advice.map(|advice| format!("; {advice}")).unwrap_or_default();
        [
            format!("{:<4}", check.verdict.name()),
            check.name.to_owned(),
            check.found.clone() + &advice,
        ]
    });
    output.document(&text::rows(rows), &checks)?;
    let failed = checks.iter().filter(|check| check.has_failed()).count();
    if failed == 0 { Ok(()) } else { Err(Failure::Unfit(failed as u64)) }
}
