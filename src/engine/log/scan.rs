//! Reading batches, and looking for them where some may be damaged.

use crate::error::{Error, Result};

use super::Log;
use super::batch::{Batch, BatchHead, MAX_SPAN};
use super::page::{PAGE, PAGE_BYTES};

/// The bytes that are read at a time in a search for batches.
const SCAN_BYTES: u64 = 1024 * 1024;

impl Log {
    /// Reads the batch at `offset`, with damaged entries if there are any, or `None` if none
    /// verifies there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub(crate) fn batch_at(&self, offset: u64) -> Result<Option<Batch>> {
        let mut page = [0; PAGE_BYTES];
        if self.size.checked_sub(offset).is_none_or(|room| room < PAGE) {
            return Ok(None);
        }
        self.read(&mut page, offset)?;
        let Some(head) = self.format.head(&page) else { return Ok(None) };
        self.batch(head, offset, |bytes| self.read(bytes, offset))
    }

    /// Reads the batch at `offset` by whatever is left of it: the second copy of its head, and the
    /// pages that can be read. The batch has this sequence, if it is known.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the file is cut short.
    pub(crate) fn remains_at(&self, offset: u64, sequence: Option<u64>) -> Result<Option<Batch>> {
        let mut page = [0; PAGE_BYTES];
        self.read_readable(&mut page, offset)?;
        let head = match self.format.head(&page) {
            Some(head) => Some(head),
            None => self.second_head(offset, sequence)?,
        };
        let Some(head) = head else { return Ok(None) };
        self.batch(head, offset, |bytes| self.read_readable(bytes, offset).map(drop))
    }

    pub(super) fn batch(
        &self,
        head: BatchHead,
        offset: u64,
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Option<Batch>> {
        if head.span > self.size - offset {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(head.span).unwrap_or_default()];
        read(&mut bytes)?;
        Ok(self.format.batch(head, bytes))
    }

    /// Looks for the end of the batch that begins at `offset`.
    fn second_head(&self, offset: u64, sequence: Option<u64>) -> Result<Option<BatchHead>> {
        let mut page = [0; PAGE_BYTES];
        let last = self.size.min(offset + MAX_SPAN);
        for at in (offset..last).step_by(PAGE_BYTES) {
            self.read_readable(&mut page, at)?;
            match self.format.head_at_end(&page) {
                Some(head) if offset + head.span == at + PAGE => {
                    let is_expected = sequence.is_none_or(|sequence| head.sequence == sequence);
                    return Ok(Some(head).filter(|_| is_expected));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Returns true if any whole batch verifies anywhere in this log.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if none was found, and the file cannot be read.
    pub(crate) fn is_started(&self) -> Result<bool> {
        self.scan(PAGE, |offset| match self.batch_at(offset) {
            // It cannot be whole.
            Err(Error::Io { .. }) => Ok(false),
            batch => Ok(batch?.is_some_and(|batch| batch.is_whole())),
        })
    }

    /// Returns true if the head of a batch verifies at `offset` or behind it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if none was found, and the file cannot be read.
    pub(crate) fn has_batch_from(&self, offset: u64) -> Result<bool> {
        self.scan(offset, |_| Ok(true))
    }

    /// Calls `accept` with the offset of each page from `offset` on that begins with the head of a
    /// batch, until it accepts one. Returns whether it did.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it accepted none, and some pages cannot be read.
    fn scan(&self, offset: u64, mut accept: impl FnMut(u64) -> Result<bool>) -> Result<bool> {
        let mut chunk = Vec::new();
        let (mut start, mut unread) = (offset, None);
        while start < self.size {
            chunk.resize(usize::try_from(SCAN_BYTES.min(self.size - start)).unwrap_or(0), 0);
            unread = self.read_readable(&mut chunk, start)?.or(unread);
            let pages = chunk.chunks(PAGE_BYTES).zip((start..).step_by(PAGE_BYTES));
            for (page, offset) in pages {
                if self.format.head(page).is_some() && accept(offset)? {
                    return Ok(true);
                }
            }
            start += chunk.len() as u64;
        }
        unread.map_or(Ok(false), Err)
    }

    /// Reads what can be read, page by page where the disk fails, and zeros for the rest. Returns
    /// the error of the first page that cannot be read.
    pub(super) fn read_readable(&self, buffer: &mut [u8], offset: u64) -> Result<Option<Error>> {
        match self.read(buffer, offset) {
            Err(Error::Io { .. }) => {}
            read => return read.map(|()| None),
        }
        let mut unread = None;
        for (page, at) in buffer.chunks_mut(PAGE_BYTES).zip((offset..).step_by(PAGE_BYTES)) {
            match self.read(page, at) {
                Err(error @ Error::Io { .. }) => {
                    page.fill(0);
                    unread.get_or_insert(error);
                }
                read => read?,
            }
        }
        Ok(unread)
    }
}
