//! One sealed segment: the records of one stretch of time, in a redb file that is written once.
//!
//! The only module that names redb. redb does not verify what it reads, and a flipped bit can hide
//! a key, so each row names its successor and carries a checksum over its own key, its successor
//! and its value. A lookup takes the last row at or below the key: only a row that verifies, and
//! whose successor lies beyond the key, proves that the key is absent. Anything else is damage.
//! redb may panic on damage; its calls run under `catch_unwind`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::Bytes;
use redb::{Builder, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, TableDefinition};
use xorf::{BinaryFuse16, Filter};

use crate::clock::Moment;
use crate::engine::disk::{Disk, DiskFile};
use crate::engine::entry::{self, Found};
use crate::error::{Error, Result};
use crate::key::Address;

mod backend;
mod build;
mod filter;
mod handles;
mod row;

use backend::{Backend, Overlay};
pub(crate) use build::{Sealed, build};
pub(crate) use handles::Handles;
use row::{Head, Row, RowKey};

/// Who, under which key, which part of its value.
type TableKey = (&'static [u8; 32], &'static [u8], u16);
const RECORDS: TableDefinition<'static, TableKey, &'static [u8]> = TableDefinition::new("records");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");
const FILTER: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("filter");

/// Pages that redb caches for each open segment; its own default is 1 GiB.
const CACHE_BYTES: usize = 256 * 1024;
const FORMAT: u32 = 1;

/// What a segment says about itself, and `MANIFEST` about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SegmentMeta {
    pub(crate) uuid: [u8; 16],
    /// The logs it took over, by generation. The last one names the file.
    pub(crate) first_generation: u64,
    pub(crate) generation: u64,
    /// The batches of those logs.
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    /// When the last thing in it expires, in engine time.
    pub(crate) latest_expiry: u64,
    pub(crate) records: u64,
}

/// A segment, its filter in memory and its file opened when needed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) meta: SegmentMeta,
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    path: PathBuf,
    filter: BinaryFuse16,
}

/// redb's end of a segment, open: the table keeps the database alive.
struct Handle {
    table: ReadOnlyTable<TableKey, &'static [u8]>,
}

impl Segment {
    /// Opens a segment that must be the one that is listed.
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

    /// Whether a file that is not listed is one of this store's.
    pub(crate) fn expect_ours(disk: &dyn Disk, generation: u64, uuid: [u8; 16]) -> Result<()> {
        let name = segment_name(generation);
        let path = disk.path_of(&name);
        let file = disk.open(&name).map_err(|error| Error::io("open", &path, error))?;
        guarded(&path, || Self::load(name, path.clone(), file, uuid).map(drop))
    }

