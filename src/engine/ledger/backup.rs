//! A consistent copy of an open store, in another directory.
//!
//! ```text
//!  under the mutex of MANIFEST: the lists, the ends of the logs, and a second name for each file
//!                               that is not written any more
//!  then:                        the active log up to its end is copied ──► LOCK ──► MANIFEST
//! ```
//!
//! The copy is what a crash at that moment would have left, less the batches after it. So opening it
//! is a recovery like any other.
//!
//! Invariants:
//! - A file that two stores share has two names, and neither store writes or cuts it: whoever needs
//!   it no longer removes a name.
//! - A file gets a name in a backup only while `MANIFEST` lists it. What is recycled, or cut to be
//!   removed, is not listed any more.
//! - The copy gets its `MANIFEST` last. Before, it holds a file that no store has, or lacks its
//!   `LOCK` or its `MANIFEST`, and does not open.

use std::io;
use std::sync::Arc;

use crate::engine::disk::{Disk, RESERVE_BYTES, remove_leftover};
use crate::engine::log::{Log, log_name};
use crate::engine::segment::segment_name;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicUsize, Ordering};

use super::Ledger;
use super::manifest::{LOCK, MANIFEST, Manifest, write_lock};

/// The file that marks a directory as that of an unfinished backup.
pub(crate) const UNFINISHED: &str = "BACKUP";
/// The file with the moment of a backup: the seconds of the wall clock since 1970, in decimal. It
/// stays when the backup is opened, and is not part of what is restored from it.
const MADE: &str = "MADE";

/// The bytes that are copied at a time.
const COPY_BYTES: u64 = 1024 * 1024;

/// The parts of a backup.
struct Plan<'a> {
    /// The `MANIFEST` of the copy.
    manifest: Manifest,
    copies: Vec<Copy>,
    _files: FilesKept<'a>,
}

/// A file that is copied.
struct Copy {
    name: String,
    /// The bytes that count; those behind them are zero in the copy.
    content: Option<u64>,
    /// The length of the copy.
    length: Option<u64>,
}

/// Keeps all files that are listed now: while it lives, none is recycled, cut or removed.
struct FilesKept<'a>(&'a AtomicUsize);

impl Ledger {
    /// Writes a copy of the store into an empty directory that is marked as that of a backup. `pace`
    /// runs in between, and may stop the work.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for either directory, and the errors of `pace`; what was written is removed
    /// again, as far as that is possible.
    ///
    /// # Durability
    ///
    /// The copy is durable when this returns, with everything that was acknowledged before the call.
    pub(crate) fn back_up(
        &self,
        target: &dyn Disk,
        pace: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        self.write_backup(target, pace).inspect_err(|_| abandon(target))
    }

    /// Returns true while there is a backup under way, which needs the files.
    pub(super) fn is_backed_up(&self) -> bool {
        self.backups.load(Ordering::Acquire) > 0
    }

    fn write_backup(&self, target: &dyn Disk, mut pace: impl FnMut() -> Result<()>) -> Result<()> {
        // Before the lists are fixed: whatever is not in the copy was recorded after this.
        self.write_moment(target)?;
        let Plan { manifest, copies, _files } = self.plan_backup(target);
        for copy in &copies {
            self.copy(copy, target, &mut pace)?;
        }
        let failed = |error| Error::io("sync", target.path(), error);
        target.sync().map_err(failed)?;
        // A store that has failed meanwhile may have read what is not on its disk.
        pace()?;
        write_lock(target, self.uuid)?;
        manifest.write(target).map_err(Trouble::into_error)?;
        // It opens from now on; a marker that stays is in nobody's way.
        let _ = target.remove(UNFINISHED).and_then(|()| target.sync());
        Ok(())
    }

    fn write_moment(&self, target: &dyn Disk) -> Result<()> {
        let seconds = self.timeline.wall().as_secs();
        let failed = |error| Error::io("back up to", target.path_of(MADE), error);
        let file = target.create(MADE).map_err(failed)?;
        file.write_at(format!("{seconds}\n").as_bytes(), 0).map_err(failed)?;
        file.sync().map_err(failed)
    }

