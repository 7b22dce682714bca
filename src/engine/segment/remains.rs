//! Reading a segment of which any part may be damaged: its rows, without the database.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, DiskFile, Pool};
use crate::engine::log::{Location, PAGE_BYTES};
use crate::error::{Error, Result};

use super::binding::Binding;
use super::database::{guarded, open_database};
use super::opening::{read_damaged, read_row};
use super::row::{Row, RowKey, Successor};
use super::value::{Content, Value};
use super::{Damaged, SegmentMeta, format_1, leaves, segment_name};

/// The parts of a segment that can be read.
#[derive(Debug)]
pub(crate) struct Remains {
    file: Arc<dyn DiskFile>,
    binding: Binding,
    format: u32,
    /// Its description, if the file or `MANIFEST` has it.
    pub(crate) meta: Option<SegmentMeta>,
    /// The addresses whose latest entry was damaged, unless that is what cannot be read.
    pub(crate) damaged: Option<Vec<Damaged>>,
    /// The addresses with a row that can be read, in their order.
    pub(crate) rows: Vec<RowPlace>,
    /// The places where rows are missing.
    pub(crate) gaps: usize,
}

/// An address with a row, and the place of it.
#[derive(Debug)]
pub(crate) struct RowPlace {
    pub(crate) scope: [u8; 32],
    pub(crate) key: Box<[u8]>,
    /// The time of the batch that made it durable.
    pub(crate) at: Moment,
    /// The bytes of the payload, or of its entry in a log, where they are more than a row has.
    pub(crate) large: u32,
    /// The pages of its parts.
    pages: Vec<u64>,
}

/// The content of a row.
#[derive(Debug)]
pub(crate) enum RowContent {
    Inline(Bytes),
    InLog { log: u16, location: Location },
}

/// One part of a row, as it was found.
struct Part {
    scope: [u8; 32],
    key: Box<[u8]>,
    part: u16,
    page: u64,
    at: Moment,
    large: u32,
    /// The check of the next row's key, or nothing at the end.
    next: Option<u64>,
}

impl Remains {
    /// Reads a segment, which `MANIFEST` describes as `listed` if it lists it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if no row verifies, [`Error::Foreign`], [`Error::Newer`] and
    /// [`Error::Io`].
    pub(crate) fn read(
        pool: &Arc<Pool>,
        number: u64,
        listed: Option<&SegmentMeta>,
        uuid: [u8; 16],
        key: DigestKey,
    ) -> Result<Self> {
        let name = segment_name(number);
        let path = pool.path_of(&name);
        let file = pool.open(&name).map_err(|error| Error::io("open", &path, error))?;
        let meta = guarded(&path, || {
            let transaction = begin(&path, &file)?;
            SegmentMeta::decode(&read_row(&path, &transaction, "meta")?, &path)
        });
        let meta = match meta {
            Err(error @ Error::Newer { .. }) if listed.is_none() => return Err(error),
            Ok(meta) if meta.uuid != uuid => {
                return Err(Error::foreign(path, "it has another store's uuid"));
            }
            meta => meta.ok().filter(|meta| meta.file == number).or_else(|| listed.cloned()),
        };
        let binding = match &meta {
            Some(meta) => Binding::new(meta, key),
            None => Binding::of(uuid, number, key),
        };
        let damaged = meta.as_ref().and_then(|meta| {
            let read = || read_damaged(&path, &begin(&path, &file)?, meta, &binding);
            guarded(&path, read).ok().or_else(|| (meta.damaged == 0).then(Vec::new))
        });
        let format = meta.as_ref().map(|meta| meta.format);
        let found = |binding, format| (parts(&*file, &binding, format), binding, format);
        let mut found = found(binding, format.unwrap_or(SegmentMeta::FORMAT));
        if found.0.is_empty() && format.is_none() {
            let binding = Binding::of_format_1(uuid, number);
            found = (parts(&*file, &binding, 1), binding, 1);
        }
        let (parts, binding, format) = found;
        if parts.is_empty() {
            return Err(Error::corrupt(path, "no row in it verifies"));
        }
        let (rows, gaps) = rows(parts);
        // Format 1 has no such list.
        let damaged = damaged.or_else(|| (format == 1).then(Vec::new));
        Ok(Self { file, binding, format, meta, damaged, rows, gaps })
    }