    fn load(name: String, path: PathBuf, file: Arc<dyn DiskFile>, uuid: [u8; 16]) -> Result<Self> {
        let database = open_database(&path, &file)?;
        let transaction = database.begin_read().map_err(|error| failed(&path, error))?;
        let meta = {
            let table = transaction.open_table(META).map_err(|error| failed(&path, error))?;
            let bytes = table.get("meta").map_err(|error| failed(&path, error))?;
            let bytes = bytes.ok_or_else(|| Error::corrupt(&path, "it has no meta row"))?;
            build::decode_meta(bytes.value(), &path)?
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

    /// Whether the address may be in this segment. Never wrong in saying no.
    pub(crate) fn may_hold(&self, address: &Address) -> bool {
        self.filter.contains(&filter::bits(address))
    }

    /// Bytes of memory that the filter takes.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.filter.len() * size_of::<u16>()
    }

    pub(crate) fn latest_expiry(&self) -> Moment {
        Moment(self.meta.latest_expiry)
    }

    /// The word on an address in this segment.
    pub(crate) fn find(&self, handles: &Handles, address: &Address) -> Result<Option<Found>> {
        let found = guarded(&self.path, || {
            let handle = handles.get(self)?;
            let Some((at, payload)) = self.payload(&handle.table, address)? else {
                return Ok(None);
            };
            Found::decode(&payload, at)
                .map(Some)
                .map_err(|error| Error::corrupt(&self.path, error.0))
        });
        if found.is_err() {
            // redb reads no more where one read has failed; the next lookup opens it anew.
            handles.forget(self.meta.generation);
        }
        found
    }

    /// The value of an address, put together from its parts, or proof of its absence.
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
        let mut payload = Vec::with_capacity(head.total.min(entry::MAX_ENTRY_BYTES));
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
            Err(self.damaged("the parts of a value do not make it up"))
        }
    }

    /// Reads the file wholly, and verifies that it is the one that was opened.
    pub(crate) fn verify(&self) -> Result<()> {
        let (path, file) = (&self.path, &self.file);
        let load = || Self::load(self.name.clone(), path.clone(), Arc::clone(file), self.meta.uuid);
        if guarded(path, load)?.meta != self.meta {
            return Err(self.damaged("it is not the segment that was opened"));
        }
        guarded(path, || verify_pages(path, file))?;
        self.verify_rows()
    }

    /// Reads every row in order, and verifies that nothing is missing between them.
    fn verify_rows(&self) -> Result<()> {
        guarded(&self.path, || {
            let handle = Handle::open(&self.path, &self.file)?;
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
                expected = row.successor.key();
            }
            if expected.is_none() && records == self.meta.records {
                Ok(())
            } else {
                Err(self.damaged("its last rows are missing"))
            }
        })
    }

    fn row<'a>(&self, key: (&'a [u8; 32], &'a [u8], u16), value: &'a [u8]) -> Result<Row<'a>> {
        RowKey::from_redb(key)
            .and_then(|key| Row::decode(&self.meta, key, value))
            .ok_or_else(|| self.damaged("a row does not match its checksum"))
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::corrupt(&self.path, reason)
    }
}

impl Handle {
    fn open(path: &Path, file: &Arc<dyn DiskFile>) -> Result<Self> {
        let database = open_database(path, file)?;
        let transaction = database.begin_read().map_err(|error| failed(path, error))?;
        let table = transaction.open_table(RECORDS).map_err(|error| failed(path, error))?;
        Ok(Self { table })
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

fn open_database(path: &Path, file: &Arc<dyn DiskFile>) -> Result<ReadOnlyDatabase> {
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .open_read_only_with_backend(Backend(Arc::clone(file)))
        .map_err(|error| failed(path, error))
}

/// Verifies redb's own checksums: of the pages that lead to rows, rows know nothing.
fn verify_pages(path: &Path, file: &Arc<dyn DiskFile>) -> Result<()> {
    let overlay = Overlay::new(file).map_err(|error| Error::io("measure", path, error))?;
    let mut builder = Builder::new();
    let database = builder.set_cache_size(CACHE_BYTES).create_with_backend(overlay);
    let mut database = database.map_err(|error| failed(path, error))?;
    match database.check_integrity().map_err(|error| failed(path, error))? {
        true => Ok(()),
        false => Err(Error::corrupt(path, "redb would repair it")),
    }
}

/// Runs redb, and takes a panic of its for what it is: damage that it did not expect.
fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Error::corrupt(path, "redb panicked on it")))
}

/// Tells the system's errors from damage, of which redb makes errors of the system's type too.
fn failed(path: &Path, error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::corrupt(path, "it is cut short")
        }
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Error::corrupt(path, error.to_string())
        }
        redb::Error::Io(error) => Error::io("read", path, error),
        redb::Error::PreviousIo => {
            Error::io("read", path, std::io::Error::other("another read has just failed"))
        }
        error => Error::corrupt(path, error.to_string()),
    }
}

pub(crate) fn segment_name(generation: u64) -> String {
    format!("{generation:016x}.redb")
}

#[cfg(test)]
mod tests;
