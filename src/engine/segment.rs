//! One sealed segment: the records of one period of time, in a redb file that is written once.
//!
//! A smaller record is in its row. A larger one stays in a log, which is kept for the sake of the
//! segment, and its row has the place.
//!
//! redb does not verify what it reads, and a flipped bit can hide a key. Each row therefore names
//! its successor and carries a checksum over its own key, its successor and its value. A lookup
//! takes the last row at or below the key.
//!
//! Where redb finds no way to a row, the pages are searched for it. A segment that is listed opens if
//! any of its rows verifies: filter, meta row and tree are needed for speed alone.
//!
//! Invariants:
//! - This module is the only one that names redb.
//! - Only a row that verifies and whose successor lies beyond the key proves that the key is
//!   absent. Anything else is damage.
//! - redb may panic on damage, so its calls run under `catch_unwind`.
//! - A file has its `.redb` name only once it is durable and verified.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use redb::ReadOnlyTable;
use xorf::BinaryFuse16;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::disk::DiskFile;
use crate::engine::entry::{Found, Parts};
use crate::engine::log::{Location, Log};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, OnceLock};

mod binding;
mod build;
mod cursor;
mod damaged;
mod database;
mod expiries;
mod file;
mod filter;
mod filters;
mod format_1;
mod handles;
mod leaves;
mod listing;
mod meta;
mod opening;
mod remains;
mod row;
mod value;
mod verification;

use binding::Binding;
pub(crate) use build::{Draft, Item, Kept, Sealed, build};
pub(crate) use cursor::{Cursor, OwnedRow};
pub(crate) use damaged::Damaged;
use database::{TableKey, failed, guarded};
use expiries::Expiries;
pub(crate) use filters::{Filters, Lane};
pub(crate) use handles::Handles;
use leaves::Leaves;
pub(crate) use meta::{SegmentMeta, SegmentMeta1, segment_name};
pub(crate) use remains::{Remains, RowContent};
use row::{Row, RowKey};
pub(crate) use value::{Content, MAX_INLINE_BYTES, Value};

/// A segment: its redb database is opened when it is needed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) meta: SegmentMeta,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// `None` if it is damaged, or [`Filters`] have it.
    filter: Mutex<Option<BinaryFuse16>>,
    binding: Binding,
    /// By their hash; `None` if the list is damaged itself.
    damaged: Option<Vec<Damaged>>,
    /// The times at which the records expire.
    pub(crate) expiries: Expiries,
    /// The logs that hold the larger records.
    pub(crate) values: Vec<Arc<Log>>,
    /// Set once a merge has failed because of this segment: it is left as it is.
    left: AtomicBool,
    /// The pages of rows, once they had to be searched.
    leaves: OnceLock<Leaves>,
    /// Something about the segment was damaged when it was opened, and is known or not needed.
    is_file_damaged: bool,
}

impl Segment {
    /// Returns the segment with the logs that hold its larger records.
    pub(crate) fn with_values(mut self, values: Vec<Arc<Log>>) -> Self {
        self.values = values;
        self
    }

    /// Takes the filter, once. There is none if it is damaged: any address may be in the segment.
    pub(crate) fn take_filter(&self) -> Option<BinaryFuse16> {
        self.filter.lock().take()
    }

    /// Returns the length of the file, or none if it cannot be measured.
    pub(crate) fn bytes(&self) -> u64 {
        self.file.len().unwrap_or_default()
    }

    /// Returns the moment at which the last entry expires, and the file may be dropped.
    pub(crate) fn latest_expiry(&self) -> Moment {
        Moment(self.meta.latest_expiry)
    }

    /// Returns true if something about the segment was damaged when it was opened. Its rows and
    /// records may be whole.
    pub(crate) fn is_file_damaged(&self) -> bool {
        self.is_file_damaged
    }

