//! The redb database of a segment: its tables, and the translation of redb's errors and panics.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, TableDefinition};

use crate::engine::disk::DiskFile;
use crate::error::{Error, Result};

use super::file::{Overlay, RedbFile};

/// Scope, key, and part of the value.
pub(super) type TableKey = (&'static [u8; 32], &'static [u8], u16);
/// The rows of records and forgets.
pub(super) const RECORDS: TableDefinition<'static, TableKey, &'static [u8]> =
    TableDefinition::new("records");
/// One row, the [`SegmentMeta`](super::meta::SegmentMeta).
pub(super) const META: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("meta");
/// The filter, in parts of about a page.
pub(super) const FILTER: TableDefinition<'static, u32, &'static [u8]> =
    TableDefinition::new("filter");
/// The list of addresses whose latest entry is damaged, in parts of about a page.
pub(super) const DAMAGED: TableDefinition<'static, u32, &'static [u8]> =
    TableDefinition::new("damaged");

/// The bytes that redb caches for each open segment. Its own default is 1 GiB.
pub(super) const CACHE_BYTES: usize = 256 * 1024;

/// The table of records, open for reading. It keeps its database open.
pub(super) struct RecordTable {
    pub(super) table: ReadOnlyTable<TableKey, &'static [u8]>,
}

impl RecordTable {
    /// Opens the database and the table; `path` is for messages.
    pub(super) fn open(path: &Path, file: &Arc<dyn DiskFile>) -> Result<Self> {
        let database = open_database(path, file)?;
        let transaction = database.begin_read().map_err(|error| failed(path, error))?;
        let table = transaction.open_table(RECORDS).map_err(|error| failed(path, error))?;
        Ok(Self { table })
    }
}

impl std::fmt::Debug for RecordTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordTable").finish_non_exhaustive()
    }
}

/// Opens a database for reading; `path` is for messages.
pub(super) fn open_database(path: &Path, file: &Arc<dyn DiskFile>) -> Result<ReadOnlyDatabase> {
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .open_read_only_with_backend(RedbFile(Arc::clone(file)))
        .map_err(|error| failed(path, error))
}

/// Verifies redb's own checksums, because row checksums do not cover redb's branch pages.
pub(super) fn verify_pages(path: &Path, file: &Arc<dyn DiskFile>) -> Result<()> {
    let overlay = Overlay::new(file).map_err(|error| Error::io("measure", path, error))?;
    let mut builder = Builder::new();
    let database = builder.set_cache_size(CACHE_BYTES).create_with_backend(overlay);
    let mut database = database.map_err(|error| failed(path, error))?;
    match database.check_integrity().map_err(|error| failed(path, error))? {
        true => Ok(()),
        false => Err(Error::corrupt(path, "redb's own checksums do not match")),
    }
}

/// Runs a call into redb, and turns a panic into [`Error::Corrupt`]: redb panics on damage that it
/// does not expect.
pub(super) fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Error::corrupt(path, "redb panicked while reading it")))
}

/// Turns an error of redb into [`Error::Io`] or [`Error::Corrupt`]. redb reports some kinds of
/// damage as errors of the operating system's type.
pub(super) fn failed(path: &Path, error: impl Into<redb::Error>) -> Error {
    use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
    match error.into() {
        redb::Error::Io(error) => match error.kind() {
            UnexpectedEof => Error::corrupt(path, "it is cut short"),
            InvalidData => Error::corrupt(path, error.to_string()),
            StorageFull | QuotaExceeded | FileTooLarge => Error::io("write", path, error),
            _ => Error::io("read", path, error),
        },
        redb::Error::PreviousIo => {
            Error::io("read", path, io::Error::other("an earlier read failed"))
        }
        error => Error::corrupt(path, error.to_string()),
    }
}
