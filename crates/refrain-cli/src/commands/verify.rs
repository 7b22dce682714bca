//! `refrain verify`.

use clap::Args;
use refrain::{Error, Scope, Store};
use serde::Serialize;

use crate::entry::Entry;
use crate::failure::{self, Failure, Result};
use crate::listing;
use crate::output::Output;
use crate::owner::Owner;
use crate::progress::Progress;
use crate::space::Space;
use crate::target::Target;
use crate::text::{self, count};

/// Read and verify everything that the store keeps
///
/// With a scope, its damaged keys are named.
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
    damaged_files: usize,
    /// In the segments; one in a log is not counted.
    damaged_records: u64,
    /// Of the scope, if one is named; `null` for a key that cannot be read.
    damaged_keys: Vec<Option<String>>,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.owner.named()?;
    let bytes = Space::of(target.directory())?.lengths;
    let verified = target.with(|store| {
        let progress = Progress::of_verifying(bytes);
        let damage = damage(store)?;
        drop(progress);
        let damaged_keys = scope.map_or(Ok(Vec::new()), |scope| damaged_keys(store, scope))?;
        let stats = store.stats();
        Ok(Verified {
            store: target.directory().display().to_string(),
            is_whole: damage.is_none() && damaged_keys.is_empty() && stats.damaged_records == 0,
            damage,
            damaged_files: stats.damaged_files,
            damaged_records: stats.damaged_records,
            damaged_keys,
        })
    })?;
    output.document(&verified.shown(), &verified)?;
    if verified.is_whole { Ok(()) } else { Err(Failure::Damaged(verified.advice())) }
}

/// Reads everything, and returns the first damage.
fn damage(store: &Store) -> Result<Option<String>> {
    match store.verify() {
        Ok(()) => Ok(None),
        Err(error @ Error::Corrupt { .. }) => Ok(Some(failure::chain(&error))),
        Err(error) => Err(error.into()),
    }
}

fn damaged_keys(store: &Store, scope: Scope) -> Result<Vec<Option<String>>> {
    let entries = listing::records(store, scope, None);
    let damaged = entries.filter_map(|entry| match entry {
        Ok(Entry::Damaged { key, .. }) => Some(Ok(key.map(|key| key.as_str().to_owned()))),
        Ok(_) => None,
        Err(failure) => Some(Err(failure)),
    });
    damaged.collect()
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
        let keys =
            keys.map(|key| ("damaged key", key.clone().unwrap_or("(cannot be read)".into())));
        text::fields(damage.chain(files).chain(records).chain(keys))
    }

    fn advice(&self) -> String {
        let advice = "find out what the operations of damaged keys did, and then `refrain forget` \
                      them; check the disk";
        match self.damaged_keys.len() as u64 {
            0 => format!("the store is damaged; {advice}"),
            keys => {
                format!("the store is damaged, with {} of the scope; {advice}", count(keys, "key"))
            }
        }
    }
}
