//! Tells what a purge keeps of a segment from what it leaves out.

use std::ops::RangeBounds;
use std::sync::Arc;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::entry::{self, Entry, Parts};
use crate::engine::segment::{Content, Damaged, Handles, Segment, Value};
use crate::error::Result;
use crate::key::{Address, Key, Scope};

use super::Segments;

/// A segment among the others of a store.
pub(super) struct Sieve<'a> {
    pub(super) segments: &'a Segments,
    /// The position of the segment among them.
    pub(super) at: usize,
    pub(super) handles: &'a Handles,
    pub(super) uuid: [u8; 16],
    pub(super) now: Moment,
}

impl Sieve<'_> {
    /// Returns true if an entry has expired, if a newer one hides it, or if it is there only to
    /// hide older ones, and they are gone.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) and [`Error::Io`](crate::Error::Io) if it cannot
    /// be told.
    pub(super) fn is_dead(&self, address: &Address, value: &Value<'_>) -> Result<bool> {
        if value.expires <= self.now || self.is_in(..self.at, address)? {
            return Ok(true);
        }
        let own = own_expiry(value).map_err(|error| self.segment().malformed(error))?;
        // A segment that cannot be read may have what is hidden; its own turn reports the error.
        Ok(own <= self.now && !self.is_in(self.at + 1.., address).unwrap_or(true))
    }

    /// Returns the same for the entry of a damaged address that the disk has given back.
    ///
    /// # Errors
    ///
    /// Those of [`is_dead`](Self::is_dead).
    pub(super) fn is_dead_again(&self, damaged: &Damaged, bytes: &[u8]) -> Result<bool> {
        let malformed = |error| self.segment().malformed(error);
        let parts = Parts::of(bytes).map_err(malformed)?;
        let (at, content) = (damaged.location.at, Content::Inline(parts.payload));
        let value = Value { at, expires: damaged.expires, content };
        self.is_dead(&parts.address(&self.uuid).map_err(malformed)?, &value)
    }

    /// Returns true if a newer entry hides a damaged one whose address can still be read.
    ///
    /// # Errors
    ///
    /// Those of [`is_dead`](Self::is_dead).
    pub(super) fn is_hidden(&self, damaged: &Damaged) -> Result<bool> {
        let Some((scope, key)) = self.segment().address_of(damaged) else { return Ok(false) };
        let Some(key) = Key::from_stored(&key) else { return Ok(false) };
        self.is_in(..self.at, &Address::new(&self.uuid, Scope::from_bytes(scope), key))
    }

    fn segment(&self) -> &Segment {
        &self.segments[self.at]
    }

    /// Returns true if one of the segments at these positions has an entry of an address.
    fn is_in(&self, positions: impl RangeBounds<usize>, address: &Address) -> Result<bool> {
        let is_there = |segment: &&Arc<Segment>| {
            self.segments.position(segment).is_some_and(|at| positions.contains(&at))
        };
        for segment in self.segments.that_may_hold(address).into_iter().filter(is_there) {
            if segment.has(self.handles, address)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the moment from which a record is not replayed any more. A forget is never replayed.
fn own_expiry(value: &Value<'_>) -> Result<Moment, Malformed> {
    let (Content::Inline(payload) | Content::InLog { bare: payload, .. }) = value.content;
    match entry::decode(payload)? {
        Entry::Completion(stored) => Ok(value.at.plus(stored.ttl())),
        Entry::Forget(_) => Ok(Moment::default()),
        _ => Err(Malformed("entry is neither a completion nor a forget")),
    }
}
