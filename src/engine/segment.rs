//! One sealed segment: the records of one period of time, in a redb file that is written once.
//!
//! A smaller record is in its row. A larger one stays in a log, which is kept for the sake of the
//! segment, and its row has the place.
//!
//! redb does not verify what it reads, and a flipped bit can hide a key. Each row therefore names
//! its successor and carries a checksum over its own key, its successor and its value. A lookup
//! takes the last row at or below the key.
//!
//! Invariants:
//! - This module is the only one that names redb.
//! - Only a row that verifies and whose successor lies beyond the key proves that the key is
//!   absent. Anything else is damage.
//! - redb may panic on damage, so its calls run under `catch_unwind`.
//! - A file has its `.redb` name only once it is durable and verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition};
use xorf::{BinaryFuse16, Filter};

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, DiskFile, Pool};
use crate::engine::entry::{Found, Parts};
use crate::engine::log::{Location, Log};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::sync::atomic::{AtomicBool, Ordering};

mod binding;
mod build;
mod cursor;
mod damaged;
mod database;
mod expiries;
mod file;
mod filter;
mod format_1;
mod handles;
mod meta;
mod row;
mod value;

use binding::Binding;
pub(crate) use build::{Draft, Item, Kept, Sealed, build};
pub(crate) use cursor::{Cursor, OwnedRow};
pub(crate) use damaged::Damaged;
use database::{
    DAMAGED, FILTER, META, RecordTable, TableKey, failed, guarded, open_database, verify_pages,
};
use expiries::Expiries;
pub(crate) use handles::Handles;
pub(crate) use meta::{SegmentMeta, SegmentMeta1, segment_name};
use row::{Row, RowKey};
pub(crate) use value::{Content, MAX_INLINE_BYTES, Value};

/// The rows that are verified between two pauses.
const ROWS_AT_A_TIME: u64 = 4096;

/// A segment: its filter is in memory, and its redb database is opened when it is needed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) meta: SegmentMeta,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    path: PathBuf,
    filter: BinaryFuse16,
    binding: Binding,
    /// By their hash.
    damaged: Vec<Damaged>,
    /// The times at which the records expire.
    pub(crate) expiries: Expiries,
    /// The logs that hold the larger records.
    pub(crate) values: Vec<Arc<Log>>,
    /// Set once a merge has failed because of this segment: it is left as it is.
    left: AtomicBool,
}

