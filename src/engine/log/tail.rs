//! The end of a log: of the active one, which the writer appends to, and of frozen ones.

use std::sync::Arc;

use crate::clock::Anchor;
use crate::engine::digest::DigestKey;
use crate::engine::entry::End;
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
    /// The key of the log's batches.
    key: DigestKey,
}

impl Tail {
    /// Creates the tail of a log without batches; its first batch follows the batch `sequence` of
    /// another log.
    ///
    /// # Panics
    ///
    /// If the log has format 1, which is not written any more.
    pub(crate) fn new(log: Arc<Log>, sequence: u64) -> Self {
        let Format::Two { key, .. } = log.format else { panic!("a new log has format 2") };
        Self { log, end: PAGE, sequence, key }
    }

    /// Returns the bytes that are left.
    pub(crate) fn room(&self) -> u64 {
        self.log.size - self.end
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
        assert!(bytes.len() as u64 <= self.room(), "a batch is admitted only where it fits");
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

impl Frozen {
    pub(crate) fn new(log: Arc<Log>, end: End) -> Self {
        log.freeze();
        Self { log, end }
    }
}
