//! Where a log's entries are, by address. The index holds what is durable, and only that.

use std::collections::HashMap;

use crate::clock::Moment;

use super::batch::Frame;

/// Where an entry is, and enough of it to recognise anything else in its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) check: u64,
    /// When its batch was closed.
    pub(crate) at: Moment,
}

impl Location {
    pub(crate) fn of(frame: &Frame<'_>, batch_offset: u64, at: Moment) -> Self {
        Self {
            offset: batch_offset + frame.at,
            length: u32::try_from(frame.bytes.len()).expect("entries are bounded"),
            check: check_of(frame.digest),
            at,
        }
    }
}

/// A change to the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) hash: u128,
    pub(crate) location: Location,
    /// For a forget: older records of the address stay hidden until then.
    pub(crate) hides_until: Option<Moment>,
}

/// Where the newest entry of each address is.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) entries: HashMap<u128, Location>,
    /// Until when the forgets in this log hide older records.
    pub(super) forgets: HashMap<u128, Moment>,
    pub(super) first_at: Option<Moment>,
}

impl Index {
    /// Enters what has become durable, oldest first.
    pub(super) fn enter(&mut self, changes: &[Change]) {
        for change in changes {
            self.first_at.get_or_insert(change.location.at);
            self.entries.insert(change.hash, change.location);
            if let Some(until) = change.hides_until {
                // An earlier one may hide an older record for longer.
                let hidden = self.forgets.entry(change.hash).or_insert(until);
                *hidden = until.max(*hidden);
            }
        }
    }
}

pub(crate) fn check_of(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
