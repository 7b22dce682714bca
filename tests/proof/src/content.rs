//! The content of a file: pages that copies share until one of them changes.

use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The bytes of a page, the unit in which the cache holds and writes back a file.
pub const PAGE: usize = 4096;
/// The bytes of a sector, which a device writes whole or not at all.
pub const SECTOR: usize = 512;

/// One page of a file.
pub type Page = [u8; PAGE];

/// A file's length, and its pages as far as they were written. The others are zero.
#[derive(Clone, Default, PartialEq)]
pub struct Content {
    pages: Vec<Option<Arc<Page>>>,
    len: u64,
}

impl Content {
    /// The length of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns true if the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts or extends the file. What is cut off is gone.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, rest) = split(len);
            self.pages.truncate(if rest == 0 { page } else { page + 1 });
            if let Some(Some(last)) = self.pages.get_mut(page) {
                Arc::make_mut(last)[rest..].fill(0);
            }
        }
        self.len = len;
    }

    /// Fills the buffer, or fails if the file ends before.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buffer.len() {
            let (page, start) = split(offset + done as u64);
            let part = (PAGE - start).min(buffer.len() - done);
            let into = &mut buffer[done..done + part];
            match self.pages.get(page) {
                Some(Some(page)) => into.copy_from_slice(&page[start..start + part]),
                _ => into.fill(0),
            }
            done += part;
        }
        Ok(())
    }

    /// Writes the bytes, and returns the range of pages that the write touched.
    pub fn write(&mut self, bytes: &[u8], offset: u64) -> Range<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let (page, start) = split(offset + done as u64);
            let part = (PAGE - start).min(bytes.len() - done);
            self.page_mut(page)[start..start + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
        let end = offset + bytes.len() as u64;
        self.len = self.len.max(end);
        split(offset).0..end.div_ceil(PAGE as u64).try_into().unwrap_or(usize::MAX)
    }

    /// A page, if it was ever written.
    pub fn page(&self, number: usize) -> Option<&Arc<Page>> {
        self.pages.get(number)?.as_ref()
    }

    /// Puts a whole page in its place. The length stays.
    pub fn put(&mut self, number: usize, page: Option<Arc<Page>>) {
        if self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        self.pages[number] = page;
    }

    /// The number of pages that may have been written.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// A page to write into.
    pub fn page_mut(&mut self, number: usize) -> &mut Page {
        if self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        Arc::make_mut(self.pages[number].get_or_insert_with(|| Arc::new([0; PAGE])))
    }
}

/// A page's number, and the place in it.
fn split(offset: u64) -> (usize, usize) {
    let page = PAGE as u64;
    let index = |value| usize::try_from(value).expect("simulated files are small");
    (index(offset / page), index(offset % page))
}
