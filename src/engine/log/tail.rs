//! The end of the active log, which the writer appends to, and of logs that are full.

use std::sync::Arc;

use crate::clock::Anchor;
use crate::engine::entry::End;
use crate::error::{Error, Result};

use super::Log;
use super::batch::BatchBuilder;
use super::page::PAGE;

/// Where the active log ends; the writer owns it.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) log: Arc<Log>,
    pub(crate) end: u64,
    pub(crate) sequence: u64,
}

impl Tail {
    /// The end of a log that holds no batch yet, following batch `sequence` of another.
    pub(crate) fn new(log: Arc<Log>, sequence: u64) -> Self {
        Self { log, end: PAGE, sequence }
    }

    /// Bytes left.
    pub(crate) fn room(&self) -> u64 {
        self.log.size - self.end
    }

    /// Appends a batch under the next sequence, and returns once it is durable, with its offset.
    ///
    /// # Errors
    ///
    /// After an error the outcome is unknown and nothing more may be appended anywhere.
    pub(crate) fn append(&mut self, batch: &mut BatchBuilder, anchor: Anchor) -> Result<u64> {
        let bytes = batch.finish(&self.log.key, self.sequence + 1, anchor);
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

    pub(crate) fn end(&self) -> End {
        End { generation: self.log.generation, offset: self.end, sequence: self.sequence }
    }
}

/// A log that takes no more batches, and where it ends.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) log: Arc<Log>,
    pub(crate) end: End,
}
