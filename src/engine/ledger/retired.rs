//! Files that are no longer listed: kept for their last readers, then recycled or removed.

use std::sync::Arc;

use crate::engine::disk::{Disk, DiskFile, is_alone};
use crate::engine::log::Log;
use crate::engine::segment::Segment;
use crate::error::Result;

use super::Ledger;

/// The bytes that are cut off a file at a time before it is removed: freeing a large file at once
/// stalls the commits beside it.
const TRUNCATE_BYTES: u64 = 8 * 1024 * 1024;
/// The share of a log that may lie unused behind its end.
const SLACK: u64 = 16;

/// A file that is no longer listed, kept for its last readers.
#[derive(Debug)]
pub(crate) enum Retired {
    Log(Arc<Log>),
    Segment(Arc<Segment>),
}

impl Retired {
    /// Returns the name of the file.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Log(log) => &log.name,
            Self::Segment(segment) => &segment.name,
        }
    }

    /// Returns true if a snapshot still has the file.
    fn is_read(&self) -> bool {
        match self {
            Self::Log(log) => Arc::strong_count(log) > 1 || log.is_shared(),
            Self::Segment(segment) => Arc::strong_count(segment) > 1,
        }
    }

    /// Returns true if the file can become a new log of about `size` bytes, and `least` at least: it
    /// has little less, or up to twice as many, and is in no backup.
    pub(super) fn is_recyclable(&self, size: u64, least: u64) -> bool {
        let sizes = (size - size / SLACK).max(least)..2 * size;
        let is_fit = |log: &Log| log.file.len().is_ok_and(|length| sizes.contains(&length));
        matches!(self, Self::Log(log) if is_fit(log) && is_alone(&*log.file)) && !self.is_read()
    }

    /// Returns true if the file is a log of which more than half was written.
    fn is_mostly_written(&self) -> bool {
        matches!(self, Self::Log(log) if log.is_mostly_written())
    }
}

impl Ledger {
    /// Removes the retired files without readers, a piece at a time, and keeps one log to be
    /// recycled as the next one.
    ///
    /// A mostly written log is worth keeping: commits that overwrite blocks are faster than those
    /// that write them first. While no next log is prepared, any log is kept for the sake of its
    /// blocks. Where recycled logs are zeroed, none is kept once a next one is prepared. During a
    /// purge none is kept.
    ///
    /// # Errors
    ///
    /// Those of `pace`, which runs between the pieces.
    pub(crate) fn free(
        &self,
        retired: &mut Vec<Retired>,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut kept = Vec::new();
        let (mut has_spare, prepared) = (false, self.space.has_next());
        let size = self.likely_size();
        let in_place = self.disk.overwrites_in_place() && !self.is_purging();
        while let Some(file) = retired.pop() {
            let is_worth_it = file.is_mostly_written() && !self.settings.zero_recycled;
            let spare = in_place && file.is_recyclable(size, 0) && (!prepared || is_worth_it);
            if (spare && !has_spare) || file.is_read() || self.is_backed_up() {
                has_spare |= spare;
                kept.push(file);
            } else {
                let name = file.name();
                // A file cut in part would be damage under the name of a log or segment, so it is
                // durably renamed first. A failure leaves an unlisted file, which the next opening
                // removes, so the store goes on even if a sync fails.
                let temporary = format!("{name}.tmp");
                let renamed = self.disk.rename(name, &temporary).and_then(|()| self.disk.sync());
                if renamed.is_ok() {
                    // One that is in a backup too keeps its content: it loses this name alone.
                    let opened = self.disk.open(&temporary).ok().filter(|file| is_alone(&**file));
                    let shrunk = opened.map(|file| shrink(&*file, &mut pace));
                    let _ = self.disk.remove(&temporary);
                    shrunk.unwrap_or(Ok(()))?;
                }
            }
        }
        *retired = kept;
        Ok(())
    }

    /// Cuts off what lies behind the end of a log that is kept for the records in it, unless it is
    /// little: a log of full size can be recycled. A log that is in a backup stays as it is.
    pub(super) fn trim(&self, log: &Log, pace: &mut impl FnMut() -> Result<()>) -> Result<()> {
        let (file, end) = (&log.file, log.size);
        let mut length = file.len().unwrap_or_default();
        if end >= length - length / SLACK {
            return Ok(());
        }
        while length > end {
            length = length.saturating_sub(TRUNCATE_BYTES).max(end);
            {
                // A backup that begins links what is listed while it has this mutex.
                let _listed = self.manifest.lock();
                if !is_alone(&**file) || file.set_len(length).is_err() {
                    return Ok(());
                }
            }
            pace()?;
        }
        Ok(())
    }
}

/// Frees a file's blocks, a piece at a time.
fn shrink(file: &dyn DiskFile, pace: &mut impl FnMut() -> Result<()>) -> Result<()> {
    // A file that cannot be cut is left for the caller to remove whole.
    let mut len = file.len().unwrap_or_default();
    while len > 0 {
        len = len.saturating_sub(TRUNCATE_BYTES);
        if file.set_len(len).is_err() {
            break;
        }
        pace()?;
    }
    Ok(())
}
