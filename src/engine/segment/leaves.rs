//! The rows of a segment, read from its pages without the database: a damaged page costs the rows in
//! it, and no others.
//!
//! Each row verifies by itself, wherever it is found, and proves what lies between it and its
//! successor. So the tree above the rows is needed for speed alone.
//!
//! ```text
//! | 1 | 0 | rows (2) | ends of the keys (4 each) | ends of the values (4 each) | keys | values |
//! ```
//!
//! That is how redb lays out a page of rows. A key is the length of the idempotency key, the scope,
//! the key and the part.

use std::ops::Range;

use crate::engine::disk::DiskFile;
use crate::engine::log::PAGE_BYTES;

use super::binding::Binding;
use super::row::{Joined, Row, RowKey};

/// The bytes of the first part of a page.
const HEAD: usize = 4;
/// The bytes that are read at a time.
const STRETCH: usize = 256 * PAGE_BYTES;
/// The pages that may hold a row, or an older copy of it, that are looked at for one key.
const MAX_PAGES: usize = 8;

/// The pages that hold rows, by the key of the first row that verifies in each.
#[derive(Debug, Default)]
pub(super) struct Leaves(Vec<(Joined, u64)>);

impl Leaves {
    /// Finds the pages of a segment that hold rows. Pages that cannot be read hold none.
    pub(super) fn read(file: &dyn DiskFile, binding: &Binding) -> Self {
        let mut pages = Vec::new();
        each_page(file, |offset, page| {
            pages.extend(rows(page, binding).next().map(|row| (row.key.joined(), offset)));
        });
        pages.sort_unstable();
        Self(pages)
    }

    /// Returns true if no row verifies.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a key, or nothing with the proof that the segment does not have it;
    /// `None` if the rows that are left prove neither.
    pub(super) fn find(
        &self,
        file: &dyn DiskFile,
        binding: &Binding,
        wanted: &RowKey<'_>,
    ) -> Option<Option<Vec<u8>>> {
        let end = self.0.partition_point(|(first, _)| *first <= wanted.joined());
        let mut page = [0; PAGE_BYTES];
        for (_, offset) in self.0.get(..end)?.iter().rev().take(MAX_PAGES) {
            if file.read_at(&mut page, *offset).is_err() {
                continue;
            }
            for row in rows(&page, binding) {
                if row.key == *wanted {
                    return Some(Some(row.value.to_vec()));
                }
                if row.key < *wanted && row.successor.cmp_key(wanted).is_gt() {
                    return Some(None);
                }
            }
        }
        None
    }
}

/// Calls `each` with every page that can be read, and its offset.
pub(super) fn each_page(file: &dyn DiskFile, mut each: impl FnMut(u64, &[u8])) {
    let length = file.len().unwrap_or_default();
    let mut bytes = Vec::new();
    for start in (0..length).step_by(STRETCH) {
        let left = usize::try_from(length - start).unwrap_or(usize::MAX).min(STRETCH);
        bytes.resize(left - left % PAGE_BYTES, 0);
        let is_read = file.read_at(&mut bytes, start).is_ok();
        for (page, offset) in bytes.chunks_mut(PAGE_BYTES).zip((start..).step_by(PAGE_BYTES)) {
            if is_read || file.read_at(page, offset).is_ok() {
                each(offset, page);
            }
        }
    }
}

/// Returns the rows of a page that verify, in its order.
pub(super) fn rows<'a>(
    page: &'a [u8],
    binding: &'a Binding,
) -> impl Iterator<Item = Row<'a>> + use<'a> {
    // Whatever the page says of its kind: rows show by themselves that they are rows. Their number
    // says where the ends of the values are, so one in which a bit is wrong would hide them all.
    let number = match page {
        [_, _, low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    };
    let counts = std::iter::once(number).chain((0..16).map(move |bit| number ^ (1 << bit)));
    let mut counts = counts.map(usize::from).filter(|count| HEAD + 2 * 4 * count <= page.len());
    let count = counts.find(|count| rows_of(page, *count, binding).next().is_some());
    rows_of(page, count.unwrap_or_default(), binding)
}

/// Returns the rows that verify if the page has so many.
fn rows_of<'a>(
    page: &'a [u8],
    count: usize,
    binding: &'a Binding,
) -> impl Iterator<Item = Row<'a>> + use<'a> {
    let keys = HEAD + 2 * 4 * count;
    (0..count).filter_map(move |n| {
        let key = page.get(range(page, HEAD, n, Some(keys))?)?;
        let values = number(page, HEAD, count - 1);
        let value = page.get(range(page, HEAD + 4 * count, n, values)?)?;
        Row::decode(binding, row_key(key)?, value)
    })
}

/// Returns the range of the key or value with number `n`, whose ends are listed at `ends`; `first`
/// is where the first one begins.
fn range(page: &[u8], ends: usize, n: usize, first: Option<usize>) -> Option<Range<usize>> {
    let start = match n.checked_sub(1) {
        Some(previous) => number(page, ends, previous)?,
        None => first?,
    };
    let end = number(page, ends, n)?;
    (start <= end).then_some(start..end)
}

/// Returns the n-th number at `at`.
fn number(page: &[u8], at: usize, n: usize) -> Option<usize> {
    let bytes = page.get(at + 4 * n..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// Takes the key of a row apart.
fn row_key(bytes: &[u8]) -> Option<RowKey<'_>> {
    // A length from 254 on takes two bytes behind a mark.
    let (length, rest) = match bytes {
        [254, low, high, rest @ ..] => (usize::from(u16::from_le_bytes([*low, *high])), rest),
        [255, ..] => return None,
        [length, rest @ ..] => (usize::from(*length), rest),
        [] => return None,
    };
    let (scope, rest) = rest.split_first_chunk()?;
    let (key, part) = rest.split_at_checked(length)?;
    RowKey::from_redb((scope, key, u16::from_le_bytes(part.try_into().ok()?)))
}
