//! `refrain status`.

use std::fs;
use std::path::Path;

use clap::Args;
use refrain::{Health, Stats, Store};
use rustix::fs::statvfs;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Output;
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
        let (files, bytes) = space(directory)?;
        Ok(Self {
            store: directory.display().to_string(),
            is_ready: health.is_ready(),
            health: health.to_string(),
            files,
            bytes,
            free_bytes: free(directory)?,
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

/// Returns the number of files, and the bytes that they take on the disk.
fn space(directory: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    /// The unit of `st_blocks`.
    const BLOCK: u64 = 512;
    let failed = |source| Failure::File { action: "read", path: directory.into(), source };
    let (mut files, mut bytes) = (0, 0);
    for file in fs::read_dir(directory).map_err(failed)? {
        // One that the store has removed meanwhile takes nothing.
        let Ok(metadata) = file.map_err(failed)?.metadata() else { continue };
        files += 1;
        bytes += metadata.blocks() * BLOCK;
    }
    Ok((files, bytes))
}

/// Returns the bytes that this user may still write.
fn free(directory: &Path) -> Result<u64> {
    let failed = |error: rustix::io::Errno| Failure::File {
        action: "ask for the free space of",
        path: directory.into(),
        source: error.into(),
    };
    let space = statvfs(directory).map_err(failed)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
