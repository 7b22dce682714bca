//! `refrain interrupted`.

use clap::Args;

use crate::entry::Entry;
use crate::failure::Result;
use crate::json::Line;
use crate::listing;
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
    target.with(|store| {
        let mut list = output.list(&heading)?;
        for past in listing::interrupted(store, scope) {
            let past = past?;
            let (scope, request, key) =
                (past.scope, past.request_id.to_string(), past.key.as_str());
            let line = format!("{scope}  {:<7}  {request:<36}  {key}", past.attempt);
            list.item(&line, &Line::summary(&Entry::Interrupted(past)))?;
        }
        list.end()
    })
}
