//! `refrain interrupted`.

use clap::Args;
use refrain::admin::Entry;

use crate::failure::Result;
use crate::output::Output;
use crate::owner::Owner;
use crate::target::Target;

/// List the keys whose run was interrupted, of all scopes or of one
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    owner: Owner,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.owner.named()?;
    let heading = format!("{:<64}  ATTEMPT  {:<36}  KEY", "SCOPE", "REQUEST");
    target.with(|desk| {
        let mut list = output.list(&heading)?;
        for entry in desk.interrupted(scope)? {
            let entry = entry?;
            let Entry::Interrupted(run) = &entry else { continue };
            let (request, key) = (run.request_id.to_string(), run.key.as_str());
            let line = format!("{}  {:<7}  {request:<36}  {key}", run.scope, run.attempt);
            list.item(&line, &entry)?;
        }
        list.end()
    })
}
