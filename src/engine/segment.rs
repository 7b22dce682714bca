//! One sealed segment: the records of one period of time, in a redb file that is written once.
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

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadableDatabase};
use xorf::{BinaryFuse16, Filter};

use crate::clock::Moment;
use crate::codec;
use crate::engine::disk::{Disk, DiskFile};
use crate::engine::entry::{self, Found};
use crate::error::{Error, Result};
use crate::key::Address;

mod build;
mod database;
mod file;
mod filter;
mod handles;
mod meta;
mod row;

pub(crate) use build::{Sealed, build};
use database::{FILTER, META, RecordTable, TableKey, failed, guarded, open_database, verify_pages};
pub(crate) use handles::Handles;
pub(crate) use meta::{SegmentMeta, segment_name};
use row::{Head, Row, RowKey};

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
}

impl Segment {
    /// Opens a listed segment and reads its filter.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the file is missing, damaged or not the listed one,
    /// [`Error::Foreign`], [`Error::Newer`] and [`Error::Io`].
    pub(crate) fn open(disk: &dyn Disk, listed: &SegmentMeta) -> Result<Self> {
        let name = segment_name(listed.generation);
        let path = disk.path_of(&name);
        let file = disk.open(&name).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(&path, "it is listed and missing"),
            _ => Error::io("open", &path, error),
        })?;
        let segment = guarded(&path, || Self::load(name, path.clone(), file, listed.uuid))?;
        if segment.meta == *listed {
            Ok(segment)
        } else {
            Err(Error::corrupt(path, "it is not the segment that is listed"))
        }
    }

    /// Checks that an unlisted segment is this store's.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it is another store's, and those of [`Segment::open`].
    pub(crate) fn expect_ours(disk: &dyn Disk, generation: u64, uuid: [u8; 16]) -> Result<()> {
        let name = segment_name(generation);
        let path = disk.path_of(&name);
        let file = disk.open(&name).map_err(|error| Error::io("open", &path, error))?;
        guarded(&path, || Self::load(name, path.clone(), file, uuid).map(drop))
    }

    /// Reads the meta row and the filter, and verifies both.
    ///
    /// # Errors
    ///
    /// Those of [`Segment::open`]. redb may panic here, so callers run it under [`guarded`].
    fn load(name: String, path: PathBuf, file: Arc<dyn DiskFile>, uuid: [u8; 16]) -> Result<Self> {
        let database = open_database(&path, &file)?;
        let transaction = database.begin_read().map_err(|error| failed(&path, error))?;
        let meta = {
            let table = transaction.open_table(META).map_err(|error| failed(&path, error))?;
            let bytes = table.get("meta").map_err(|error| failed(&path, error))?;
            let bytes = bytes.ok_or_else(|| Error::corrupt(&path, "it has no meta row"))?;
            SegmentMeta::decode(bytes.value(), &path)?
        };
        if meta.uuid != uuid {
            return Err(Error::foreign(path, "it has another store's uuid"));
        }
        let table = transaction.open_table(FILTER).map_err(|error| failed(&path, error))?;
        let mut bytes = Vec::new();
        for part in table.range::<u32>(..).map_err(|error| failed(&path, error))? {
            bytes.extend_from_slice(part.map_err(|error| failed(&path, error))?.1.value());
        }
        let filter = filter::decode(&bytes, &meta)
            .ok_or_else(|| Error::corrupt(&path, "its filter is damaged"))?;
        Ok(Self { meta, name, file, path, filter })
    }

    /// Returns true if the address may be in this segment; `false` is certain.
    pub(crate) fn may_hold(&self, address: &Address) -> bool {
        self.filter.contains(&filter::bits(address))
    }

    /// Returns the bytes of memory that the filter takes.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.filter.len() * size_of::<u16>()
    }

    /// Returns the moment at which the last entry expires, and the file may be dropped.
    pub(crate) fn latest_expiry(&self) -> Moment {
        Moment(self.meta.latest_expiry)
    }

    /// Returns the record or forget of an address, or `None` if there is proof that it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the rows prove neither, and [`Error::Io`] if they cannot be read.
    pub(crate) fn find(&self, handles: &Handles, address: &Address) -> Result<Option<Found>> {
        let found = guarded(&self.path, || {
            let handle = handles.get(self.meta.generation, &self.path, &self.file)?;
            let Some((at, payload)) = self.payload(&handle.table, address)? else {
                return Ok(None);
            };
            Found::decode(&payload, at)
                .map(Some)
                .map_err(|error| Error::corrupt(&self.path, error.0))
        });
        if found.is_err() {
            // A redb database refuses all reads after one has failed; the next lookup reopens it.
            handles.forget(self.meta.generation);
        }
        found
    }

    /// Returns the payload of an address, joined from its parts, or `None` if there is proof that
    /// it has none.
    fn payload(
        &self,
        table: &ReadOnlyTable<TableKey, &'static [u8]>,
        address: &Address,
    ) -> Result<Option<(Moment, Bytes)>> {
        let wanted = RowKey::of(address, 0);
        let storage = |error| failed(&self.path, error);
        let mut below = table.range(..=wanted.as_redb()).map_err(storage)?;
        let Some(last) = below.next_back() else {
            return Err(self.damaged("it has no row at or below a key"));
        };
        let (key, value) = last.map_err(storage)?;
        let row = self.row(key.value(), value.value())?;
        if row.key != wanted {
            // Both neighbours count: a damaged branch can lead to a row beyond the key.
            let between = row.key.cmp(&wanted).is_lt() && row.successor.cmp_key(&wanted).is_gt();
            return if between { Ok(None) } else { Err(self.damaged("a row is missing")) };
        }
        let head = Head::decode(row.value).ok_or_else(|| self.damaged("a row has no head"))?;
        let Some(digest) = head.digest else {
            return Ok(Some((head.at, Bytes::copy_from_slice(head.part))));
        };
        let mut payload = Vec::with_capacity(head.total.min(codec::MAX_ENTRY_BYTES));
        payload.extend_from_slice(head.part);
        let mut expected = row.key.next_part();
        let mut complete = !expected.is_some_and(|next| row.successor.is(&next));
        let (first, last) = (RowKey::of(address, 1), RowKey::of(address, u16::MAX));
        for part in table.range(first.as_redb()..=last.as_redb()).map_err(storage)? {
            let (key, value) = part.map_err(storage)?;
            let row = self.row(key.value(), value.value())?;
            if complete || Some(row.key.part) != expected.map(|next| next.part) {
                return Err(self.damaged("a part is missing"));
            }
            payload.extend_from_slice(row.value);
            expected = RowKey::of(address, row.key.part).next_part();
            complete = !expected.is_some_and(|next| row.successor.is(&next));
        }
        if complete && payload.len() == head.total && entry::digest(&payload) == digest {
            Ok(Some((head.at, payload.into())))
        } else {
            Err(self.damaged("the parts of a value do not match its digest"))
        }
    }

    /// Reads the whole file, and checks that it verifies and is the one that was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first thing that does not verify, and [`Error::Io`].
    pub(crate) fn verify(&self) -> Result<()> {
        let (path, file) = (&self.path, &self.file);
        let load = || Self::load(self.name.clone(), path.clone(), Arc::clone(file), self.meta.uuid);
        if guarded(path, load)?.meta != self.meta {
            return Err(self.damaged("it is not the segment that was opened"));
        }
        guarded(path, || verify_pages(path, file))?;
        self.verify_rows(|| Ok(()))
    }

    /// Reads every row in order, and checks that no row is missing. `pace` runs in between, and may
    /// stop the work.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first row that does not verify or does not follow, and
    /// [`Error::Io`].
    fn verify_rows(&self, mut pace: impl FnMut() -> Result<()>) -> Result<()> {
        guarded(&self.path, || {
            let handle = RecordTable::open(&self.path, &self.file)?;
            let storage = |error| failed(&self.path, error);
            let mut expected = Some(RowKey::SENTINEL.joined());
            let mut records = 0;
            for row in handle.table.range::<TableKey>(..).map_err(storage)? {
                let (key, value) = row.map_err(storage)?;
                let row = self.row(key.value(), value.value())?;
                if expected != Some(row.key.joined()) {
                    return Err(self.damaged("a row is missing"));
                }
                records += u64::from(row.key.part == 0 && row.key != RowKey::SENTINEL);
                if records % ROWS_AT_A_TIME == 0 {
                    pace()?;
                }
                expected = row.successor.key();
            }
            if expected.is_none() && records == self.meta.records {
                Ok(())
            } else {
                Err(self.damaged("its last rows are missing"))
            }
        })
    }

    /// Verifies a row that was read.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it does not match its checksum.
    fn row<'a>(&self, key: (&'a [u8; 32], &'a [u8], u16), value: &'a [u8]) -> Result<Row<'a>> {
        RowKey::from_redb(key)
            .and_then(|key| Row::decode(&self.meta, key, value))
            .ok_or_else(|| self.damaged("a row does not match its checksum"))
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::corrupt(&self.path, reason)
    }
}

#[cfg(test)]
mod tests;
