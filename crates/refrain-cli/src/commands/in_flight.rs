//! `refrain in-flight`.

use clap::Args;
use refrain::admin::Held;

use crate::failure::Result;
use crate::output::Output;
use crate::target::Target;

/// List the keys that requests hold in the server now, the oldest first
///
/// A store that no process has open has none.
#[derive(Args, Debug)]
pub(crate) struct Arguments {}

pub(crate) fn run(target: &Target, output: &mut Output) -> Result<()> {
    let heading =
        format!("{:<64}  {:<9}  STAGE     WAITING  {:<36}  KEY", "SCOPE", "AGE", "REQUEST");
    target.with(|desk| {
        let mut list = output.list(&heading)?;
        for held in desk.in_flight()? {
            let held = held?;
            list.item(&line(&held), &held)?;
        }
        list.end()
    })
}

fn line(held: &Held) -> String {
    let Held { scope, stage, waiters, .. } = held;
    let age = format!("{:.1} s", held.age_seconds);
    let (request, key) = (held.request_id.to_string(), held.key.as_str());
    format!("{scope}  {age:<9}  {stage:<8}  {waiters:<7}  {request:<36}  {key}")
}
