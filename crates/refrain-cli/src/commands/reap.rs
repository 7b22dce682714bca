//! `refrain reap`.

use clap::Args;
use serde::Serialize;

use crate::act::{said, warn};
use crate::consent::Consent;
use crate::failure::Result;
use crate::output::Output;
use crate::space::Space;
use crate::target::Target;
use crate::text::{count, size};

/// Do at once what an open store does in time: seal what is due, and drop files that have expired
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Remove the bytes of all that was forgotten or has expired; this may rewrite the whole store
    #[arg(long)]
    erase: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Serialize)]
struct Reaped {
    act: &'static str,
    done: bool,
    store: String,
    segments_sealed: u64,
    segments_merged: u64,
    segments_dropped: u64,
    /// The bytes that the files take on the disk, if they are on this machine.
    bytes_before: Option<u64>,
    bytes_after: Option<u64>,
}

fn bytes(target: &Target) -> Result<Option<u64>> {
    target.directory().map(|directory| Ok(Space::of(directory)?.bytes)).transpose()
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let Arguments { erase, consent } = asked;
    consent.expect_possible()?;
    let effect = if *erase {
        "no file of the store has the bytes of what was forgotten or has expired"
    } else {
        "files whose records have all expired are dropped, and logs that are due are sealed"
    };
    let before = bytes(target)?;
    let done = consent.given(&format!("In {}: from now on, {effect}. Do it?", target.name()))?;
    let (stats, earlier) = target.with(|desk| {
        let before = desk.status()?.stats;
        if done {
            warn(&desk.reap(*erase, &consent.mandate())?);
        }
        Ok((desk.status()?.stats, before))
    })?;
    let reaped = Reaped {
        act: if *erase { "erase" } else { "reap" },
        store: target.name(),
        done,
        segments_sealed: stats.segments_sealed.saturating_sub(earlier.segments_sealed),
        segments_merged: stats.segments_merged.saturating_sub(earlier.segments_merged),
        segments_dropped: stats.segments_dropped.saturating_sub(earlier.segments_dropped),
        bytes_before: before,
        bytes_after: bytes(target)?,
    };
    let figures = if done { reaped.shown() } else { String::new() };
    output.document(&(said(done, effect) + &figures), &reaped)
}

impl Reaped {
    fn shown(&self) -> String {
        let segments = count(self.segments_dropped, "segment");
        let sizes = self.bytes_before.zip(self.bytes_after);
        let sizes = sizes.map_or_else(String::new, |(before, after)| {
            format!(", {} before, {} now", size(before), size(after))
        });
        format!("{segments} dropped{sizes}\n")
    }
}
