//! `refrain get`.

use clap::Args;
use jiff::Timestamp;
use refrain::Key;
use refrain::admin::{Completed, Damaged, Entry};

use crate::address::Address;
use crate::entry;
use crate::failure::{Failure, Result};
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
    let found = target.with(|desk| desk.find(scope, key))?;
    let Some(entry) = found else {
        return Err(Failure::Unknown { scope, key: key.clone() });
    };
    if asked.body { body(&entry, key, output) } else { all(&entry, output) }
}

fn all(entry: &Entry, output: &mut Output) -> Result<()> {
    let mut shown = entry::facts(entry, Timestamp::now());
    match entry {
        Entry::Completed(Completed { response, .. }) => {
            match response.as_ref().and_then(Option::as_ref) {
                Some(response) => shown = shown + "\n" + &decoded(response),
                None => shown += "\nThe operation is done, and its response was not kept.\n",
            }
        }
        Entry::Interrupted(_) => {
            shown +=
                "\nNobody knows what the run did. Find out, and tell it with `refrain resolve`.\n";
        }
        Entry::Damaged(_) => {}
    }
    output.document(&shown, entry)?;
    match entry {
        Entry::Damaged(Damaged { key: Some(key), .. }) => Err(damaged(key)),
        _ => Ok(()),
    }
}

fn body(entry: &Entry, key: &Key, output: &mut Output) -> Result<()> {
    match entry {
        Entry::Completed(Completed { response, .. }) => {
            match response.as_ref().and_then(Option::as_ref) {
                Some(response) => output.bytes(&response.body.0),
                None => Err(no_body(key, "its response was not kept")),
            }
        }
        Entry::Interrupted(_) => Err(no_body(key, "its run was interrupted")),
        Entry::Damaged(_) => Err(damaged(key)),
    }
}

fn no_body(key: &Key, reason: &str) -> Failure {
    Failure::Absent(format!("{} has no body; {reason}", key.as_str()))
}

fn damaged(key: &Key) -> Failure {
    Failure::Damaged(format!(
        "the record of {key} is damaged; find out what its operation did, and then `refrain forget \
         {key} --erase`",
        key = key.as_str()
    ))
}
