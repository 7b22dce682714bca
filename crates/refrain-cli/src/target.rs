//! The store that a command works on.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use refrain::codec::MAX_BODY_BYTES;
use refrain::{Error, Store};

use crate::failure::{Failure, Result};
use crate::holder::Holder;

/// The file with the identity of a store.
pub(crate) const LOCK: &str = "LOCK";
/// The file with the list of a store's files.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// The file that a backup has until it is finished.
const UNFINISHED: &str = "BACKUP";

/// A place where a store is.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A directory that no process has open.
    Directory(PathBuf),
}

impl FromStr for Target {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        Ok(Self::Directory(text.into()))
    }
}

/// Returns the target, which has to be named.
pub(crate) fn named(target: Option<Target>) -> Result<Target> {
    let unnamed = "no store is named; give its directory with --store, or in REFRAIN_STORE";
    target.ok_or_else(|| Failure::Usage(unnamed.into()))
}

impl Target {
    /// Opens the store, which must be there, lets `work` use it, and closes it again.
    ///
    /// Opening writes: it begins a new log, and the store does its work while it is open.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Store) -> Result<T>) -> Result<T> {
        let store = self.open()?;
        let done = work(&store);
        // Nothing is in flight, and each verdict was waited for: what is left is to let go.
        let closed = store.close(Duration::ZERO).wait();
        let done = done?;
        closed?;
        Ok(done)
    }

    fn open(&self) -> Result<Store> {
        let Self::Directory(path) = self;
        // A response that an operator hands in may be as long as any.
        let builder = Store::builder().max_response_bytes(MAX_BODY_BYTES);
        builder.open_existing(path).map_err(|error| refused(path, error))
    }

    /// Returns the directory that holds the store.
    pub(crate) fn directory(&self) -> &Path {
        let Self::Directory(path) = self;
        path
    }
}

/// Says that there is no store in a directory, or only half of a backup.
pub(crate) fn missing(path: &Path) -> Failure {
    let lost = [LOCK, MANIFEST].into_iter().find(|name| !path.join(name).exists());
    match lost {
        _ if path.join(UNFINISHED).exists() => Failure::CutShort(path.into()),
        Some(name) if has_files(path) => Failure::Damaged(format!(
            "{} has files of a store, and no {name}; restore it, or write what can be proved into a \
             new store with `refrain salvage`",
            path.display()
        )),
        _ => Failure::Missing(path.into()),
    }
}

/// Returns true if a directory has a file that only stores have.
fn has_files(path: &Path) -> bool {
    let is_of_store = |name: &str| {
        let number = name.strip_suffix(".log").or_else(|| name.strip_suffix(".redb"));
        let is_number =
            |number: &str| number.len() == 16 && u64::from_str_radix(number, 16).is_ok();
        name == MANIFEST || number.is_some_and(is_number)
    };
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_str().is_some_and(is_of_store))
}

/// Says why a directory does not open, as exactly as it can be seen.
pub(crate) fn refused(path: &Path, error: Error) -> Failure {
    match error {
        Error::Locked { .. } => Failure::Held { path: path.into(), holder: Holder::of(path) },
        Error::Corrupt { .. } | Error::Foreign { .. } if path.join(UNFINISHED).exists() => {
            Failure::CutShort(path.into())
        }
        Error::Missing { .. } => missing(path),
        error => Failure::Store(error),
    }
}