    /// Reads the content of a row again.
    pub(crate) fn content(&self, place: &RowPlace) -> Option<RowContent> {
        let value = |part: usize| {
            let mut page = [0; PAGE_BYTES];
            self.file.read_at(&mut page, *place.pages.get(part)?).ok()?;
            let part = u16::try_from(part).ok()?;
            let wanted = RowKey { scope: &place.scope, key: &place.key, part };
            leaves::rows(&page, &self.binding)
                .find(|row| row.key == wanted)
                .map(|row| row.value.to_vec())
        };
        let first = value(0)?;
        if self.format == 1 {
            let rest = (1..place.pages.len()).map(value).collect::<Option<Vec<_>>>()?;
            return format_1::join(&first, &rest).map(RowContent::Inline);
        }
        Value::decode(&first).map(|value| match value.content {
            Content::Inline(payload) => RowContent::Inline(Bytes::copy_from_slice(payload)),
            Content::InLog { log, location, .. } => RowContent::InLog { log, location },
        })
    }
}

fn begin(path: &Path, file: &Arc<dyn DiskFile>) -> Result<redb::ReadTransaction> {
    use redb::ReadableDatabase;

    let database = open_database(path, file)?;
    database.begin_read().map_err(|error| super::failed(path, error))
}

/// Returns all rows that verify, in the order of their keys, each once.
fn parts(file: &dyn DiskFile, binding: &Binding, format: u32) -> Vec<Part> {
    let mut parts = Vec::new();
    leaves::each_page(file, |page, bytes| {
        parts.extend(leaves::rows(bytes, binding).map(|row| Part::of(&row, page, format)));
    });
    parts.sort_by(|a, b| a.place().cmp(&b.place()));
    // redb leaves older copies of pages.
    parts.dedup_by(|a, b| a.place() == b.place());
    parts
}

/// Joins the parts of each address, and counts the places where rows are missing.
fn rows(parts: Vec<Part>) -> (Vec<RowPlace>, usize) {
    let mut rows: Vec<RowPlace> = Vec::new();
    let mut expected = Some(check_of(&RowKey::SENTINEL.joined()));
    let mut gaps = 0;
    for part in parts {
        let Part { scope, key, part, page, at, large, next } = part;
        let own = RowKey { scope: &scope, key: &key, part };
        let is_sentinel = own == RowKey::SENTINEL;
        if expected != Some(check_of(&own.joined())) {
            gaps += 1;
        }
        expected = next;
        match rows.last_mut() {
            _ if is_sentinel => {}
            Some(row) if part > 0 && (row.scope, &*row.key) == (scope, &*key) => {
                row.pages.push(page);
            }
            _ if part == 0 => rows.push(RowPlace { scope, key, at, large, pages: vec![page] }),
            // Its first part is missing.
            _ => {}
        }
    }
    (rows, gaps + usize::from(expected.is_some()))
}

impl Part {
    fn of(row: &Row<'_>, page: u64, format: u32) -> Self {
        let value = Value::decode(row.value).filter(|_| format > 1);
        let (at, large) = match value {
            Some(Value { at, content: Content::InLog { location, .. }, .. }) => {
                (at, location.length)
            }
            Some(Value { at, .. }) => (at, 0),
            None if format == 1 => format_1::summary(row.value).unwrap_or_default(),
            None => (Moment::default(), 0),
        };
        Self {
            scope: *row.key.scope,
            key: row.key.key.into(),
            part: row.key.part,
            page,
            at,
            large,
            next: Successor::key(row.successor).map(|next| check_of(&next)),
        }
    }

    fn place(&self) -> ([u8; 32], &[u8], u16) {
        (self.scope, &self.key, self.part)
    }
}

/// Returns a hash of a row's key, to compare it with a successor.
fn check_of(key: &super::row::Joined) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
