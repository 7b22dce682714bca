//! `refrain restore`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use jiff::Timestamp;
use refrain::Store;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::copying::Copying;
use crate::failure::{Failure, Result};
use crate::holder::Holder;
use crate::output::Output;
use crate::target::{self, LOCK, MANIFEST};
use crate::text;
use crate::time::{between, moment, timestamp};

/// The file with the moment of a backup.
const MADE: &str = "MADE";

/// Copy a backup into a new directory, and verify it there; the backup stays as it is
///
/// Keys that were recorded since the backup are forgotten: they run again, and nothing says so.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The directory of the backup
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// The directory for the store, empty or missing; its parent must exist
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Without it, nothing is written, and the time of those keys is told
    #[arg(long)]
    i_know_that_keys_since_are_forgotten: bool,
}

#[derive(Serialize)]
struct Restored {
    store: String,
    backup: String,
    /// Keys that were recorded between the two are forgotten.
    forgotten_from: String,
    forgotten_until: String,
}

pub(crate) fn run(asked: &Arguments, output: &mut Output) -> Result<()> {
    let backup = &asked.backup;
    target::expect_own(backup)?;
    let made = timestamp(begun_at(backup)?);
    let now = Timestamp::now();
    let window = format!("from {} to {} ({})", moment(made), moment(now), between(made, now));
    if !asked.i_know_that_keys_since_are_forgotten {
        return Err(Failure::Usage(format!(
            "keys that were recorded {window} would be forgotten, and run again; keep clients out, \
             and give --i-know-that-keys-since-are-forgotten"
        )));
    }
    let _unused = reserved(backup)?;
    Copying::begin(backup, &asked.into)?.finish()?;
    verified(&asked.into)?;
    let restored = Restored {
        store: asked.into.display().to_string(),
        backup: backup.display().to_string(),
        forgotten_from: made.to_string(),
        forgotten_until: now.to_string(),
    };
    let shown = text::fields([
        ("restored", format!("{} is whole, and a store of its own", restored.store)),
        ("forgotten", format!("keys that were recorded {window}")),
        ("next", "keep clients out for one TTL from now, or find out what those did".to_owned()),
    ]);
    output.document(&shown, &restored)
}

/// Returns the time from which on records may be missing in a backup: the one in its `MADE`, or else,
/// as in a copy of a store that was at rest, the time at which its `MANIFEST` was written.
fn begun_at(backup: &Path) -> Result<SystemTime> {
    let lists = [LOCK, MANIFEST].map(|name| fs::metadata(backup.join(name)));
    let [Ok(_), Ok(manifest)] = lists else { return Err(target::missing(backup)) };
    if let Ok(made) = fs::read_to_string(backup.join(MADE))
        && let Ok(seconds) = made.trim().parse()
        && let Some(made) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    {
        return Ok(made);
    }
    let failed = |source| Failure::File { action: "read the time of", path: backup.into(), source };
    manifest.modified().map_err(failed)
}

/// Makes sure that no process has the backup open, and that none opens it meanwhile.
fn reserved(backup: &Path) -> Result<File> {
    let failed = |source| Failure::File { action: "open", path: backup.into(), source };
    let directory = File::open(backup).map_err(failed)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {
            Err(Failure::InUse { path: backup.into(), holder: Holder::of(backup) })
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// Opens the copy, which makes a store of it, and reads all of it.
fn verified(store: &Path) -> Result<()> {
    let store = Store::open_existing(store).map_err(|error| target::refused(store, error))?;
    let verified = store.verify();
    store.close(Duration::ZERO).wait()?;
    Ok(verified?)
}