    /// Returns the latest entry of an address, or `None` if there is proof that it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the rows prove neither, and [`Error::Io`] if they cannot be read.
    pub(crate) fn find(&self, handles: &Handles, address: &Address) -> Result<Option<Found>> {
        if let Ok(at) = self.damaged().binary_search_by_key(&address.hash, |damaged| damaged.hash) {
            return self.find_damaged(&self.damaged()[at], address).map(Some);
        }
        let found = guarded(&self.path, || {
            let handle = handles.get(self.meta.file, &self.path, &self.file)?;
            self.decode(self.payload(&handle.table, address)?)
        });
        let found = found.or_else(|error| {
            // A redb database refuses all reads after one has failed; the next lookup reopens it.
            handles.forget(self.meta.file);
            if self.is_named_in(&error) { self.find_in_leaves(address, error) } else { Err(error) }
        })?;
        match found {
            None if self.damaged.is_none() => {
                Err(self.broken("its list of damaged keys is damaged"))
            }
            found => Ok(found),
        }
    }

    /// Searches the pages for the row of an address, after the tree has led to this error.
    fn find_in_leaves(&self, address: &Address, error: Error) -> Result<Option<Found>> {
        // In format 1 a value may take several rows. What the disk does not read may be read later.
        if self.meta.format == 1 || !matches!(error, Error::Corrupt { .. }) {
            return Err(error);
        }
        let leaves = self.leaves.get_or_init(|| Leaves::read(&*self.file, &self.binding));
        match leaves.find(&*self.file, &self.binding, &RowKey::of(address, 0)) {
            Some(Some(value)) => self.decode(Some(self.payload_of(&value, address)?)),
            Some(None) => Ok(None),
            None => Err(error),
        }
    }

    fn decode(&self, found: Option<(Moment, Bytes)>) -> Result<Option<Found>> {
        let Some((at, payload)) = found else { return Ok(None) };
        Found::decode(&payload, at).map(Some).map_err(|error| self.malformed(error))
    }

