//! Making the file of a log: a new one, or one that was another log before.

use std::io;
use std::sync::Arc;

use crate::engine::disk::{Disk, DiskFile, remove_leftover};
use crate::error::{Error, Result};

use super::header::LogHeader;
use super::{Identity, Log, log_name, temporary_name};

/// The bytes that are overwritten at a time.
const OVERWRITE_BYTES: usize = 1024 * 1024;

impl Log {
    /// Creates a log of `size` bytes, all of them allocated.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], with the file removed again.
    ///
    /// # Durability
    ///
    /// The header is durable when this returns; the caller makes the name durable.
    pub(crate) fn create(
        disk: &dyn Disk,
        generation: u64,
        store: Identity,
        size: u64,
    ) -> Result<Self> {
        let log = Self::create_unnamed(disk, generation, store, size)?;
        match log.give_name(disk) {
            Ok(()) => Ok(log),
            Err(error) => {
                // The space is needed; a file that cannot be removed either is a leftover.
                let _ = disk.remove(&temporary_name(generation));
                Err(error)
            }
        }
    }

    /// Creates a log under a temporary name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], with the file removed again.
    ///
    /// # Durability
    ///
    /// The header is durable when this returns.
    pub(crate) fn create_unnamed(
        disk: &dyn Disk,
        generation: u64,
        store: Identity,
        size: u64,
    ) -> Result<Self> {
        let temporary = temporary_name(generation);
        let failed = |error| Error::io("create", disk.path_of(&temporary), error);
        remove_leftover(disk, &temporary).map_err(failed)?;
        let file = disk.create(&temporary).map_err(failed)?;
        let made = file.allocate(size).map_err(failed);
        match made.and_then(|()| Self::initialize(disk, file, generation, store, size)) {
            Ok(log) => Ok(Self { clean: true, ..log }),
            Err(error) => {
                // The space is needed; a file that cannot be removed either is a leftover.
                let _ = disk.remove(&temporary);
                Err(error)
            }
        }
    }

    /// Creates a log from the blocks of an old one, which is no longer listed and has no readers.
    /// The bytes of the old log stay on the disk until batches overwrite them.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; the old log is gone then.
    ///
    /// # Durability
    ///
    /// The header is durable when this returns; the caller makes the name durable.
    pub(crate) fn recycle(
        disk: &dyn Disk,
        old: &Log,
        generation: u64,
        store: Identity,
    ) -> Result<Self> {
        Self::renew(disk, old, generation, store, |_, _| Ok(()))
    }

    /// Does what [`recycle`](Self::recycle) does, and first overwrites the old log with zeros.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; the old log is gone then.
    ///
    /// # Durability
    ///
    /// The zeros and the header are durable when this returns; the caller makes the name durable.
    pub(crate) fn recycle_zeroed(
        disk: &dyn Disk,
        old: &Log,
        generation: u64,
        store: Identity,
    ) -> Result<Self> {
        let log = Self::renew(disk, old, generation, store, Self::overwrite)?;
        Ok(Self { clean: true, ..log })
    }

    /// Renames an old log, runs `clear` on its content, and writes a new header.
    fn renew(
        disk: &dyn Disk,
        old: &Log,
        generation: u64,
        store: Identity,
        clear: impl FnOnce(&dyn DiskFile, u64) -> io::Result<()>,
    ) -> Result<Self> {
        let temporary = temporary_name(generation);
        let failed = |error| Error::io("recycle", disk.path_of(&old.name), error);
        // The rename is durable before the content changes: under its old name, a log with changed
        // content would be damage.
        disk.rename(&old.name, &temporary).and_then(|()| disk.sync()).map_err(failed)?;
        // Under its new name, and open for as long as it is a log.
        let cleared = disk.open(&temporary).and_then(|file| {
            let size = file.len()?;
            // A sparse copy of the old log has not all of its blocks.
            file.allocate(size)?;
            clear(&*file, size).map(|()| (file, size))
        });
        let log = cleared
            .map_err(failed)
            .and_then(|(file, size)| Self::initialize(disk, file, generation, store, size))
            .and_then(|log| log.give_name(disk).map(|()| log));
        log.inspect_err(|_| {
            // The space is needed; a file that cannot be removed is a leftover.
            let _ = disk.remove(&temporary);
        })
    }

    /// Overwrites a whole file with zeros.
    fn overwrite(file: &dyn DiskFile, size: u64) -> io::Result<()> {
        let zeros = vec![0; OVERWRITE_BYTES];
        for offset in (0..size).step_by(zeros.len()) {
            let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
            file.write_at(&zeros[..zeros.len().min(left)], offset)?;
        }
        Ok(())
    }

    /// Writes a new header into an allocated file, durably.
    fn initialize(
        disk: &dyn Disk,
        file: Arc<dyn DiskFile>,
        generation: u64,
        store: Identity,
        size: u64,
    ) -> Result<Self> {
        let header = LogHeader::new(store, generation, size);
        let name = log_name(generation);
        let path = disk.path_of(&name);
        file.write_at(&header.encode(), 0)
            .and_then(|()| file.sync())
            .map_err(|error| Error::io("initialize", &path, error))?;
        Ok(Self::of(header, name, path, file))
    }

    /// Gives a log its name, once its content is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    ///
    /// # Durability
    ///
    /// The caller makes the name durable.
    pub(crate) fn give_name(&self, disk: &dyn Disk) -> Result<()> {
        disk.rename(&temporary_name(self.generation), &self.name)
            .map_err(|error| Error::io("rename", &self.path, error))
    }

    /// Returns the name that the log has until it gets its own.
    pub(crate) fn temporary_name(&self) -> String {
        temporary_name(self.generation)
    }
}
