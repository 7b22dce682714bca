//! The scopes and keys of a log's entries, read without the rest.

use crate::engine::entry::{End, Parts};
use crate::error::Result;

use super::Log;
use super::index::Location;

/// Reads the scopes and keys of entries, to sort the entries by. It is fast in the order of their
/// offsets.
///
/// Nothing is verified here: reading the entry itself does that.
pub(crate) struct Addresses<'a> {
    log: &'a Log,
    /// The end of the entries.
    end: u64,
    /// The bytes that were read last.
    stretch: Vec<u8>,
    /// The offset of `stretch` in the log.
    start: u64,
}

impl<'a> Addresses<'a> {
    /// The bytes of one read: many small entries, and little of a large one.
    const STRETCH: usize = 64 * 1024;

    pub(crate) fn of(log: &'a Log, end: End) -> Self {
        Self { log, end: end.offset, stretch: Vec::new(), start: 0 }
    }

    /// Reads the scope and the key of one entry.
    pub(crate) fn read(&mut self, location: Location) -> Result<([u8; 32], Vec<u8>)> {
        let length = Parts::MAX_ADDRESS_BYTES.min(location.length as usize);
        let parts = Parts::of(self.bytes(location.offset, length)?);
        parts.map(|parts| parts.raw_address()).map_err(|error| self.log.damaged(location, error))
    }

    /// Returns bytes of the log, from the last read if they are in it.
    fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8]> {
        let known = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        if let Some(at) = known.filter(|at| at + length <= self.stretch.len()) {
            return Ok(&self.stretch[at..at + length]);
        }
        let behind = self.end.saturating_sub(offset).min(Self::STRETCH as u64);
        let mut stretch = std::mem::take(&mut self.stretch);
        stretch.resize(usize::try_from(behind).unwrap_or(Self::STRETCH).max(length), 0);
        if self.log.read(&mut stretch, offset).is_err() {
            // A page behind may be bad, and then others must not suffer from it.
            stretch.truncate(length);
            self.log.read(&mut stretch, offset)?;
        }
        (self.stretch, self.start) = (stretch, offset);
        Ok(&self.stretch[..length])
    }
}