    /// Tries to read an entry that could not be read when it was sealed.
    fn find_damaged(&self, damaged: &Damaged, address: &Address) -> Result<Found> {
        let Damaged { expires, log, location, .. } = *damaged;
        let payload = self.payload_in_log(log, location, |parts| parts.is_at(address));
        match payload.map(|payload| Found::decode(&payload, location.at)) {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) | Err(Error::Corrupt { .. }) => Ok(Found::Damaged { until: expires }),
            Err(error) => Err(error),
        }
    }

    /// Returns true if the segment has an entry of an address, and false if there is proof that it
    /// has none. A larger record is not read.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the rows prove neither, and [`Error::Io`] if they cannot be read.
    pub(crate) fn has(&self, handles: &Handles, address: &Address) -> Result<bool> {
        if self.damaged().binary_search_by_key(&address.hash, |damaged| damaged.hash).is_ok() {
            return Ok(true);
        }
        let found = guarded(&self.path, || {
            let handle = handles.get(self.meta.file, &self.path, &self.file)?;
            self.with_row(&handle.table, address, |_| Ok(()))
        });
        if found.is_err() {
            handles.forget(self.meta.file);
        }
        match found? {
            None if self.has_lost_damaged() => {
                Err(self.broken("its list of damaged keys is damaged"))
            }
            found => Ok(found.is_some()),
        }
    }

    /// Returns the payload of an address, or `None` if there is proof that it has none.
    fn payload(
        &self,
        table: &ReadOnlyTable<TableKey, &'static [u8]>,
        address: &Address,
    ) -> Result<Option<(Moment, Bytes)>> {
        self.with_row(table, address, |row| {
            if self.meta.format == 1 {
                return self.payload_1(table, address, row);
            }
            self.payload_of(row.value, address)
        })
    }

    /// Calls `read` with the row of an address, or returns `None` if there is proof that it has
    /// none.
    fn with_row<T>(
        &self,
        table: &ReadOnlyTable<TableKey, &'static [u8]>,
        address: &Address,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let wanted = RowKey::of(address, 0);
        let storage = |error| failed(&self.path, error);
        let mut below = table.range(..=wanted.as_redb()).map_err(storage)?;
        let Some(last) = below.next_back() else {
            return Err(self.broken("it has no row at or below a key"));
        };
        let (key, value) = last.map_err(storage)?;
        let row = self.row(key.value(), value.value())?;
        if row.key != wanted {
            // Both neighbours count: a damaged branch can lead to a row beyond the key.
            let between = row.key.cmp(&wanted).is_lt() && row.successor.cmp_key(&wanted).is_gt();
            return if between { Ok(None) } else { Err(self.broken("a row is missing")) };
        }
        read(&row).map(Some)
    }

    /// Returns the payload that the value of an address has, or leads to.
    fn payload_of(&self, value: &[u8], address: &Address) -> Result<(Moment, Bytes)> {
        let Value { at, content, .. } = self.value(value)?;
        let payload = match content {
            Content::Inline(payload) => Bytes::copy_from_slice(payload),
            Content::InLog { log, location, .. } => {
                self.payload_in_log(log, location, |parts| parts.is_at(address))?
            }
        };
        Ok((at, payload))
    }

    /// Decodes the value of an address.
    fn value<'a>(&self, value: &'a [u8]) -> Result<Value<'a>> {
        Value::decode(value).ok_or_else(|| self.broken("a row has no value"))
    }

    /// Reads the payload of an entry in one of the segment's logs, if it is the expected one.
    fn payload_in_log(
        &self,
        log: u16,
        location: Location,
        is_expected: impl FnOnce(&Parts<'_>) -> bool,
    ) -> Result<Bytes> {
        let bytes = self.entry(log, location, is_expected)?;
        let payload = Parts::of(&bytes).map(|parts| bytes.slice_ref(parts.payload));
        payload.map_err(|error| self.malformed(error))
    }

    /// Reads the entry of a row in one of the segment's logs.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it does not verify, and [`Error::Io`] if it cannot be read.
    pub(crate) fn entry_in_log(
        &self,
        log: u16,
        location: Location,
        row: &OwnedRow,
    ) -> Result<Bytes> {
        self.entry(log, location, |parts| row.is_of(parts))
    }

    /// Returns true if an error is about the file of this segment.
    pub(crate) fn is_named_in(&self, error: &Error) -> bool {
        matches!(error, Error::Corrupt { file, .. } | Error::Io { file, .. } if *file == self.path)
    }

    /// Leaves the segment out of merges, because it cannot be read to its end.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Returns true if the segment is left out of merges.
    pub(crate) fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Returns the addresses whose latest entry could not be read when it was sealed.
    pub(crate) fn damaged(&self) -> &[Damaged] {
        self.damaged.as_deref().unwrap_or_default()
    }

    /// Returns true if nobody can tell which keys are damaged.
    pub(crate) fn has_lost_damaged(&self) -> bool {
        self.damaged.is_none()
    }

    /// Reads the entry of a damaged address, should the disk give it back.
    ///
    /// # Errors
    ///
    /// Those of [`entry_in_log`](Self::entry_in_log).
    pub(crate) fn damaged_entry(&self, damaged: &Damaged) -> Result<Bytes> {
        let is_expected = |parts: &Parts<'_>| parts.hash128(&self.meta.uuid) == damaged.hash;
        self.entry(damaged.log, damaged.location, is_expected)
    }

    fn entry(
        &self,
        log: u16,
        location: Location,
        is_expected: impl FnOnce(&Parts<'_>) -> bool,
    ) -> Result<Bytes> {
        let log = self.values.get(usize::from(log));
        let log = log.ok_or_else(|| self.broken("a row names a log that it does not have"))?;
        let bytes = log.read_entry(location)?;
        match Parts::of(&bytes).map(|parts| is_expected(&parts)) {
            Ok(true) => Ok(bytes),
            Ok(false) => Err(log.damaged(location, Malformed("entry is under another address"))),
            Err(error) => Err(log.damaged(location, error)),
        }
    }

    /// Verifies a row that was read.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it does not match its checksum.
    fn row<'a>(&self, key: (&'a [u8; 32], &'a [u8], u16), value: &'a [u8]) -> Result<Row<'a>> {
        RowKey::from_redb(key)
            .and_then(|key| Row::decode(&self.binding, key, value))
            .ok_or_else(|| self.broken("a row does not match its checksum"))
    }

    /// The error for a part that cannot be decoded.
    pub(crate) fn malformed(&self, Malformed(reason): Malformed) -> Error {
        self.broken(reason)
    }

    /// The error for a part that does not verify.
    pub(crate) fn broken(&self, reason: &str) -> Error {
        Error::corrupt(&self.path, reason)
    }
}

#[cfg(test)]
mod tests;
