//! The end of a log: of the active one, which the writer appends to, and of frozen ones.

use std::sync::Arc;

use crate::clock::Anchor;
use crate::engine::digest::DigestKey;
use crate::engine::entry::{Encoded, End, Entry};
use crate::error::{Error, Result};

use super::Log;
use super::batch::BatchBuilder;
use super::format::Format;
use super::page::PAGE;

/// The active log and its end. The writer owns it, and nothing else appends.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) log: Arc<Log>,
    /// The offset of the next batch.
    pub(crate) end: u64,
    /// The sequence of the last batch.
    pub(crate) sequence: u64,
    /// The keys of the log's batches and of its entries.
    key: DigestKey,
    entries: DigestKey,
}

impl Tail {
    /// The bytes that a log keeps free for the record of its next length.
    const RECORD: u64 = PAGE;

    /// Creates the tail of a log without batches; its first batch follows the batch `sequence` of
    /// another log.
    ///
    /// # Panics
    ///
    /// If the log has format 1, which is not written any more.
    pub(crate) fn new(log: Arc<Log>, sequence: u64) -> Self {
        let Format::Two { key, entries } = log.format else { panic!("a new log has format 2") };
        Self { log, end: PAGE, sequence, key, entries }
    }

    /// Returns the bytes that are left for batches.
    pub(crate) fn room(&self) -> u64 {
        (self.log.recorded() - self.end).saturating_sub(Self::RECORD)
    }

    /// Returns the bytes that are left once the tail is [extended](Self::extend).
    pub(crate) fn reach(&self) -> u64 {
        if self.is_grown() {
            (self.log.size() - self.end).saturating_sub(2 * Self::RECORD)
        } else {
            self.room()
        }
    }

    /// Returns true if the log is longer than recorded.
    pub(crate) fn is_grown(&self) -> bool {
        self.log.size() > self.log.recorded()
    }

    /// Makes use of the length to which the log has grown, if it has: appends a batch that records
    /// the length, behind the entries that are in `batch` already. The batch is empty then.
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append).
    ///
    /// # Durability
    ///
    /// The batch is durable when this returns.
    pub(crate) fn extend(&mut self, batch: &mut BatchBuilder, anchor: Anchor) -> Result<()> {
        let size = self.log.size();
        if size <= self.log.recorded() {
            return Ok(());
        }
        // A record that a power cut keeps, of a length that it does not keep, would be damage. The
        // writer syncs the file itself: an error of the disk is told once, and must stop it.
        let synced = self.log.file.sync();
        synced.map_err(|error| Error::io("extend", &self.log.path, error))?;
        // Twice, as a start entry is: a log that was cut is known by this entry alone.
        let encoded = Encoded::new(&self.entries, None, &Entry::Length(size));
        batch.push(&encoded);
        batch.push(&encoded);
        self.append(batch, anchor)?;
        self.log.note_length(size);
        batch.clear();
        Ok(())
    }

    /// Appends a batch under the next sequence, and returns its offset.
    ///
    /// # Errors
    ///
    /// After an error the outcome is unknown, and nothing may be appended to any log.
    ///
    /// # Panics
    ///
    /// If the batch does not fit.
    ///
    /// # Durability
    ///
    /// The batch is durable when this returns.
    pub(crate) fn append(&mut self, batch: &mut BatchBuilder, anchor: Anchor) -> Result<u64> {
        let bytes = batch.finish(&self.key, self.sequence + 1, anchor);
        let left = self.log.recorded() - self.end;
        assert!(bytes.len() as u64 <= left, "a batch is admitted only where it fits");
        let offset = self.end;
        self.log
            .file
            .write_at(bytes, offset)
            .and_then(|()| self.log.file.sync())
            .map_err(|error| Error::io("append to", &self.log.path, error))?;
        self.sequence += 1;
        self.end += bytes.len() as u64;
        self.log.set_end(self.end());
        Ok(offset)
    }

    /// Returns the end of the log as a successor names it.
    pub(crate) fn end(&self) -> End {
        End { generation: self.log.generation, offset: self.end, sequence: self.sequence }
    }
}

/// A log that takes no more batches, and its end.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) log: Arc<Log>,
    pub(crate) end: End,
}