impl Segment {
    /// Opens a listed segment and reads its filter.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the file is missing, damaged or not the listed one,
    /// [`Error::Foreign`], [`Error::Newer`] and [`Error::Io`].
    pub(crate) fn open(pool: &Arc<Pool>, listed: &SegmentMeta, key: DigestKey) -> Result<Self> {
        let name = segment_name(listed.file);
        let path = pool.path_of(&name);
        let file = pool.open_pooled(&name).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(&path, "it is listed and missing"),
            _ => Error::io("open", &path, error),
        })?;
        let mut segment =
            guarded(&path, || Self::load(name, path.clone(), file, listed.uuid, key))?;
        if segment.meta != *listed {
            return Err(Error::corrupt(path, "it is not the segment that is listed"));
        }
        let logs = listed.values.iter().map(|end| Log::open_values(pool, *end, listed.uuid));
        segment.values = logs.map(|log| log.map(Arc::new)).collect::<Result<_>>()?;
        Ok(segment)
    }

    /// Checks that an unlisted segment is this store's.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it is another store's, and those of [`Segment::open`].
    pub(crate) fn expect_ours(
        disk: &dyn Disk,
        number: u64,
        uuid: [u8; 16],
        key: DigestKey,
    ) -> Result<()> {
        let name = segment_name(number);
        let path = disk.path_of(&name);
        let file = disk.open(&name).map_err(|error| Error::io("open", &path, error))?;
        guarded(&path, || Self::load(name, path.clone(), file, uuid, key).map(drop))
    }

    /// Reads the meta row, the filter and the list of damaged addresses, and verifies all three.
    ///
    /// # Errors
    ///
    /// Those of [`Segment::open`]. redb may panic here, so callers run it under [`guarded`].
    fn load(
        name: String,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        uuid: [u8; 16],
        key: DigestKey,
    ) -> Result<Self> {
        let database = open_database(&path, &file)?;
        let transaction = database.begin_read().map_err(|error| failed(&path, error))?;
        let table = transaction.open_table(META).map_err(|error| failed(&path, error))?;
        let row = |name: &str| -> Result<Vec<u8>> {
            let bytes = table.get(name).map_err(|error| failed(&path, error))?;
            let bytes = bytes.ok_or_else(|| Error::corrupt(&path, "a row about it is missing"))?;
            Ok(bytes.value().to_vec())
        };
        let meta = SegmentMeta::decode(&row("meta")?, &path)?;
        if meta.uuid != uuid {
            return Err(Error::foreign(path, "it has another store's uuid"));
        }
        let binding = Binding::new(&meta, key);
        let bytes = read_parts(&path, &transaction, FILTER)?;
        let digest = if meta.format == 1 { 32 } else { 16 };
        let filter = filter::decode(&bytes, &binding, digest)
            .ok_or_else(|| Error::corrupt(&path, "its filter is damaged"))?;
        let damaged = if meta.damaged > 0 {
            let bytes = read_parts(&path, &transaction, DAMAGED)?;
            damaged::decode(&bytes, meta.damaged, &binding)
                .ok_or_else(|| Error::corrupt(&path, "its list of damaged keys is damaged"))?
        } else {
            Vec::new()
        };
        let expiries = if meta.format > 1 {
            Expiries::decode(&row("expiries")?, &binding)
                .ok_or_else(|| Error::corrupt(&path, "its list of expiries is damaged"))?
        } else {
            Expiries::default()
        };
        drop(table);
        let values = Vec::new();
        let left = AtomicBool::new(false);
        Ok(Self { meta, name, file, path, filter, binding, damaged, expiries, values, left })
    }

    /// Returns the segment with the logs that hold its larger records.
    pub(crate) fn with_values(mut self, values: Vec<Arc<Log>>) -> Self {
        self.values = values;
        self
    }

    /// Returns true if the address may be in this segment; `false` is certain.
    pub(crate) fn may_hold(&self, address: &Address) -> bool {
        self.filter.contains(&filter::bits(address.hash))
    }

    /// Returns the bytes of memory that the filter takes.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.filter.len() * size_of::<u16>()
    }

    /// Returns the length of the file, or none if it cannot be measured.
    pub(crate) fn bytes(&self) -> u64 {
        self.file.len().unwrap_or_default()
    }

    /// Returns the moment at which the last entry expires, and the file may be dropped.
    pub(crate) fn latest_expiry(&self) -> Moment {
        Moment(self.meta.latest_expiry)
    }

    /// Returns the latest entry of an address, or `None` if there is proof that it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the rows prove neither, and [`Error::Io`] if they cannot be read.
    pub(crate) fn find(&self, handles: &Handles, address: &Address) -> Result<Option<Found>> {
        if let Ok(at) = self.damaged.binary_search_by_key(&address.hash, |damaged| damaged.hash) {
            return self.find_damaged(&self.damaged[at], address).map(Some);
        }
        let found = guarded(&self.path, || {
            let handle = handles.get(self.meta.file, &self.path, &self.file)?;
            let Some((at, payload)) = self.payload(&handle.table, address)? else {
                return Ok(None);
            };
            Found::decode(&payload, at)
                .map(Some)
                .map_err(|error| Error::corrupt(&self.path, error.0))
        });
        if found.is_err() {
            // A redb database refuses all reads after one has failed; the next lookup reopens it.
            handles.forget(self.meta.file);
        }
        found
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
        if self.damaged.binary_search_by_key(&address.hash, |damaged| damaged.hash).is_ok() {
            return Ok(true);
        }
        let found = guarded(&self.path, || {
            let handle = handles.get(self.meta.file, &self.path, &self.file)?;
            self.with_row(&handle.table, address, |_| Ok(()))
        });
        if found.is_err() {
            handles.forget(self.meta.file);
        }
        found.map(|found| found.is_some())
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
            let Value { at, content, .. } = self.value(row)?;
            let payload = match content {
                Content::Inline(payload) => Bytes::copy_from_slice(payload),
                Content::InLog { log, location, .. } => {
                    self.payload_in_log(log, location, |parts| parts.is_at(address))?
                }
            };
            Ok((at, payload))
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

    /// Decodes the value of a row of an address.
    fn value<'a>(&self, row: &Row<'a>) -> Result<Value<'a>> {
        Value::decode(row.value).ok_or_else(|| self.broken("a row has no value"))
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
        &self.damaged
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

    /// Reads the whole file, and checks that it verifies and is the one that was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first thing that does not verify, and [`Error::Io`].
    pub(crate) fn verify(&self, key: DigestKey) -> Result<()> {
        let (path, file) = (&self.path, &self.file);
        let load =
            || Self::load(self.name.clone(), path.clone(), Arc::clone(file), self.meta.uuid, key);
        if guarded(path, load)?.meta != self.meta {
            return Err(self.broken("it is not the segment that was opened"));
        }
        guarded(path, || verify_pages(path, file))?;
        self.expect_undamaged()?;
        for log in &self.values {
            log.verify()?;
        }
        self.verify_rows(true, || Ok(()))
    }

    /// Checks that every entry can be read that could not be read when it was sealed.
    fn expect_undamaged(&self) -> Result<()> {
        let is_lost = |damaged: &&Damaged| self.damaged_entry(damaged).is_err();
        match self.damaged.iter().filter(is_lost).count() {
            0 => Ok(()),
            1 => Err(self.broken("it holds 1 key whose record is damaged")),
            count => Err(self.broken(&format!("it holds {count} keys whose records are damaged"))),
        }
    }

    /// Reads every row in order, and checks that no row is missing. The records in the segment's
    /// log are read too if `with_log` says so. `pace` runs in between, and may stop the work.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first row that does not verify or does not follow, and
    /// [`Error::Io`].
    fn verify_rows(&self, with_log: bool, mut pace: impl FnMut() -> Result<()>) -> Result<()> {
        guarded(&self.path, || {
            let handle = RecordTable::open(&self.path, &self.file)?;
            let storage = |error| failed(&self.path, error);
            let mut expected = Some(RowKey::SENTINEL.joined());
            let mut records = 0;
            for row in handle.table.range::<TableKey>(..).map_err(storage)? {
                let (key, value) = row.map_err(storage)?;
                let row = self.row(key.value(), value.value())?;
                if expected != Some(row.key.joined()) {
                    return Err(self.broken("a row is missing"));
                }
                records += u64::from(row.key.part == 0 && row.key != RowKey::SENTINEL);
                if with_log && self.meta.format > 1 && row.key != RowKey::SENTINEL {
                    self.verify_value(&row)?;
                }
                if records % ROWS_AT_A_TIME == 0 {
                    pace()?;
                }
                expected = row.successor.key();
            }
            if expected.is_none() && records == self.meta.records {
                Ok(())
            } else {
                Err(self.broken("its last rows are missing"))
            }
        })
    }

    /// Checks that a row has a value, and that the record in the segment's log is whole.
    fn verify_value(&self, row: &Row<'_>) -> Result<()> {
        match self.value(row)?.content {
            Content::Inline(_) => Ok(()),
            Content::InLog { log, location, .. } => {
                self.payload_in_log(log, location, |parts| row.key.is_of(parts)).map(drop)
            }
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

/// Reads bytes that are stored in parts.
fn read_parts(
    path: &Path,
    transaction: &ReadTransaction,
    table: TableDefinition<'static, u32, &'static [u8]>,
) -> Result<Vec<u8>> {
    let table = transaction.open_table(table).map_err(|error| failed(path, error))?;
    let mut bytes = Vec::new();
    for part in table.range::<u32>(..).map_err(|error| failed(path, error))? {
        bytes.extend_from_slice(part.map_err(|error| failed(path, error))?.1.value());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
