//! Opening the file of a log, whose header may be damaged.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::disk::{Disk, DiskFile, Pool};
use crate::engine::entry::End;
use crate::error::{Error, Result};

use super::header::{LogHeader, Remains};
use super::page::PAGE;
use super::{Identity, Log, log_name};

impl Log {
    /// Opens a log and verifies its header. One that is damaged is put together from what is known.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the file is missing, cut short or of another generation, or if its
    /// header is damaged and nothing shows that the log is this one; [`Error::Foreign`] if it is
    /// another store's, [`Error::Newer`], and [`Error::Io`].
    pub(crate) fn open(disk: &dyn Disk, generation: u64, store: Identity) -> Result<Self> {
        let log = Self::open_any(disk, generation, store)?;
        if log.length()? < log.size { Err(log.broken("it is cut short")) } else { Ok(log) }
    }

    /// Opens a log that is kept for the records before `end`. What lay behind may have been cut
    /// off.
    ///
    /// # Errors
    ///
    /// Those of [`Log::open`].
    pub(crate) fn open_values(pool: &Arc<Pool>, end: End, store: Identity) -> Result<Self> {
        let log = Self::open_any(&**pool, end.generation, store)?.into_values(pool, end);
        if log.length()? < log.size { Err(log.broken("it is cut short")) } else { Ok(log) }
    }

    /// Opens a log that may be cut short, because nothing lists it or something else has its
    /// length.
    ///
    /// # Errors
    ///
    /// Those of [`Log::open`].
    pub(crate) fn open_any(disk: &dyn Disk, generation: u64, store: Identity) -> Result<Self> {
        let opened = Opened::open(disk, generation)?;
        match opened.header() {
            Ok(header) => opened.log_of(header, generation, store),
            Err(error) => opened.log_without_header(LogHeader::new(store, generation, 0), error),
        }
    }

    /// Opens a log of a store whose keys are not known, which must have its header.
    ///
    /// # Errors
    ///
    /// Those of [`Log::open`].
    pub(crate) fn open_by_header(disk: &dyn Disk, generation: u64, uuid: [u8; 16]) -> Result<Self> {
        let opened = Opened::open(disk, generation)?;
        opened.header().and_then(|header| opened.log(header, generation, uuid))
    }
}

/// The file of a log, open, and what was read of its header.
pub(super) struct Opened {
    name: String,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    page: [u8; LogHeader::LEN],
    unread: Option<Error>,
}

impl Opened {
    pub(super) fn open(disk: &dyn Disk, generation: u64) -> Result<Self> {
        let name = log_name(generation);
        let path = disk.path_of(&name);
        let file = disk.open(&name).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::corrupt(&path, "it is listed and missing"),
            _ => Error::io("open", &path, error),
        })?;
        let mut page = [0; LogHeader::LEN];
        let unread = match file.read_at(&mut page, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::corrupt(path, "it is cut short"));
            }
            Err(error) => {
                page.fill(0);
                Some(Error::io("read", &path, error))
            }
            Ok(()) => None,
        };
        Ok(Self { name, path, file, page, unread })
    }

    pub(super) fn header(&self) -> Result<LogHeader> {
        match &self.unread {
            Some(error) => Err(error.clone()),
            None => LogHeader::decode(&self.page, &self.path),
        }
    }

    /// Returns the log with this header, if it is this store's. Another one may have its uuid: two
    /// salvages of one directory have.
    fn log_of(self, header: LogHeader, generation: u64, store: Identity) -> Result<Log> {
        if header.entries.is_some_and(|entries| entries != store.entries) {
            return Err(Error::foreign(self.path, "it has another store's key"));
        }
        self.log(header, generation, store.uuid)
    }

    /// Returns the log with this header.
    fn log(self, header: LogHeader, generation: u64, uuid: [u8; 16]) -> Result<Log> {
        if header.uuid != uuid {
            return Err(Error::foreign(self.path, "it has another store's uuid"));
        }
        if header.generation != generation {
            return Err(Error::corrupt(self.path, "it holds the log of another generation"));
        }
        Ok(Log::of(header, self.name, self.path, self.file))
    }

    /// Returns the log whose header gave this error. What is left of the header, or a batch, must
    /// show that the log is the expected one.
    fn log_without_header(self, expected: LogHeader, error: Error) -> Result<Log> {
        let length = self.file.len().map_err(|error| Error::io("measure", &self.path, error))?;
        let (header, is_ours) = match expected.remains_in(&self.page) {
            Remains::Whole(header) => (header, true),
            remains => {
                let size = length - length % PAGE;
                (LogHeader { size, ..expected }, remains == Remains::Ours)
            }
        };
        let log = Log::of(header, self.name, self.path, self.file);
        let log = Log { is_header_damaged: true, ..log };
        // A later version may have batches that look the same.
        let is_newer = matches!(error, Error::Newer { .. });
        let has_batch = || !is_newer && log.has_batch_from(PAGE).unwrap_or(false);
        if is_ours || has_batch() { Ok(log) } else { Err(error) }
    }
}
