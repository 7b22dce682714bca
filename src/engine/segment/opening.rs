//! Opening a segment: the rows about it, of which any may be damaged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadTransaction, ReadableDatabase, TableDefinition};
use xorf::BinaryFuse16;

use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, DiskFile, Pool};
use crate::engine::log::{Identity, Log};
use crate::error::{Error, Result};
use crate::sync::atomic::AtomicBool;
use crate::sync::{Mutex, OnceLock};

use super::binding::Binding;
use super::damaged::{self, Damaged};
use super::database::{DAMAGED, FILTER, META, failed, guarded, open_database};
use super::expiries::Expiries;
use super::leaves::Leaves;
use super::meta::{SegmentMeta, segment_name};
use super::{Segment, filter};

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
    pub(super) fn load(
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
        let filter = Mutex::new(Some(read_filter(&path, &transaction, &meta, &binding)?));
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
    pub(super) fn load_damaged(
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
            filter: Mutex::new(filter),
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
}

/// Reads a row about the segment.
pub(super) fn read_row(path: &Path, transaction: &ReadTransaction, name: &str) -> Result<Vec<u8>> {
    let table = transaction.open_table(META).map_err(|error| failed(path, error))?;
    let bytes = table.get(name).map_err(|error| failed(path, error))?;
    let bytes = bytes.ok_or_else(|| Error::corrupt(path, "a row about it is missing"))?;
    Ok(bytes.value().to_vec())
}

pub(super) fn read_filter(
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

pub(super) fn read_damaged(
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

pub(super) fn read_expiries(
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
pub(super) fn read_parts(
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
