//! Writing a segment: in key order, under a temporary name, and verified before it gets its own.

use std::iter::Peekable;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Builder, Database, Table, TableDefinition, WriteTransaction};

use crate::clock::Moment;
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, Pool, remove_leftover};
use crate::engine::entry::End;
use crate::engine::log::Location;
use crate::error::{Error, Result};
use crate::key::Address;

use super::binding::Binding;
use super::damaged::{self, Damaged};
use super::database::{CACHE_BYTES, DAMAGED, FILTER, META, RECORDS, TableKey, failed, guarded};
use super::expiries::Expiries;
use super::file::NewFile;
use super::meta::{SegmentMeta, segment_name};
use super::row::{Row, RowKey};
use super::value::{Content, Value};
use super::{Segment, filter};

/// The rows of one durable transaction: enough to be fast, and few enough not to delay the commits
/// beside it.
const ROWS_PER_COMMIT: usize = 512;
/// The bytes of one part of the filter or of another list: one part fits a page.
const PART_BYTES: usize = 4000;

/// One entry on its way into a segment.
#[derive(Debug)]
pub(crate) enum Item {
    Sealed(Sealed),
    Damaged(Damaged),
}

/// One record or forget on its way into a segment.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) address: Address,
    pub(crate) at: Moment,
    pub(crate) kept: Kept,
    /// The moment from which it may be dropped.
    pub(crate) expires: Moment,
}

/// The place of a payload.
#[derive(Debug)]
pub(crate) enum Kept {
    Inline(Bytes),
    /// In the log with this number among the segment's; `bare` is the payload without the response.
    InLog {
        log: u16,
        location: Location,
        status: u16,
        bare: Bytes,
    },
}

/// A segment to be written.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Its description, without what the entries decide.
    pub(crate) meta: SegmentMeta,
    /// The store's key of digests.
    pub(crate) key: DigestKey,
}

