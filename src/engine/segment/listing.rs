//! The rows of a segment behind an address, a few at a time.

use std::ops::Bound;

use bytes::Bytes;

use crate::clock::Moment;
use crate::engine::entry::{End, Found, RawAddress};
use crate::engine::log::Addresses;
use crate::error::Result;
use crate::key::Address;

use super::cursor::OwnedRow;
use super::database::{failed, guarded};
use super::handles::Handles;
use super::row::RowKey;
use super::value::Content;
use super::{Damaged, Segment};

impl Segment {
    /// Returns the next rows behind an address, of this scope or of all: `max` of them, or fewer if
    /// there are no more.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if a row does not verify or is missing, and
    /// [`Error::Io`](crate::Error::Io).
    pub(crate) fn rows_behind(
        &self,
        handles: &Handles,
        after: &RawAddress,
        scope: Option<[u8; 32]>,
        max: usize,
    ) -> Result<Vec<OwnedRow>> {
        let rows = guarded(&self.path, || self.read_rows(handles, after, scope, max));
        if rows.is_err() {
            // As with a lookup, a redb database refuses all reads after one has failed.
            handles.forget(self.meta.file);
        }
        rows
    }

    fn read_rows(
        &self,
        handles: &Handles,
        (from, after): &RawAddress,
        scope: Option<[u8; 32]>,
        max: usize,
    ) -> Result<Vec<OwnedRow>> {
        let handle = handles.get(self.meta.file, &self.path, &self.file)?;
        let storage = |error| failed(&self.path, error);
        // An earlier version has further parts of a value behind its first row.
        let part = if after.is_empty() { 0 } else { u16::MAX };
        let start = RowKey { scope: from, key: after, part };
        let mut below = handle.table.range(..=start.as_redb()).map_err(storage)?;
        let Some(last) = below.next_back() else {
            return Err(self.broken("it has no row at or below a key"));
        };
        let (key, value) = last.map_err(storage)?;
        // This row proves which one comes next.
        let row = self.row(key.value(), value.value())?;
        if row.key > start {
            return Err(self.broken("a row is missing"));
        }
        let (mut expected, mut rows) = (row.successor.key(), Vec::new());
        let from = (Bound::Excluded(start.as_redb()), Bound::Unbounded);
        let mut range = handle.table.range::<(&[u8; 32], &[u8], u16)>(from).map_err(storage)?;
        while rows.len() < max {
            let Some(row) = range.next() else {
                return match expected {
                    None => Ok(rows),
                    Some(_) => Err(self.broken("its last rows are missing")),
                };
            };
            let (key, value) = row.map_err(storage)?;
            let row = self.row(key.value(), value.value())?;
            if expected != Some(row.key.joined()) {
                return Err(self.broken("a row is missing"));
            }
            expected = row.successor.key();
            if scope.is_some_and(|scope| *row.key.scope != scope) {
                break;
            }
            if row.key.part == 0 {
                rows.push(OwnedRow::of(&row));
            }
        }
        Ok(rows)
    }

    /// Decodes the entry of a row, without its response and with the status of that if the response
    /// is in a log. `None` in a segment of an earlier version, where the record has to be looked up.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt).
    pub(crate) fn summary(&self, row: &OwnedRow) -> Result<Option<(Found, Option<u16>)>> {
        if self.meta.format == 1 {
            return Ok(None);
        }
        let value = row.value().map_err(|error| self.malformed(error))?;
        let (payload, status) = match value.content {
            Content::Inline(payload) => (payload, None),
            Content::InLog { status, bare, .. } => (bare, Some(status)),
        };
        let found = Found::decode(&Bytes::copy_from_slice(payload), value.at);
        found.map(|found| Some((found, status))).map_err(|error| self.malformed(error))
    }

    /// Decodes the entry of a row with its response, as [`summary`](Self::summary) does without.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) and [`Error::Io`](crate::Error::Io).
    pub(crate) fn record(&self, row: &OwnedRow) -> Result<Option<(Found, Option<u16>)>> {
        if self.meta.format > 1
            && let Content::InLog { log, location, .. } =
                row.value().map_err(|error| self.malformed(error))?.content
        {
            let payload = self.payload_in_log(log, location, |parts| row.is_of(parts))?;
            let found = Found::decode(&payload, location.at);
            return found.map(|found| Some((found, None))).map_err(|error| self.malformed(error));
        }
        self.summary(row)
    }

    /// Returns true if the latest entry of an address in this segment could not be read when it was
    /// sealed, and has not expired, or if nobody can tell.
    pub(crate) fn has_damaged(&self, address: &Address, now: Moment) -> bool {
        let damaged = self.damaged();
        let at = damaged.binary_search_by_key(&address.hash, |damaged| damaged.hash);
        self.has_lost_damaged() || at.is_ok_and(|at| damaged[at].expires > now)
    }

    /// Returns the scope and the key of a damaged entry, if they are not what is damaged in it.
    pub(crate) fn address_of(&self, damaged: &Damaged) -> Option<RawAddress> {
        let log = self.values.get(usize::from(damaged.log))?;
        let end = End { generation: log.generation, offset: log.size, sequence: 0 };
        let (scope, key) = Addresses::of(log, end).read(damaged.location).ok()?;
        let hash = Address::hash_of(&self.meta.uuid, &scope, &key);
        (hash == damaged.hash).then_some((scope, key))
    }
}
