//! Writing a segment: in key order, under a temporary name, and verified before it gets its own.

use std::iter::Peekable;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Builder, Database, Table};

use crate::clock::Moment;
use crate::engine::disk::{Disk, DiskFile, remove_leftover};
use crate::engine::entry;
use crate::error::{Error, Result};
use crate::key::Address;

use super::database::{CACHE_BYTES, FILTER, META, RECORDS, TableKey, failed, guarded};
use super::file::RedbFile;
use super::meta::{SegmentMeta, segment_name};
use super::row::{Head, Row, RowKey};
use super::{Segment, filter};

/// The rows of one durable transaction: enough to be fast, and few enough not to delay the commits
/// beside it.
const ROWS_PER_COMMIT: usize = 512;
/// The longest payload that is stored whole. redb rounds a value that does not fit a page up to a
/// power of two pages, so longer ones are split.
const WHOLE_BYTES: usize = 3700;
/// The bytes of one part of a split payload: two parts fit a page.
const PART_BYTES: usize = 1850;
/// The bytes of one part of the filter: one part fits a page.
const FILTER_PART_BYTES: usize = 4000;

/// One record or forget on its way into a segment.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) address: Address,
    pub(crate) at: Moment,
    pub(crate) payload: Bytes,
    /// The moment from which it may be dropped.
    pub(crate) expires: Moment,
}

/// Writes and names a segment of these entries, which come in the order of their addresses. Returns
/// `None` if there are none.
///
/// `pace` runs between transactions, and may stop the work.
///
/// # Errors
///
/// Those of `entries` and `pace`, [`Error::Io`], and [`Error::Corrupt`] if the file does not read
/// back. The unfinished file is removed.
///
/// # Durability
///
/// The content is durable when this returns; the caller makes the name durable.
pub(crate) fn build(
    disk: &dyn Disk,
    meta: SegmentMeta,
    entries: impl Iterator<Item = Result<Sealed>>,
    mut pace: impl FnMut() -> Result<()>,
) -> Result<Option<Segment>> {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return Ok(None);
    }
    let name = segment_name(meta.generation);
    let temporary = format!("{name}.tmp");
    let path = disk.path_of(&temporary);
    let failed = |error| Error::io("create", &path, error);
    remove_leftover(disk, &temporary).map_err(failed)?;
    let file = disk.create(&temporary).map_err(failed)?;
    let written = guarded(&path, || write(&path, Arc::clone(&file), meta, entries, &mut pace));
    let kept = written.and_then(|meta| {
        file.sync().map_err(|error| Error::io("sync", &path, error))?;
        let loaded = guarded(&path, || Segment::load(name.clone(), path.clone(), file, meta.uuid))?;
        loaded.verify_rows(pace)?;
        disk.rename(&temporary, &name).map_err(|error| Error::io("rename", &path, error))?;
        Ok(Segment { path: disk.path_of(&name), ..loaded })
    });
    if kept.is_err() {
        // The next attempt or opening removes a file that cannot be removed now.
        let _ = disk.remove(&temporary);
    }
    kept.map(Some)
}

/// Writes all tables, and returns the completed description.
fn write(
    path: &Path,
    file: Arc<dyn DiskFile>,
    mut meta: SegmentMeta,
    entries: Peekable<impl Iterator<Item = Result<Sealed>>>,
    mut pace: impl FnMut() -> Result<()>,
) -> Result<SegmentMeta> {
    let database = Builder::new()
        .set_cache_size(16 * CACHE_BYTES)
        .create_with_backend(RedbFile(file))
        .map_err(|error| failed(path, error))?;
    let mut rows = Rows { entries, sentinel: true, bits: Vec::new() };
    let mut more = true;
    while more {
        let transaction = database.begin_write().map_err(|error| failed(path, error))?;
        {
            let mut table = transaction.open_table(RECORDS).map_err(|error| failed(path, error))?;
            more = append_rows(path, &mut table, &mut rows, &mut meta)?;
        }
        transaction.commit().map_err(|error| failed(path, error))?;
        pace()?;
    }
    meta.records = rows.bits.len() as u64;
    write_meta(path, &database, &meta, rows.bits)?;
    database.close().map_err(|error| failed(path, error))?;
    Ok(meta)
}

