//! `refrain get`.

use clap::Args;
use jiff::Timestamp;
use refrain::Key;

use crate::address::Address;
use crate::entry::Entry;
use crate::failure::{Failure, Result};
use crate::json::Line;
use crate::listing;
use crate::output::Output;
use crate::response::decoded;
use crate::target::Target;

/// Show what is known about a key, and the stored response
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    address: Address,
    /// Print the body of the response alone, as it is
    #[arg(long, conflicts_with_all = ["json", "jsonl"])]
    body: bool,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.address.scope()?;
    let key = &asked.address.key;
    let entry = target.with(|store| listing::find(store, scope, key))?;
    let Some(entry) = entry else {
        return Err(Failure::Unknown { scope, key: key.clone() });
    };
    if asked.body { body(&entry, key, output) } else { all(&entry, output) }
}

fn all(entry: &Entry, output: &mut Output) -> Result<()> {
    let mut shown = entry.facts(Timestamp::now());
    match entry {
        Entry::Completed { record, .. } => match record.response() {
            Some(response) => shown = shown + "\n" + &decoded(response),
            None => shown += "\nThe operation is done, and its response was not kept.\n",
        },
        Entry::Interrupted(_) => {
            shown +=
                "\nNobody knows what the run did. Find out, and tell it with `refrain resolve`.\n";
        }
        Entry::Damaged { .. } => {}
    }
    output.document(&shown, &Line::whole(entry))?;
    match entry {
        Entry::Damaged { key: Some(key), .. } => Err(damaged(key)),
        _ => Ok(()),
    }
}

fn body(entry: &Entry, key: &Key, output: &mut Output) -> Result<()> {
    match entry {
        Entry::Completed { record, .. } => match record.response() {
            Some(response) => output.bytes(response.body()),
            None => Err(no_body(key, "its response was not kept")),
        },
        Entry::Interrupted(_) => Err(no_body(key, "its run was interrupted")),
        Entry::Damaged { .. } => Err(damaged(key)),
    }
}

fn no_body(key: &Key, reason: &str) -> Failure {
    Failure::Absent(format!("{} has no body; {reason}", key.as_str()))
}

fn damaged(key: &Key) -> Failure {
    Failure::Damaged(format!(
        "the record of {key} is damaged; find out what its operation did, and then `refrain forget \
         {key}`",
        key = key.as_str()
    ))
}
