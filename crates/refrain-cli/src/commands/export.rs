//! `refrain export`.

use clap::Args;
use refrain::admin::Entry;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::owner::Owner;
use crate::target::Target;

/// Print all keys of a scope, or of all, with their responses, one line of JSON each
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    owner: Owner,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.owner.named()?;
    let damaged = target.with(|desk| {
        let mut damaged = 0_u64;
        for entry in desk.records(scope, None, true)?.chain(desk.interrupted(scope)?) {
            let entry = entry?;
            damaged += u64::from(matches!(entry, Entry::Damaged(_)));
            output.line(&entry)?;
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
