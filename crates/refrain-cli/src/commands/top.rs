//! `refrain top`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;

use clap::Args;
use refrain::Key;
use serde::Serialize;

use crate::entry::Entry;
use crate::failure::Result;
use crate::listing;
use crate::output::Output;
use crate::owner::Owner;
use crate::target::Target;
use crate::text::{self, count, size};

/// Show how much a scope has, and the keys with its largest bodies
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    owner: Owner,
    /// So many of the largest
    #[arg(long, value_name = "N", default_value = "10")]
    count: NonZeroUsize,
}

#[derive(Serialize)]
struct Top {
    scope: String,
    records: u64,
    damaged: u64,
    body_bytes: u64,
    largest_bodies: Vec<Body>,
}

#[derive(Serialize)]
struct Body {
    key: String,
    bytes: u64,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let scope = asked.owner.scope()?;
    let top = target.with(|store| {
        let entries = listing::whole_records(store, scope);
        Top::of(scope.to_string(), entries, asked.count.get())
    })?;
    output.document(&top.shown(), &top)
}

impl Top {
    /// Keeps the largest only, however many entries there are.
    fn of(
        scope: String,
        entries: impl Iterator<Item = Result<Entry>>,
        most: usize,
    ) -> Result<Self> {
        let mut top =
            Self { scope, records: 0, damaged: 0, body_bytes: 0, largest_bodies: Vec::new() };
        // The smallest first, and of two of a size the one with the greater key, so that it goes.
        let mut largest: BinaryHeap<(Reverse<u64>, Key)> = BinaryHeap::new();
        for entry in entries {
            let Entry::Completed { key, record, .. } = entry? else {
                top.damaged += 1;
                continue;
            };
            let bytes = record.response().map_or(0, |response| response.body().len() as u64);
            top.records += 1;
            top.body_bytes += bytes;
            largest.push((Reverse(bytes), key));
            if largest.len() > most {
                largest.pop();
            }
        }
        let sorted = largest.into_sorted_vec().into_iter();
        top.largest_bodies =
            sorted.map(|(Reverse(bytes), key)| Body { key: key.as_str().into(), bytes }).collect();
        Ok(top)
    }

    fn shown(&self) -> String {
        let facts = text::fields([
            ("scope", self.scope.clone()),
            ("records", self.records.to_string()),
            ("damaged", count(self.damaged, "key")),
            ("bodies", size(self.body_bytes)),
        ]);
        let heading = [["BODY".to_owned(), "KEY".to_owned()]];
        let bodies = self.largest_bodies.iter().map(|body| [size(body.bytes), body.key.clone()]);
        facts + "\n" + &text::rows(heading.into_iter().chain(bodies))
    }
}