/// Writes and names a segment of these entries, which come in the order of their addresses. Returns
/// `None` if there are none.
///
/// `values` is called after the last entry, and returns the ends of the logs that hold the larger
/// records. `pace` runs between transactions, and may stop the work.
///
/// # Errors
///
/// Those of `entries`, `values` and `pace`, [`Error::Io`], and [`Error::Corrupt`] if the file does not read
/// back. The unfinished file is removed.
///
/// # Durability
///
/// The content is durable when this returns; the caller makes the name durable.
pub(crate) fn build(
    pool: &Arc<Pool>,
    draft: &Draft,
    entries: impl Iterator<Item = Result<Item>>,
    values: impl FnOnce() -> Result<Vec<End>>,
    mut pace: impl FnMut() -> Result<()>,
) -> Result<Option<Segment>> {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return Ok(None);
    }
    let disk = &**pool;
    let name = segment_name(draft.meta.file);
    let temporary = format!("{name}.tmp");
    let path = disk.path_of(&temporary);
    let failed = |error| Error::io("create", &path, error);
    remove_leftover(disk, &temporary).map_err(failed)?;
    let file = disk.create(&temporary).map_err(failed)?;
    let new = NewFile::new(Arc::clone(&file), Arc::clone(pool));
    let written = guarded(&path, || write(&path, new, draft, entries, values, &mut pace));
    let kept = written.and_then(|meta| {
        file.sync().map_err(|error| Error::io("sync", &path, error))?;
        let key = draft.key;
        let load = || Segment::load(name.clone(), path.clone(), file, meta.uuid, key);
        let loaded = guarded(&path, load)?;
        // What is in the log was verified before its row was written.
        loaded.verify_rows(false, pace)?;
        disk.rename(&temporary, &name).map_err(|error| Error::io("rename", &path, error))?;
        let file = pool.adopt(&name, Arc::clone(&loaded.file));
        Ok(Segment { path: disk.path_of(&name), file, ..loaded })
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
    file: NewFile,
    draft: &Draft,
    entries: Peekable<impl Iterator<Item = Result<Item>>>,
    values: impl FnOnce() -> Result<Vec<End>>,
    mut pace: impl FnMut() -> Result<()>,
) -> Result<SegmentMeta> {
    let database = Builder::new()
        .set_cache_size(16 * CACHE_BYTES)
        .create_with_backend(file)
        .map_err(|error| failed(path, error))?;
    let mut meta = draft.meta.clone();
    let binding = Binding::new(&meta, draft.key);
    let mut rows = Rows {
        entries,
        sentinel: true,
        bits: Vec::new(),
        damaged: Vec::new(),
        expiries: Vec::new(),
        latest_expiry: Moment(0),
    };
    let mut more = true;
    while more {
        let transaction = database.begin_write().map_err(|error| failed(path, error))?;
        {
            let mut table = transaction.open_table(RECORDS).map_err(|error| failed(path, error))?;
            more = append_rows(path, &mut table, &mut rows, &binding)?;
        }
        transaction.commit().map_err(|error| failed(path, error))?;
        pace()?;
    }
    meta.records = rows.bits.len() as u64;
    rows.damaged.sort_unstable_by_key(|damaged| damaged.hash);
    meta.damaged = rows.damaged.len() as u64;
    meta.latest_expiry = rows.latest_expiry.0;
    meta.values = values()?;
    write_meta(path, &database, &meta, &binding, rows)?;
    database.close().map_err(|error| failed(path, error))?;
    Ok(meta)
}

/// Appends the rows of one transaction, and returns whether there are more.
fn append_rows(
    path: &Path,
    table: &mut Table<'_, TableKey, &'static [u8]>,
    rows: &mut Rows<impl Iterator<Item = Result<Item>>>,
    binding: &Binding,
) -> Result<bool> {
    let mut cursor = table
        .upper_bound_mut(Bound::<(&[u8; 32], &[u8], u16)>::Unbounded)
        .map_err(|error| failed(path, error))?;
    let mut count = 0;
    let mut more = true;
    while more && count < ROWS_PER_COMMIT {
        let mut put = |key: RowKey<'_>, next: Option<RowKey<'_>>, value: &[u8]| {
            count += 1;
            let row = Row::encode(binding, &key, next.as_ref(), value);
            cursor.insert_before(key.as_redb(), &row[..]).map_err(|error| {
                Error::corrupt(path, format!("its rows are not in order: {error}"))
            })
        };
        more = rows.next_entry(&mut put)?;
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
    damaged: Vec<Damaged>,
    /// The expiry of each entry so far, and its bytes.
    expiries: Vec<(Moment, u64)>,
    latest_expiry: Moment,
}

impl<I: Iterator<Item = Result<Item>>> Rows<I> {
    /// Puts the row of the next entry, and returns false after the last one.
    fn next_entry(
        &mut self,
        put: &mut impl FnMut(RowKey<'_>, Option<RowKey<'_>>, &[u8]) -> Result<()>,
    ) -> Result<bool> {
        if std::mem::take(&mut self.sentinel) {
            put(RowKey::SENTINEL, self.peek()?, &[])?;
            return Ok(true);
        }
        self.set_damaged_aside()?;
        let Some(Item::Sealed(entry)) = self.entries.next().transpose()? else { return Ok(false) };
        let Sealed { address, at, kept, expires } = entry;
        self.bits.push(filter::bits(address.hash));
        self.latest_expiry = self.latest_expiry.max(expires);
        let in_log = match &kept {
            Kept::Inline(_) => 0,
            Kept::InLog { location, .. } => u64::from(location.length),
        };
        let content = match &kept {
            Kept::Inline(payload) => Content::Inline(payload),
            Kept::InLog { log, location, status, bare } => {
                Content::InLog { log: *log, location: *location, status: *status, bare }
            }
        };
        let value = Value { at, expires, content }.encode();
        self.expiries.push((expires, value.len() as u64 + in_log));
        put(RowKey::of(&address, 0), self.peek()?, &value)?;
        Ok(true)
    }

    /// Returns the row key of the next entry.
    fn peek(&mut self) -> Result<Option<RowKey<'_>>> {
        self.set_damaged_aside()?;
        match self.entries.peek() {
            Some(Ok(Item::Sealed(entry))) => Ok(Some(RowKey::of(&entry.address, 0))),
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(None),
        }
    }

    /// Takes in the damaged entries that come next: they have no row.
    fn set_damaged_aside(&mut self) -> Result<()> {
        while let Some(entry) = self.entries.next_if(|next| matches!(next, Ok(Item::Damaged(_)))) {
            if let Item::Damaged(damaged) = entry? {
                self.latest_expiry = self.latest_expiry.max(damaged.expires);
                self.damaged.push(damaged);
            }
        }
        Ok(())
    }
}

/// Writes the filter, the list of damaged addresses and the meta row.
fn write_meta<I: Iterator>(
    path: &Path,
    database: &Database,
    meta: &SegmentMeta,
    binding: &Binding,
    rows: Rows<I>,
) -> Result<()> {
    let damaged = rows.damaged.iter().map(|damaged| filter::bits(damaged.hash));
    let bits = rows.bits.into_iter().chain(damaged).collect();
    let filter = filter::build(bits).map_err(|reason| Error::corrupt(path, reason))?;
    let transaction = database.begin_write().map_err(|error| failed(path, error))?;
    write_parts(path, &transaction, FILTER, &filter::encode(&filter, binding))?;
    if !rows.damaged.is_empty() {
        write_parts(path, &transaction, DAMAGED, &damaged::encode(&rows.damaged, binding))?;
    }
    {
        let mut table = transaction.open_table(META).map_err(|error| failed(path, error))?;
        table.insert("meta", &meta.encode()[..]).map_err(|error| failed(path, error))?;
        let expiries = Expiries::of(rows.expiries).encode(binding);
        table.insert("expiries", &expiries[..]).map_err(|error| failed(path, error))?;
    }
    transaction.commit().map_err(|error| failed(path, error))
}

/// Writes bytes in parts of about a page.
fn write_parts(
    path: &Path,
    transaction: &WriteTransaction,
    table: TableDefinition<'static, u32, &'static [u8]>,
    bytes: &[u8],
) -> Result<()> {
    let mut table = transaction.open_table(table).map_err(|error| failed(path, error))?;
    for (part, bytes) in (0..).zip(bytes.chunks(PART_BYTES)) {
        table.insert(part, bytes).map_err(|error| failed(path, error))?;
    }
    Ok(())
}
