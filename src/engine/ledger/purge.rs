//! Purging: the bytes of what was forgotten, or has expired, leave the disk and not only the
//! lookups.
//!
//! ```text
//!  freeze the active log ──► seal all that are frozen ──► rewrite segments ──► remove
//! ```
//!
//! Each step is one that the reaper takes anyway, so a purge may end anywhere. The older segments
//! come first, so that a forget is left out once nothing is left that it hides.
//!
//! Invariants:
//! - While a purge goes on, no file is used again, and none is kept to be used again.
//! - A log with a higher number than the segment that it belongs to was made for that segment, and
//!   holds its records and nothing else. Any other log is not kept.

use std::sync::Arc;

use crate::engine::disk::{Disk, remove_leftover};
use crate::engine::segment::{Content, Cursor, Segment};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, Ordering};

use super::Ledger;
use super::merge::Rewriting;
use super::names::Names;
use super::retired::Retired;
use super::sieve::Sieve;

/// The rows that are read between two pauses.
const ROWS_AT_A_TIME: usize = 512;

/// A purge that is under way, until this is dropped.
#[derive(Debug)]
pub(crate) struct Purging<'a>(&'a AtomicBool);

impl Drop for Purging<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Ledger {
    /// Begins a purge: from now on no file is used again.
    pub(crate) fn start_purge(&self) -> Purging<'_> {
        // Under the mutex, so that a log that is being prepared now is the next one, or retired.
        let _preparing = self.preparing.lock();
        self.purging.store(true, Ordering::Release);
        Purging(&self.purging)
    }

    /// Returns true while a purge is under way.
    pub(super) fn is_purging(&self) -> bool {
        self.purging.load(Ordering::Acquire)
    }

    /// Returns the numbers of the segments, oldest first.
    pub(crate) fn segment_numbers(&self) -> Vec<u64> {
        self.snapshot().segments.iter().rev().map(|segment| segment.meta.file).collect()
    }

    /// Rewrites a segment, with its larger records copied, unless it is certain that all that its
    /// files hold is live. `pace` runs in between, and may stop the work.
    ///
    /// # Errors
    ///
    /// The segment is kept, and nothing is lost. After a fatal error it is unknown which `MANIFEST`
    /// is on disk.
    ///
    /// # Durability
    ///
    /// The new segment is durable and listed when this returns; the old files are in `retired`.
    pub(crate) fn purge_segment(
        &self,
        number: u64,
        retired: &mut Vec<Retired>,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<(), Trouble> {
        let (snapshot, now) = (self.snapshot(), self.timeline.now());
        let at = snapshot.segments.iter().position(|segment| segment.meta.file == number);
        let Some(at) = at else { return Ok(()) };
        let (segments, handles, uuid) = (&snapshot.segments, &self.handles, self.uuid);
        let run = &segments[at..=at];
        let segment = &run[0];
        let sieve = Sieve { segments, at, handles, uuid, now };
        let copied = survey(segment, &sieve, &mut pace).map_err(Trouble::Transient)?;
        let Some(copied) = copied else { return Ok(()) };
        if copied.contains(&true) && segment.expiries.all().records == 0 {
            let reason = "its list of expiries is damaged, so its larger records are not copied";
            return Err(Trouble::Transient(segment.broken(reason)));
        }
        let is_copied = |_: &Segment, log: usize| copied[log];
        let sieve = Some(&sieve);
        self.rewrite(&Rewriting { run, now, is_copied: &is_copied, sieve }, retired, pace)
    }

    /// Removes all files of the store that are not listed, except `retired` ones, and makes the
    /// removal durable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if one cannot be removed.
    pub(crate) fn remove_unlisted(&self, retired: &[Retired]) -> Result<()> {
        // While it is held, no log is being made. Segments are made on this thread.
        let unlisted = self.preparing.lock();
        let names = Names::list(&*self.disk)?;
        let used_again: Vec<&str> =
            retired.iter().chain(unlisted.iter()).map(Retired::name).collect();
        let listed = self.manifest.lock();
        for name in names.leftovers(&listed).filter(|name| !used_again.contains(&name.as_str())) {
            remove_leftover(&*self.disk, &name)
                .map_err(|error| Error::io("remove", self.disk.path_of(&name), error))?;
        }
        self.sync_names()
    }
}

/// Returns which of a segment's logs must be copied, by their number, or `None` if the segment and
/// its logs hold nothing that is dead.
///
/// # Errors
///
/// [`Error::Corrupt`] and [`Error::Io`] if a row cannot be read, and those of `pace`.
fn survey(
    segment: &Arc<Segment>,
    sieve: &Sieve<'_>,
    pace: &mut impl FnMut() -> Result<()>,
) -> Result<Option<Vec<bool>>> {
    let logs = segment.meta.values.iter();
    let mut copied: Vec<bool> = logs.map(|log| log.generation <= segment.meta.file).collect();
    // Values of format 1 are joined from rows as they are read, so it is rewritten at once.
    let mut is_dead = copied.contains(&true) || segment.meta.format == 1;
    if is_dead && !copied.contains(&false) {
        return Ok(Some(copied));
    }
    let mut cursor = Cursor::open(segment)?;
    for count in 1.. {
        let Some(row) = cursor.next()? else { break };
        let malformed = |error| segment.malformed(error);
        let (address, value) = (row.address(&sieve.uuid), row.value().map_err(malformed)?);
        if sieve.is_dead(&address.map_err(malformed)?, &value)? {
            is_dead = true;
            if let Content::InLog { log, .. } = value.content
                && let Some(copied) = copied.get_mut(usize::from(log))
            {
                *copied = true;
            }
        }
        if count % ROWS_AT_A_TIME == 0 {
            pace()?;
        }
    }
    Ok(is_dead.then_some(copied))
}
