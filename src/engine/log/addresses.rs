//! Scopes and keys of a log's entries, without the rest.

use crate::engine::entry::{End, Parts};
use crate::error::Result;

use super::Log;
use super::index::Location;

/// Reads scopes and keys of entries, to sort by; quickly, in the order of their offsets. Not verified:
/// whoever reads the entry does that.
pub(crate) struct Addresses<'a> {
    log: &'a Log,
    /// No entry lies behind this.
    end: u64,
    /// What was read last, and where it begins.
    stretch: Vec<u8>,
    start: u64,
}

impl<'a> Addresses<'a> {
    /// Many small entries, and little of a large one.
    const STRETCH: usize = 64 * 1024;

    pub(crate) fn of(log: &'a Log, end: End) -> Self {
        Self { log, end: end.offset, stretch: Vec::new(), start: 0 }
    }

    pub(crate) fn read(&mut self, location: Location) -> Result<([u8; 32], Vec<u8>)> {
        let length = Parts::MAX_ADDRESS_BYTES.min(location.length as usize);
        let parts = Parts::of(self.bytes(location.offset, length)?);
        parts.map(|parts| parts.raw_address()).map_err(|error| self.log.damaged(location, error))
    }

    fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8]> {
        let known = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        if let Some(at) = known.filter(|at| at + length <= self.stretch.len()) {
            return Ok(&self.stretch[at..at + length]);
        }
        let behind = self.end.saturating_sub(offset).min(Self::STRETCH as u64);
        let mut stretch = std::mem::take(&mut self.stretch);
        stretch.resize(usize::try_from(behind).unwrap_or(Self::STRETCH).max(length), 0);
        self.log.read(&mut stretch, offset)?;
        (self.stretch, self.start) = (stretch, offset);
        Ok(&self.stretch[..length])
    }
}