    /// Fixes what is copied, and links what can be linked.
    fn plan_backup(&self, target: &dyn Disk) -> Plan<'_> {
        let listed = self.manifest.lock();
        let files = FilesKept::new(&self.backups);
        let mut manifest = listed.clone();
        let logs = self.started_logs(&listed);
        manifest.logs = logs.iter().rev().map(|(log, _)| log.generation).collect();
        let mut copies = Vec::new();
        for (number, (log, end)) in logs.iter().enumerate() {
            let copy = Copy::of_log(log, *end);
            // The first one is still written to.
            if number == 0 {
                copies.push(copy);
            } else {
                self.link(copy, target, &mut copies);
            }
        }
        for segment in &listed.segments {
            self.link(Copy::whole(segment_name(segment.file)), target, &mut copies);
            for end in &segment.values {
                let (name, end) = (log_name(end.generation), Some(end.offset));
                self.link(Copy { name, content: end, length: end }, target, &mut copies);
            }
        }
        Plan { manifest, copies, _files: files }
    }

    /// Returns the listed logs that have batches, newest first, with the ends of those.
    fn started_logs(&self, listed: &Manifest) -> Vec<(Arc<Log>, u64)> {
        let snapshot = self.snapshot();
        let logs = snapshot.logs.iter().map(|log| (Arc::clone(log), log.written()));
        // A log that was prepared, or whose first batch is still being written, is left out: the one
        // before it has all batches then. One that was sealed just now is not listed any more.
        logs.filter(|(log, end)| *end > 0 && listed.logs.contains(&log.generation)).collect()
    }

    /// Gives a file a name in the backup, or adds it to those that are copied: where the backup is on
    /// another file system, or on one that has no links, or too many.
    fn link(&self, file: Copy, target: &dyn Disk, copies: &mut Vec<Copy>) {
        // The copy reports what is wrong with either directory.
        if self.disk.link(&file.name, target).is_err() {
            copies.push(file);
        }
    }

    /// Copies a file.
    ///
    /// # Durability
    ///
    /// The content is durable when this returns; the caller makes the name durable.
    fn copy(
        &self,
        copy: &Copy,
        target: &dyn Disk,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let from = self.disk.path_of(&copy.name);
        let unread = |error| Error::io("read", &from, error);
        let failed = |error| Error::io("back up to", target.path_of(&copy.name), error);
        let source = self.disk.open(&copy.name).map_err(unread)?;
        let content = copy.content.map_or_else(|| source.len().map_err(unread), Ok)?;
        let needed = content.saturating_add(RESERVE_BYTES);
        if target.free_bytes().is_ok_and(|free| free < needed) {
            // The store may be on the same disk, and could not be opened again.
            return Err(failed(io::ErrorKind::StorageFull.into()).with_needed(needed));
        }
        let file = target.create(&copy.name).map_err(failed)?;
        let (mut buffer, mut offset) = (Vec::new(), 0);
        while offset < content {
            let bytes = COPY_BYTES.min(content - offset);
            buffer.resize(usize::try_from(bytes).unwrap_or_default(), 0);
            source.read_at(&mut buffer, offset).map_err(unread)?;
            file.write_at(&buffer, offset).map_err(failed)?;
            offset += bytes;
            pace()?;
        }
        // Blocks are allocated when the store that is opened here needs them.
        file.set_len(copy.length.unwrap_or(content)).and_then(|()| file.sync()).map_err(failed)
    }
}

impl Copy {
    /// A copy of all of a file.
    fn whole(name: String) -> Self {
        Self { name, content: None, length: None }
    }

    /// A copy of a log up to its end, as long as its batches may record.
    fn of_log(log: &Log, end: u64) -> Self {
        Self { name: log.name.clone(), content: Some(end), length: Some(log.size) }
    }
}

impl<'a> FilesKept<'a> {
    fn new(backups: &'a AtomicUsize) -> Self {
        backups.fetch_add(1, Ordering::AcqRel);
        Self(backups)
    }
}

impl Drop for FilesKept<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Removes what is there of a backup, in an order in which it never opens. What cannot be removed
/// keeps what is left from opening.
fn abandon(target: &dyn Disk) {
    for name in [MANIFEST, LOCK] {
        let removed = remove_leftover(target, name).and_then(|()| target.sync());
        if removed.is_err() {
            return;
        }
    }
    let Ok(names) = target.names() else { return };
    for name in names.iter().filter(|name| *name != UNFINISHED) {
        if target.remove(name).is_err() {
            return;
        }
    }
    let _ = target.sync().and_then(|()| target.remove(UNFINISHED));
}
