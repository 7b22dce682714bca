//! Values of format 1, which earlier versions wrote: a longer payload takes several rows.

use bytes::Bytes;
use redb::ReadOnlyTable;
use sha2::{Digest, Sha256};

use crate::clock::Moment;
use crate::codec;
use crate::error::Result;
use crate::key::{Address, Key, Scope};

use super::Segment;
use super::database::{TableKey, failed};
use super::row::{Row, RowKey};
use super::value::{Content, Value};

/// The value of the first row of an address.
#[derive(Debug)]
struct Head<'a> {
    /// The time of the batch that made it durable.
    at: Moment,
    /// The length of the payload, all parts together.
    total: usize,
    /// The digest of the payload, if it has further parts.
    digest: Option<[u8; 32]>,
    part: &'a [u8],
}

impl<'a> Head<'a> {
    fn decode(value: &'a [u8]) -> Option<Self> {
        let (at, value) = value.split_first_chunk()?;
        let (total, value) = value.split_first_chunk()?;
        let (split, value) = value.split_first()?;
        let (digest, part) = match split {
            0 => (None, value),
            1 => value.split_first_chunk().map(|(digest, part)| (Some(*digest), part))?,
            _ => return None,
        };
        let total = u32::from_le_bytes(*total) as usize;
        let whole = digest.is_some() || part.len() == total;
        whole.then_some(Self { at: Moment(u64::from_le_bytes(*at)), total, digest, part })
    }
}

/// Returns the time in the value of an address's first row, and the bytes of the payload.
pub(super) fn summary(value: &[u8]) -> Option<(Moment, u32)> {
    Head::decode(value).map(|head| (head.at, u32::try_from(head.total).unwrap_or(u32::MAX)))
}

/// Returns the payload whose parts are in these values; `None` if it does not verify.
pub(super) fn join(first: &[u8], rest: &[Vec<u8>]) -> Option<Bytes> {
    let head = Head::decode(first)?;
    let parts = rest.iter().map(Vec::as_slice);
    let payload: Vec<u8> = std::iter::once(head.part).chain(parts).flatten().copied().collect();
    let matches = head.digest.is_none_or(|digest| Sha256::digest(&payload)[..] == digest[..]);
    (payload.len() == head.total && matches).then(|| payload.into())
}

impl Segment {
    /// Returns the value that the first row of an address would have now. It has the expiry of the
    /// segment, because it may hide older entries for as long as that.
    pub(super) fn value_1(
        &self,
        table: &ReadOnlyTable<TableKey, &'static [u8]>,
        row: &Row<'_>,
    ) -> Result<Vec<u8>> {
        let key = Key::from_stored(row.key.key);
        let key = key.ok_or_else(|| self.broken("a key is outside the grammar"))?;
        let address = Address::new(&self.meta.uuid, Scope::from_bytes(*row.key.scope), key);
        let (at, payload) = self.payload_1(table, &address, row)?;
        let (expires, content) = (self.latest_expiry(), Content::Inline(&payload));
        Ok(Value { at, expires, content }.encode())
    }

    /// Returns the payload that begins in this row, joined from its parts.
    pub(super) fn payload_1(
        &self,
        table: &ReadOnlyTable<TableKey, &'static [u8]>,
        address: &Address,
        row: &Row<'_>,
    ) -> Result<(Moment, Bytes)> {
        let storage = |error| failed(&self.path, error);
        let head = Head::decode(row.value).ok_or_else(|| self.broken("a row has no head"))?;
        let Some(digest) = head.digest else {
            return Ok((head.at, Bytes::copy_from_slice(head.part)));
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
                return Err(self.broken("a part is missing"));
            }
            payload.extend_from_slice(row.value);
            expected = RowKey::of(address, row.key.part).next_part();
            complete = !expected.is_some_and(|next| row.successor.is(&next));
        }
        let matches = || Sha256::digest(&payload)[..] == digest[..];
        if complete && payload.len() == head.total && matches() {
            Ok((head.at, payload.into()))
        } else {
            Err(self.broken("the parts of a value do not match its digest"))
        }
    }
}
