//! `refrain status`.

use std::path::Path;

use clap::Args;
use refrain::{Health, Stats, Store};
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
    health: String,
    /// True if new keys would be served.
    is_ready: bool,
    files: u64,
    bytes: u64,
    free_bytes: u64,
    stats: Stats,
}

pub(crate) fn run(target: &Target, output: &mut Output) -> Result<()> {
    let status = target.with(|store| Status::of(store, target.directory()))?;
    output.document(&status.shown(), &status)
}

impl Status {
    fn of(store: &Store, directory: &Path) -> Result<Self> {
        let health: Health = store.health();
        let Space { files, bytes, free, .. } = Space::of(directory)?;
        Ok(Self {
            store: directory.display().to_string(),
            is_ready: health.is_ready(),
            health: health.to_string(),
            files,
            bytes,
            free_bytes: free,
            stats: store.stats(),
        })
    }

    fn shown(&self) -> String {
        let Stats { logs, log_records, segments, segment_records, open_claims, .. } = self.stats;
        let Stats { damaged_records, damaged_files, .. } = self.stats;
        let keys = count(damaged_records, "key");
        text::fields([
            ("store", self.store.clone()),
            ("health", self.health.clone()),
            ("size", format!("{} in {}", size(self.bytes), count(self.files, "file"))),
            ("free space", size(self.free_bytes)),
            ("logs", format!("{logs} with {}", count(log_records as u64, "key"))),
            ("segments", format!("{segments} with {}", count(segment_records, "key"))),
            // At rest nobody holds a claim.
            ("interrupted", count(open_claims as u64, "key")),
            ("damaged", format!("{keys}, {}", count(damaged_files as u64, "file"))),
        ])
    }
}
