//! `refrain export`.

use clap::Args;

use crate::entry::Entry;
use crate::failure::{Failure, Result};
use crate::json::Line;
use crate::listing;
use crate::output::Output;
use crate::owner::Owner;
use crate::target::Target;

/// Print all keys of a scope with their responses, one line of JSON each
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    owner: Owner,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.owner.scope()?;
    let damaged = target.with(|store| {
        let mut damaged = 0_u64;
        let interrupted = listing::interrupted(store, Some(scope));
        let interrupted = interrupted.map(|past| Ok(Entry::Interrupted(past?)));
        for entry in listing::whole_records(store, scope).chain(interrupted) {
            let entry = entry?;
            damaged += u64::from(matches!(entry, Entry::Damaged { .. }));
            output.line(&Line::whole(&entry))?;
        }
        Ok(damaged)
    })?;
    match damaged {
        0 => Ok(()),
        keys => Err(Failure::Damaged(format!(
            "{keys} of the lines are damaged keys; find out what their operations did"
        ))),
    }
}
