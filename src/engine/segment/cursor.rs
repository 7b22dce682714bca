//! The rows of a segment in the order of their keys.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use redb::Range;

use crate::codec::Malformed;
use crate::engine::entry::{Parts, RawAddress};
use crate::error::Result;
use crate::key::{Address, Key, Scope};

use super::Segment;
use super::database::{RecordTable, TableKey, failed, guarded};
use super::row::{Joined, Row, RowKey};
use super::value::Value;

/// Reads the rows of a segment, and proves that none is missing. Those of format 1 come with the
/// value that they would have now, however long their payload is.
pub(crate) struct Cursor {
    segment: Arc<Segment>,
    rows: Range<'static, TableKey, &'static [u8]>,
    /// The key of the next row, or `None` after the last one.
    expected: Option<Joined>,
    table: RecordTable,
}

/// A row of an address.
#[derive(Debug)]
pub(crate) struct OwnedRow {
    /// The scope and the key.
    pub(crate) address: RawAddress,
    value: Vec<u8>,
}

impl Cursor {
    /// Goes to the first row.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] and [`Error::Io`].
    pub(crate) fn open(segment: &Arc<Segment>) -> Result<Self> {
        let path = &segment.path;
        guarded(path, || {
            let table = RecordTable::open(path, &segment.file)?;
            let rows = table.table.range::<TableKey>(..).map_err(|error| failed(path, error))?;
            let (segment, expected) = (Arc::clone(segment), Some(RowKey::SENTINEL.joined()));
            Ok(Self { segment, rows, expected, table })
        })
    }

    /// Reads the next row, or `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a row does not verify or is missing, and [`Error::Io`].
    pub(crate) fn next(&mut self) -> Result<Option<OwnedRow>> {
        let Self { segment, rows, expected, table } = self;
        guarded(&segment.path, || {
            loop {
                let Some(row) = rows.next() else { break };
                let (key, value) = row.map_err(|error| failed(&segment.path, error))?;
                let row = segment.row(key.value(), value.value())?;
                if *expected != Some(row.key.joined()) {
                    return Err(segment.broken("a row is missing"));
                }
                *expected = row.successor.key();
                if row.key != RowKey::SENTINEL && row.key.part == 0 {
                    let row_now = match segment.meta.format {
                        1 => OwnedRow {
                            value: segment.value_1(&table.table, &row)?,
                            ..OwnedRow::of(&row)
                        },
                        _ => OwnedRow::of(&row),
                    };
                    return Ok(Some(row_now));
                }
            }
            match expected {
                None => Ok(None),
                Some(_) => Err(segment.broken("its last rows are missing")),
            }
        })
    }
}

impl OwnedRow {
    pub(super) fn of(row: &Row<'_>) -> Self {
        let address = (*row.key.scope, row.key.key.to_vec());
        Self { address, value: row.value.to_vec() }
    }

    /// Returns the address of the row; `seed` is the store's uuid.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the key is outside the grammar.
    pub(crate) fn address(&self, seed: &[u8; 16]) -> Result<Address, Malformed> {
        let (scope, key) = &self.address;
        let key = Key::from_stored(key).ok_or(Malformed("key is outside the grammar"))?;
        Ok(Address::new(seed, Scope::from_bytes(*scope), key))
    }

    /// Compares the addresses of two rows.
    pub(crate) fn cmp_address(&self, other: &Self) -> Ordering {
        self.address.cmp(&other.address)
    }

    /// Decodes the value.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is none.
    pub(crate) fn value(&self) -> Result<Value<'_>, Malformed> {
        Value::decode(&self.value).ok_or(Malformed("a row has no value"))
    }

    /// Returns the bytes of the entry with this payload under the address of the row.
    pub(crate) fn entry_bytes(&self, payload: &[u8]) -> usize {
        let (scope, key) = &self.address;
        scope.len() + 1 + key.len() + payload.len()
    }

    /// Returns the entry with this payload under the address of the row.
    pub(crate) fn entry(&self, payload: &[u8]) -> Bytes {
        let (scope, key) = &self.address;
        let length = u8::try_from(key.len()).expect("keys are at most 255 bytes");
        [&scope[..], &[length], key, payload].concat().into()
    }

    /// Returns true if an entry is under the address of the row.
    pub(crate) fn is_of(&self, entry: &Parts<'_>) -> bool {
        entry.is_under(&self.address.0, &self.address.1)
    }
}
