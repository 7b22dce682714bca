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
use crate::engine::log::{Identity, Location, Log};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::sync::OnceLock;
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
mod leaves;
mod listing;
mod meta;
mod remains;
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
use leaves::Leaves;
pub(crate) use meta::{SegmentMeta, SegmentMeta1, segment_name};
pub(crate) use remains::{Remains, RowContent};
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
    /// `None` if it is damaged: any address may be in the segment.
    filter: Option<BinaryFuse16>,
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
    /// Opens a listed segment and reads its filter. What is damaged is done without, if any row of
    /// the segment can be read.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the file is missing, not the listed one, or has no row that verifies,
    /// [`Error::Foreign`], [`Error::Newer`] and [`Error::Io`].
    pub(crate) fn open(pool: &Arc<Pool>, listed: &SegmentMeta, key: DigestKey) -> Result<Self> {
        let name = segment_name(listed.file);
        let path = pool.path_of(&name);
        let file = pool.open_pooled(&name).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(&path, "it is listed and missing"),
            _ => Error::io("open", &path, error),
        })?;
        let loaded = guarded(&path, || {
            Self::load(name.clone(), path.clone(), Arc::clone(&file), listed.uuid, key)
        });
        let mut segment = match loaded {
            Err(error @ (Error::Corrupt { .. } | Error::Newer { .. })) => {
                Self::load_damaged(name, path, file, listed, key, error)?
            }
            loaded => loaded?,
        };
        if segment.meta != *listed {
            return Err(segment.broken("it is not the segment that is listed"));
        }
        let store = Identity { uuid: listed.uuid, entries: key };
        let logs = listed.values.iter().map(|end| Log::open_values(pool, *end, store));
        // Their rows say which keys they are.
        let damaged = |error: Error| error.or_salvage("the records in it, and none of their keys");
        let logs = logs.map(|log| log.map(Arc::new).map_err(damaged));
        segment.values = logs.collect::<Result<_>>()?;
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
        let loaded = guarded(&path, || {
            Self::load(name, path.clone(), Arc::clone(&file), uuid, key).map(drop)
        });
        match loaded {
            // One row is enough.
            Err(Error::Corrupt { .. })
                if !Leaves::read(&*file, &Binding::of(uuid, number, key)).is_empty() =>
            {
                Ok(())
            }
            loaded => loaded,
        }
    }

    /// Reads the meta row, the filter and the lists of damaged addresses and of expiries, and verifies
    /// them all.
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
        let meta = SegmentMeta::decode(&read_row(&path, &transaction, "meta")?, &path)?;
        if meta.uuid != uuid {
            return Err(Error::foreign(path, "it has another store's uuid"));
        }
        let binding = Binding::new(&meta, key);
        let filter = Some(read_filter(&path, &transaction, &meta, &binding)?);
        let damaged = Some(read_damaged(&path, &transaction, &meta, &binding)?);
        let expiries = read_expiries(&path, &transaction, &meta, &binding)?;
        let (values, left, leaves) = (Vec::new(), AtomicBool::new(false), OnceLock::new());
        let is_file_damaged = false;
        Ok(Self {
            meta,
            name,
            file,
            path,
            filter,
            binding,
            damaged,
            expiries,
            values,
            left,
            leaves,
            is_file_damaged,
        })
    }

    /// Reads what can be read of a segment that gave this error. It has the description under which
    /// it is listed, unless it says something else itself.
    ///
    /// # Errors
    ///
    /// The same error, if no row of the segment verifies.
    fn load_damaged(
        name: String,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        listed: &SegmentMeta,
        key: DigestKey,
        error: Error,
    ) -> Result<Self> {
        fn part<T>(
            path: &Path,
            file: &Arc<dyn DiskFile>,
            read: impl FnOnce(&ReadTransaction) -> Result<T>,
        ) -> Option<T> {
            let run = || {
                let database = open_database(path, file)?;
                read(&database.begin_read().map_err(|error| failed(path, error))?)
            };
            guarded(path, run).ok()
        }
        let meta = part(&path, &file, |transaction| read_row(&path, transaction, "meta"));
        let is_meta_damaged = !meta.is_some_and(|meta| SegmentMeta::is_whole(&meta));
        let binding = Binding::new(listed, key);
        let (meta, leaves) = (listed.clone(), Leaves::read(&*file, &binding));
        let is_other = !is_meta_damaged && matches!(error, Error::Newer { .. });
        if is_other || leaves.is_empty() {
            return Err(error);
        }
        let filter = part(&path, &file, |read| read_filter(&path, read, &meta, &binding));
        let damaged = part(&path, &file, |read| read_damaged(&path, read, &meta, &binding));
        let expiries = part(&path, &file, |read| read_expiries(&path, read, &meta, &binding));
        // A merge needs all but the filter, and makes another one of that.
        let left = is_meta_damaged || damaged.is_none() || expiries.is_none();
        Ok(Self {
            meta,
            name,
            file,
            path,
            filter,
            binding,
            // None has been lost if none was there.
            damaged: damaged.or_else(|| (listed.damaged == 0).then(Vec::new)),
            expiries: expiries.unwrap_or_default(),
            values: Vec::new(),
            left: AtomicBool::new(left),
            leaves: OnceLock::new(),
            is_file_damaged: true,
        })
    }

    /// Returns the segment with the logs that hold its larger records.
    pub(crate) fn with_values(mut self, values: Vec<Arc<Log>>) -> Self {
        self.values = values;
        self
    }

    /// Returns true if the address may be in this segment; `false` is certain.
    pub(crate) fn may_hold(&self, address: &Address) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.contains(&filter::bits(address.hash)))
    }

    /// Returns the bytes of memory that the filter takes.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.filter.as_ref().map_or(0, Filter::len) * size_of::<u16>()
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
        match self.damaged().iter().filter(is_lost).count() {
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
        match self.value(row.value)?.content {
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

/// Reads a row about the segment.
fn read_row(path: &Path, transaction: &ReadTransaction, name: &str) -> Result<Vec<u8>> {
    let table = transaction.open_table(META).map_err(|error| failed(path, error))?;
    let bytes = table.get(name).map_err(|error| failed(path, error))?;
    let bytes = bytes.ok_or_else(|| Error::corrupt(path, "a row about it is missing"))?;
    Ok(bytes.value().to_vec())
}

fn read_filter(
    path: &Path,
    transaction: &ReadTransaction,
    meta: &SegmentMeta,
    binding: &Binding,
) -> Result<BinaryFuse16> {
    let bytes = read_parts(path, transaction, FILTER)?;
    let digest = if meta.format == 1 { 32 } else { 16 };
    filter::decode(&bytes, binding, digest)
        .ok_or_else(|| Error::corrupt(path, "its filter is damaged"))
}

fn read_damaged(
    path: &Path,
    transaction: &ReadTransaction,
    meta: &SegmentMeta,
    binding: &Binding,
) -> Result<Vec<Damaged>> {
    if meta.damaged == 0 {
        return Ok(Vec::new());
    }
    let bytes = read_parts(path, transaction, DAMAGED)?;
    damaged::decode(&bytes, meta.damaged, binding)
        .ok_or_else(|| Error::corrupt(path, "its list of damaged keys is damaged"))
}

fn read_expiries(
    path: &Path,
    transaction: &ReadTransaction,
    meta: &SegmentMeta,
    binding: &Binding,
) -> Result<Expiries> {
    if meta.format == 1 {
        return Ok(Expiries::default());
    }
    Expiries::decode(&read_row(path, transaction, "expiries")?, binding)
        .ok_or_else(|| Error::corrupt(path, "its list of expiries is damaged"))
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
