//! The index of a log: the location of the latest entry of each address. It lives in memory only,
//! and holds durable entries only.

use crate::address_map::AddressHashMap;
use crate::clock::Moment;
use crate::engine::digest::Digest;

use super::batch::Frame;

/// The location of an entry, with a part of its digest to recognise other bytes in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    /// The first bytes of its digest.
    pub(crate) check: u64,
    /// The time of its batch.
    pub(crate) at: Moment,
}

impl Location {
    /// The location of an entry in a batch at `batch_offset`.
    pub(crate) fn of(frame: &Frame<'_>, batch_offset: u64, at: Moment) -> Self {
        Self {
            offset: batch_offset + frame.at,
            length: u32::try_from(frame.bytes.len()).expect("entries are bounded"),
            check: check_of(&frame.digest),
            at,
        }
    }

    /// Returns the location of a copy of the entry, with the digest that the copy has.
    pub(crate) fn moved(self, offset: u64, digest: &Digest) -> Self {
        Self { offset, check: check_of(digest), ..self }
    }
}

/// A change to the index: one entry that has become durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) hash: u128,
    pub(crate) location: Location,
    /// For a forget, the moment until which it hides older records of the address.
    pub(crate) hides_until: Option<Moment>,
}

/// The latest entry of each address, by the hash of the address.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) entries: AddressHashMap<Location>,
    /// The moments until which the forgets in this log hide older records.
    pub(super) forgets: AddressHashMap<Moment>,
    /// The time of the first entry.
    pub(super) first_at: Option<Moment>,
}

impl Index {
    /// Enters durable entries, oldest first.
    pub(super) fn enter(&mut self, changes: &[Change]) {
        for change in changes {
            self.first_at.get_or_insert(change.location.at);
            self.entries.insert(change.hash, change.location);
            if let Some(until) = change.hides_until {
                // An earlier forget may hide older records for longer.
                let hidden = self.forgets.entry(change.hash).or_insert(until);
                *hidden = until.max(*hidden);
            }
        }
    }
}

/// Returns the part of a digest that the index keeps.
pub(crate) fn check_of(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
