//! The notes of operators, a line each: who has done what to the store, when and why.
//!
//! Invariants:
//! - A note is durable once it is written, and stays whole, whatever follows.
//! - The notes take no more than twice [`MAX_BYTES`]: the oldest go first.

use std::io;

use crate::engine::disk::{Disk, DiskFile};
use crate::error::{Error, Result};

use super::Ledger;

/// The latest notes.
const NOTES: &str = "AUDIT";
/// The notes before those.
const EARLIER: &str = "AUDIT.old";
/// The size from which on the notes are put aside, and new ones begun.
const MAX_BYTES: u64 = if cfg!(test) { 4096 } else { 1024 * 1024 };
/// The longest note, in bytes.
const MAX_NOTE: usize = 2048;

impl Ledger {
    /// Appends a note: one line.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    ///
    /// # Durability
    ///
    /// The note is durable when this returns.
    pub(crate) fn note(&self, note: &str) -> Result<()> {
        let failed = |error| Error::io("write", self.disk.path_of(NOTES), error);
        if note.len() > MAX_NOTE || note.contains('\n') {
            let reason = format!("a note is one line of at most {MAX_NOTE} bytes");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let _one_at_a_time = self.noting.lock();
        self.append(note).map_err(failed)
    }

    /// Returns the notes, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn notes(&self) -> Result<Vec<String>> {
        let _none_is_put_aside = self.noting.lock();
        let mut lines = Vec::new();
        for name in [EARLIER, NOTES] {
            let failed = |error| Error::io("read", self.disk.path_of(name), error);
            let bytes = match self.disk.open(name) {
                Ok(file) => content(&*file).map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let text = String::from_utf8_lossy(&bytes);
            lines.extend(text.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        }
        Ok(lines)
    }

    fn append(&self, note: &str) -> io::Result<()> {
        let mut file = self.disk.open(NOTES);
        if let Ok(full) = &file
            && full.len()? + note.len() as u64 >= MAX_BYTES
        {
            self.disk.rename(NOTES, EARLIER)?;
            file = Err(io::ErrorKind::NotFound.into());
        }
        let (file, is_new) = match file {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (self.disk.create(NOTES)?, true)
            }
            Err(error) => return Err(error),
        };
        let end = file.len()?;
        let mut last = [b'\n'];
        if end > 0 {
            file.read_at(&mut last, end - 1)?;
        }
        // The line before may have been cut off by a crash.
        let begin = if last == *b"\n" { "" } else { "\n" };
        file.write_at(format!("{begin}{note}\n").as_bytes(), end)?;
        file.sync()?;
        if is_new { self.disk.sync() } else { Ok(()) }
    }
}

/// Reads a file of notes, or the end of one that somebody else has made longer.
fn content(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let length = file.len()?;
    let from = length.saturating_sub(2 * MAX_BYTES);
    let mut bytes = vec![0; usize::try_from(length - from).unwrap_or_default()];
    file.read_at(&mut bytes, from)?;
    Ok(bytes)
}
