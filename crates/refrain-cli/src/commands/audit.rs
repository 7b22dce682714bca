//! `refrain audit`.

use clap::Args;
use refrain::Key;
use refrain::admin::Note;

use crate::failure::Result;
use crate::output::Output;
use crate::target::Target;
use crate::text::printable;
use crate::time::{moment, timestamp};

/// List what operators have done to the store, the oldest first
///
/// An act is noted before it is done, so one that has failed is listed too. Keys are listed by the
/// beginning of their SHA-256.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only acts on this key
    #[arg(long)]
    key: Option<Key>,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let hash = asked.key.as_ref().map(Note::hash_of);
    let heading = format!("{:<20}  {:<24}  {:<25}  KEY HASH  WHY", "TIME", "WHO", "ACT");
    target.with(|desk| {
        let mut list = output.list(&heading)?;
        for note in desk.audit()? {
            let note = note?;
            if hash.is_none() || note.key_hash == hash {
                list.item(&line(&note), &note)?;
            }
        }
        list.end()
    })
}

fn line(note: &Note) -> String {
    let when = moment(timestamp(note.when));
    let (who, why) = (printable(&note.mandate.who), printable(&note.mandate.why));
    let (act, hash) = (printable(&note.act), note.key_hash.as_deref().unwrap_or("-"));
    let line = format!("{when:<20}  {who:<24}  {act:<25}  {:<8}  {why}", printable(hash));
    line.trim_end().to_owned()
}
