//! Files that no list has any more: kept for their last readers, then used again or removed.

use std::sync::Arc;

use crate::engine::disk::DiskFile;
use crate::engine::log::Log;
use crate::engine::segment::Segment;
use crate::error::Result;

use super::Ledger;

/// How much of a file is cut off at a time when it is dropped: freeing a large one at once stalls
/// the commits beside it.
const TRUNCATE_BYTES: u64 = 8 * 1024 * 1024;

/// A file that no list has any more, kept for its last readers.
#[derive(Debug)]
pub(crate) enum Retired {
    Log(Arc<Log>),
    Segment(Arc<Segment>),
}

impl Retired {
    fn parts(&self) -> (&str, &Arc<dyn DiskFile>) {
        match self {
            Self::Log(log) => (&log.name, &log.file),
            Self::Segment(segment) => (&segment.name, &segment.file),
        }
    }

    fn is_read(&self) -> bool {
        match self {
            Self::Log(log) => Arc::strong_count(log) > 1,
            Self::Segment(segment) => Arc::strong_count(segment) > 1,
        }
    }

    pub(super) fn is_recyclable(&self, size: u64) -> bool {
        matches!(self, Self::Log(log) if log.size == size) && !self.is_read()
    }

    fn is_mostly_written(&self) -> bool {
        matches!(self, Self::Log(log) if log.is_mostly_written())
    }
}

impl Ledger {
    /// Removes the retired files that nobody reads any more, a piece at a time. One log is kept to
    /// be the next: a commit that overwrites blocks is quicker than one that is the first to write
    /// them. While none is prepared any will do, since its blocks are at least there. Where old bodies
    /// are to be overwritten, none is kept longer than that.
    pub(crate) fn free(
        &self,
        retired: &mut Vec<Retired>,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut kept = Vec::new();
        let (mut has_spare, prepared) = (false, self.has_next());
        while let Some(file) = retired.pop() {
            let is_worth_it = file.is_mostly_written() && !self.settings.zero_recycled;
            let spare = file.is_recyclable(self.settings.log_bytes) && (!prepared || is_worth_it);
            if (spare && !has_spare) || file.is_read() {
                has_spare |= spare;
                kept.push(file);
            } else {
                let (name, file) = file.parts();
                // First out of the names that mean something, durably: half a file is damage under
                // those. What cannot be removed now is a leftover at the next opening: no list has
                // it, so that the store goes on even where a sync fails.
                let temporary = format!("{name}.tmp");
                let renamed = self.disk.rename(name, &temporary).and_then(|()| self.disk.sync());
                if renamed.is_ok() {
                    let shrunk = shrink(&**file, &mut pace);
                    let _ = self.disk.remove(&temporary);
                    shrunk?;
                }
            }
        }
        *retired = kept;
        Ok(())
    }
}

/// Gives a file's blocks back a piece at a time.
fn shrink(file: &dyn DiskFile, pace: &mut impl FnMut() -> Result<()>) -> Result<()> {
    // A file that cannot be cut is removed whole.
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
