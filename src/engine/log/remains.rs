//! Reading a log of which any part may be damaged.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, Pool};
use crate::error::Result;

use super::batch::Batch;
use super::opening::Opened;
use super::page::{PAGE, PAGE_BYTES};
use super::{Identity, Log};

impl Log {
    /// Returns the uuid and the key of the store that a log's header names; logs of format 1 name no
    /// key.
    ///
    /// # Errors
    ///
    /// Those of [`Log::open`].
    pub(crate) fn store_of(
        disk: &dyn Disk,
        generation: u64,
    ) -> Result<([u8; 16], Option<DigestKey>)> {
        Opened::open(disk, generation)?.header().map(|header| (header.uuid, header.entries))
    }

    /// Opens a log for what is left of it, however short it is.
    ///
    /// # Errors
    ///
    /// Those of [`Log::open`].
    pub(crate) fn open_remains(pool: &Arc<Pool>, generation: u64, store: Identity) -> Result<Self> {
        let mut log = Self::open_any(&**pool, generation, store)?;
        log.file = pool.adopt(&log.name, log.file);
        let length = log.length()?;
        log.size = length - length % PAGE;
        Ok(log)
    }

    /// Returns the bytes that are missing at the end of the file, by what its header says.
    pub(crate) fn missing(&self) -> Range<u64> {
        self.size..self.header.size
    }

    /// Returns the first batch at `offset` or behind it of which head and frames can be read, with
    /// its offset. Pages that cannot be read are damage here.
    pub(crate) fn next_batch(&self, offset: u64) -> Option<(u64, Batch)> {
        if let Ok(Some(batch)) = self.remains_at(offset, None) {
            return Some((offset, batch));
        }
        let mut page = [0; PAGE_BYTES];
        let pages = (offset..self.size).step_by(PAGE_BYTES);
        pages.into_iter().find_map(|at| {
            self.read_readable(&mut page, at).ok()?;
            let (head, start) = match self.format.head(&page) {
                Some(head) => (head, at),
                None => {
                    let head = self.format.head_at_end(&page)?;
                    (head, (at + PAGE).checked_sub(head.span).filter(|start| *start >= offset)?)
                }
            };
            let read = |bytes: &mut [u8]| self.read_readable(bytes, start).map(drop);
            Some((start, self.batch(head, start, read).ok()??))
        })
    }
}
