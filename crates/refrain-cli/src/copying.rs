//! A copy of a store that nobody has open, file by file.
//!
//! Invariants:
//! - `MANIFEST` comes last, so that a copy that was cut short does not open.
//! - A copy that fails removes what it has written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};
use crate::target::{LOCK, MANIFEST};

/// The endings of a store's other files.
const ENDINGS: [&str; 2] = ["log", "redb"];

/// A copy that is being made.
pub(crate) struct Copying {
    from: PathBuf,
    into: PathBuf,
    /// The names, in the order in which they are copied.
    names: Vec<PathBuf>,
    made_directory: bool,
    written: Vec<PathBuf>,
}

impl Copying {
    /// Makes the directory, which must be empty if it is there.
    pub(crate) fn begin(from: &Path, into: &Path) -> Result<Self> {
        let names = names(from).map_err(|source| failed("read", from, source))?;
        let made_directory = match DirBuilder::new().mode(0o700).create(into) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed("make", into, error)),
        };
        let mut held = fs::read_dir(into).map_err(|source| failed("read", into, source))?;
        if held.next().is_some() {
            return Err(Failure::Usage(format!(
                "{} is not empty; name a directory that is, or that is to be made",
                into.display()
            )));
        }
        let (from, into) = (from.to_owned(), into.to_owned());
        Ok(Self { from, into, names, made_directory, written: Vec::new() })
    }

    /// Copies the files.
    ///
    /// # Durability
    ///
    /// The copy is durable when this returns.
    pub(crate) fn finish(mut self) -> Result<()> {
        let names = std::mem::take(&mut self.names);
        let copied = names.iter().try_for_each(|name| self.copy(name));
        let synced = copied
            .and_then(|()| sync(&self.into).map_err(|source| failed("sync", &self.into, source)));
        synced.inspect_err(|_| self.abandon())
    }

    fn copy(&mut self, name: &Path) -> Result<()> {
        let (from, into) = (self.from.join(name), self.into.join(name));
        let mut source = File::open(&from).map_err(|source| failed("read", &from, source))?;
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
        let mut copy = options.open(&into).map_err(|source| failed("make", &into, source))?;
        self.written.push(into.clone());
        let copied = io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all());
        copied.map_err(|source| failed("write", &into, source))
    }

    fn abandon(&self) {
        // What cannot be removed is in the way of the next attempt, which says so.
        for file in &self.written {
            let _ = fs::remove_file(file);
        }
        if self.made_directory {
            let _ = fs::remove_dir(&self.into);
        }
    }
}

/// Lists a store's files, `MANIFEST` last.
fn names(from: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for file in fs::read_dir(from)? {
        let name = PathBuf::from(file?.file_name());
        let ending = name.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            names.push(name);
        }
    }
    names.extend([LOCK, MANIFEST].map(PathBuf::from));
    Ok(names)
}

/// Makes the names in a directory durable, and its own name.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Failure {
    Failure::File { action, path: path.into(), source }
}