/// Appends the rows of one transaction, and returns whether there are more.
fn append_rows(
    path: &Path,
    table: &mut Table<'_, TableKey, &'static [u8]>,
    rows: &mut Rows<impl Iterator<Item = Result<Sealed>>>,
    meta: &mut SegmentMeta,
) -> Result<bool> {
    let mut cursor = table
        .upper_bound_mut(Bound::<(&[u8; 32], &[u8], u16)>::Unbounded)
        .map_err(|error| failed(path, error))?;
    let mut count = 0;
    let mut more = true;
    while more && count < ROWS_PER_COMMIT {
        let mut put = |key: RowKey<'_>, next: Option<RowKey<'_>>, value: &[u8]| {
            count += 1;
            let row = Row::encode(meta, &key, next.as_ref(), value);
            cursor.insert_before(key.as_redb(), &row[..]).map_err(|error| {
                Error::corrupt(path, format!("its rows are not in order: {error}"))
            })
        };
        let expires = rows.next_entry(&mut put)?;
        more = expires.is_some();
        meta.latest_expiry = meta.latest_expiry.max(expires.unwrap_or_default().0);
    }
    cursor.close().map_err(|error| failed(path, error))?;
    Ok(more)
}

/// Turns entries into rows, each with the key of the next row.
struct Rows<I: Iterator> {
    entries: Peekable<I>,
    /// True until the sentinel row has been put.
    sentinel: bool,
    /// The filter's bits of each entry so far.
    bits: Vec<u64>,
}

impl<I: Iterator<Item = Result<Sealed>>> Rows<I> {
    /// Puts the rows of the next entry, and returns its expiry, or `None` after the last entry.
    fn next_entry(
        &mut self,
        put: &mut impl FnMut(RowKey<'_>, Option<RowKey<'_>>, &[u8]) -> Result<()>,
    ) -> Result<Option<Moment>> {
        if std::mem::take(&mut self.sentinel) {
            put(RowKey::SENTINEL, self.peek()?, &[])?;
            return Ok(Some(Moment::default()));
        }
        let Some(entry) = self.entries.next().transpose()? else { return Ok(None) };
        let Sealed { address, at, payload, expires } = entry;
        self.bits.push(filter::bits(&address));
        let next = self.peek()?;
        let whole = payload.len() <= WHOLE_BYTES;
        let (part, rest) = payload.split_at(if whole { payload.len() } else { PART_BYTES });
        let digest = (!whole).then(|| entry::digest(&payload));
        let head = Head { at, total: payload.len(), digest, part };
        let mut key = RowKey::of(&address, 0);
        let mut value = head.encode();
        for part in rest.chunks(PART_BYTES) {
            let following = key.next_part().expect("entries have fewer parts than that");
            put(key, Some(following), &value)?;
            key = following;
            value = part.to_vec();
        }
        put(key, next, &value)?;
        Ok(Some(expires))
    }

    /// Returns the first row key of the next entry.
    fn peek(&mut self) -> Result<Option<RowKey<'_>>> {
        match self.entries.peek() {
            Some(Ok(entry)) => Ok(Some(RowKey::of(&entry.address, 0))),
            Some(Err(error)) => Err(error.clone()),
            None => Ok(None),
        }
    }
}

/// Writes the filter and the meta row.
fn write_meta(path: &Path, database: &Database, meta: &SegmentMeta, bits: Vec<u64>) -> Result<()> {
    let filter = filter::build(bits).map_err(|reason| Error::corrupt(path, reason))?;
    let transaction = database.begin_write().map_err(|error| failed(path, error))?;
    {
        let mut table = transaction.open_table(FILTER).map_err(|error| failed(path, error))?;
        for (part, bytes) in (0..).zip(filter::encode(&filter, meta).chunks(FILTER_PART_BYTES)) {
            table.insert(part, bytes).map_err(|error| failed(path, error))?;
        }
        let mut table = transaction.open_table(META).map_err(|error| failed(path, error))?;
        table.insert("meta", &meta.encode()[..]).map_err(|error| failed(path, error))?;
    }
    transaction.commit().map_err(|error| failed(path, error))
}
