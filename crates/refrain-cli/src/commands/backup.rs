//! `refrain backup`.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::space::Space;
use crate::target::{Target, refused};
use crate::text::{self, count, size};
use crate::time::moment;

/// Write a copy of the store into a directory that is empty or missing
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The directory of the copy; its parent must exist
    #[arg(value_name = "DEST")]
    destination: PathBuf,
}

#[derive(Serialize)]
struct Copy {
    store: String,
    backup: String,
    /// All that was recorded before this is in the copy.
    made_at: String,
    files: u64,
    /// On the store's own file system most of them are the store's own.
    bytes: u64,
}

pub(crate) fn run(target: &Target, asked: &Arguments, output: &mut Output) -> Result<()> {
    let destination = &asked.destination;
    let made_at = target.with(|desk| {
        let now = Timestamp::now();
        match desk.backup(destination) {
            Err(Failure::Store(error)) => Err(refused(destination, error)),
            done => done.map(|()| now),
        }
    })?;
    let space = Space::of(destination)?;
    let copy = Copy {
        store: target.name(),
        backup: destination.display().to_string(),
        made_at: made_at.to_string(),
        files: space.files,
        bytes: space.bytes,
    };
    let shown = text::fields([
        ("backup", copy.backup.clone()),
        ("made", moment(made_at)),
        ("size", format!("{} in {}", size(copy.bytes), count(copy.files, "file"))),
    ]);
    output.document(&shown, &copy)
}
