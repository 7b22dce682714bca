//! `refrain salvage`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use refrain::salvage::{Loss, Salvage};
use refrain::{Builder, Store};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::target::{MANIFEST, expect_own, refused};
use crate::text;
use crate::time::timestamp;

/// Write what can be proved of a damaged store into a new one; the damaged one is only read
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The directory of the damaged store
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The directory of the new store, empty or missing; its parent must exist
    #[arg(value_name = "INTO")]
    into: PathBuf,
    /// The longest TTL that the store has had, as 24h: `MANIFEST` has it too, unless it is lost
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
}

impl Arguments {
    fn builder(&self) -> Result<Builder> {
        if self.ttl.is_none() && !self.from.join(MANIFEST).exists() && self.from.exists() {
            return Err(Failure::Usage(format!(
                "{} has no {MANIFEST}, which says for how long damaged keys are to be known; give \
                 --ttl with the longest TTL that the store has had, as 24h",
                self.from.display()
            )));
        }
        let builder = Store::builder();
        Ok(match self.ttl {
            Some(ttl) => builder.ttl(ttl),
            None => builder,
        })
    }
}

#[derive(Serialize)]
struct Report {
    records: u64,
    open_claims: u64,
    damaged_keys: u64,
    /// Those of the damaged keys whose names can be read.
    damaged: Vec<Named>,
    losses: Vec<Lost>,
    /// True if no key is missing.
    is_absence_proven: bool,
}

#[derive(Serialize)]
struct Named {
    scope: String,
    key: String,
}

#[derive(Serialize)]
struct Lost {
    file: String,
    /// The first byte, and the one behind the last.
    bytes: Option<[u64; 2]>,
    written: Option<[String; 2]>,
    reason: String,
    hides_keys: bool,
}

pub(crate) fn run(asked: &Arguments, output: &mut Output) -> Result<()> {
    expect_own(&asked.from)?;
    let salvaged = asked.builder()?.salvage(&asked.from, &asked.into);
    let salvage = salvaged.map_err(|error| refused(&asked.from, error))?;
    let report = Report::of(&salvage);
    let mut shown = format!("{salvage}\n");
    for Named { scope, key } in &report.damaged {
        shown += &format!("damaged: {key} in scope {scope}\n");
    }
    output.document(&text::printable(&shown), &report)?;
    if !report.is_absence_proven {
        return Err(Failure::Damaged(
            "keys may be missing; find out what the operations of that time did before clients \
             come back"
                .into(),
        ));
    }
    match report.damaged_keys {
        0 => Ok(()),
        keys => Err(Failure::Damaged(format!(
            "{} damaged; find out what the operations did, and then `refrain forget` them",
            if keys == 1 { "1 key is".to_owned() } else { format!("{keys} keys are") }
        ))),
    }
}

impl Report {
    fn of(salvage: &Salvage) -> Self {
        let named = salvage.damaged.iter();
        let named = named
            .map(|(scope, key)| Named { scope: scope.to_string(), key: key.as_str().to_owned() });
        Self {
            records: salvage.records,
            open_claims: salvage.open_claims,
            damaged_keys: salvage.damaged_keys,
            damaged: named.collect(),
            losses: salvage.losses.iter().map(Lost::of).collect(),
            is_absence_proven: salvage.is_absence_proven(),
        }
    }
}

impl Lost {
    fn of(loss: &Loss) -> Self {
        let written = loss.written.map(|(from, to)| [from, to]);
        Self {
            file: loss.file.display().to_string(),
            bytes: loss.bytes.as_ref().map(|bytes| [bytes.start, bytes.end]),
            written: written.map(|times| times.map(|time| timestamp(time).to_string())),
            reason: loss.reason.clone(),
            hides_keys: loss.hides_keys,
        }
    }
}
