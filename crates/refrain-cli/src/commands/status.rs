//! `refrain status`.

use clap::Args;
use refrain::{Stats, admin};
use serde::Serialize;

use crate::failure::Result;
use crate::output::Output;
use crate::space::Space;
use crate::target::Target;
use crate::text::{self, count, size};

/// Show the health of the store and its sizes
#[derive(Args, Debug)]
pub(crate) struct Arguments {}

#[derive(Serialize)]
struct Status {
    store: String,
    /// The server that has the store open, if one has; else this command is the process.
    #[serde(skip)]
    is_served: bool,
    #[serde(flatten)]
    space: Option<Files>,
    #[serde(flatten)]
    status: admin::Status,
}

/// The files of the store, if they are on this machine.
#[derive(Serialize)]
struct Files {
    files: u64,
    bytes: u64,
    free_bytes: u64,
}

pub(crate) fn run(target: &Target, output: &mut Output) -> Result<()> {
    let (status, is_served) = target.with(|desk| Ok((desk.status()?, desk.is_served())))?;
    let space = target.directory().map(Space::of).transpose()?;
    let space =
        space.map(|Space { files, bytes, free, .. }| Files { files, bytes, free_bytes: free });
    let status = Status { store: target.name(), is_served, space, status };
    output.document(&status.shown(), &status)
}

impl Status {
    fn shown(&self) -> String {
        let named = [("store", self.store.clone()), ("health", self.status.health.clone())];
        let server = self.is_served.then(|| {
            ("server", format!("process {}, version {}", self.status.process, self.status.version))
        });
        let space = self.space.iter().flat_map(|Files { files, bytes, free_bytes }| {
            [
                ("size", format!("{} in {}", size(*bytes), count(*files, "file"))),
                ("free space", size(*free_bytes)),
            ]
        });
        let flight = self.is_served.then(|| ("in flight", self.in_flight()));
        let retained = self.status.stats.retained as u64;
        let held = (retained > 0).then(|| ("held", count(retained, "key") + ", until a restart"));
        let facts = named.into_iter().chain(server).chain(space).chain(flight).chain(held);
        text::fields(facts.chain(self.contents()))
    }

    fn in_flight(&self) -> String {
        let keys = count(self.status.stats.in_flight as u64, "key");
        match self.status.oldest_in_flight_seconds {
            Some(age) => format!("{keys}, the oldest for {age:.1} s"),
            None => keys,
        }
    }

    fn contents(&self) -> [(&'static str, String); 4] {
        let stats = &self.status.stats;
        let Stats { logs, log_records, segments, segment_records, open_claims, .. } = *stats;
        let Stats { damaged_records, damaged_files, .. } = *stats;
        let keys = count(damaged_records, "key");
        [
            ("logs", format!("{logs} with {}", count(log_records as u64, "key"))),
            ("segments", format!("{segments} with {}", count(segment_records, "key"))),
            self.claims(open_claims),
            ("damaged", format!("{keys}, {}", count(damaged_files as u64, "file"))),
        ]
    }

    /// At rest nobody holds a claim, so all that are open are interrupted.
    fn claims(&self, open: usize) -> (&'static str, String) {
        let keys = count(open as u64, "key");
        match self.is_served {
            true => ("claimed", keys + ", in flight or interrupted"),
            false => ("interrupted", keys),
        }
    }
}
