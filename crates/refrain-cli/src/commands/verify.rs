//! `refrain verify`.

use clap::Args;
use refrain::admin::{Damaged, Entry};
use refrain::{Key, Scope};
use serde::Serialize;

use crate::desk::Desk;
use crate::failure::{Failure, Result, in_words_of_the_command};
use crate::output::Output;
use crate::owner::Owner;
use crate::progress::Progress;
use crate::space::Space;
use crate::target::Target;
use crate::text::{self, count};

/// Read and verify everything that the store keeps
///
/// The damaged keys are named, those of a scope if one is given.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    owner: Owner,
}

#[derive(Serialize)]
struct Verified {
    store: String,
    is_whole: bool,
    /// The first damage that was found.
    damage: Option<String>,
    /// The damage at which the list of damaged keys ends early.
    unlisted: Option<String>,
    damaged_files: usize,
    /// In the segments; one in a log is not counted.
    damaged_records: u64,
    damaged_keys: Vec<Place>,
}

/// The damaged key; `null` for what cannot be read.
#[derive(Serialize)]
struct Place {
    scope: Option<Scope>,
    key: Option<Key>,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.owner.named()?;
    let space = target.directory().map(Space::of).transpose()?;
    let verified = target.with(|desk| {
        // A server reads in its own process.
        let space = space.filter(|_| !desk.is_served());
        let progress = space.map(|space| Progress::of_verifying(space.lengths));
        let damage = desk.verify()?.map(|damage| in_words_of_the_command(&damage));
        drop(progress);
        let (damaged_keys, unlisted) = damaged_keys(desk, scope)?;
        let stats = desk.status()?.stats;
        Ok(Verified {
            store: target.name(),
            is_whole: damage.is_none()
                && damaged_keys.is_empty()
                && unlisted.is_none()
                && stats.damaged_records == 0
                && stats.damaged_files == 0,
            damage,
            unlisted,
            damaged_files: stats.damaged_files,
            damaged_records: stats.damaged_records,
            damaged_keys,
        })
    })?;
    output.document(&verified.shown(), &verified)?;
    if verified.is_whole { Ok(()) } else { Err(Failure::Damaged(verified.advice())) }
}

/// Lists the damaged keys, and the damage at which the list ends early.
fn damaged_keys(desk: &Desk, scope: Option<Scope>) -> Result<(Vec<Place>, Option<String>)> {
    let mut damaged = Vec::new();
    // Larger responses are read only where they are asked for.
    for entry in desk.records(scope, None, true)? {
        match entry {
            Ok(Entry::Damaged(Damaged { scope, key, .. })) => damaged.push(Place { scope, key }),
            Ok(_) => {}
            Err(failure) if failure.is_damage() => return Ok((damaged, Some(failure.to_string()))),
            Err(failure) => return Err(failure),
        }
    }
    Ok((damaged, None))
}

impl Verified {
    fn shown(&self) -> String {
        if self.is_whole {
            return "everything that the store keeps is whole\n".to_owned();
        }
        let damage = self.damage.iter().map(|damage| ("damage", damage.clone()));
        let files =
            (self.damaged_files > 0).then(|| ("damaged files", self.damaged_files.to_string()));
        let records = (self.damaged_records > 0)
            .then(|| ("in segments", count(self.damaged_records, "damaged key")));
        let keys = self.damaged_keys.iter();
        let keys = keys.map(|place| ("damaged key", place.shown()));
        let rest = self.unlisted.iter().map(|damage| ("then", damage.clone()));
        text::fields(damage.chain(files).chain(records).chain(keys).chain(rest))
    }

    fn advice(&self) -> String {
        if self.damage.is_none() && self.damaged_files > 0 && self.damaged_keys.is_empty() {
            let files = count(self.damaged_files as u64, "file");
            return format!("{files} of the store had damage that cost no key; check the disk");
        }
        let advice = "find out what the operations of damaged keys did, and then `refrain forget \
                      --erase` them; check the disk";
        match self.damaged_keys.len() as u64 {
            0 => format!("the store is damaged; {advice}"),
            keys => {
                format!("the store is damaged, with {}; {advice}", count(keys, "key"))
            }
        }
    }
}

impl Place {
    fn shown(&self) -> String {
        match (&self.key, self.scope) {
            (Some(key), Some(scope)) => format!("{} in scope {scope}", key.as_str()),
            _ => "(cannot be read)".to_owned(),
        }
    }
}
