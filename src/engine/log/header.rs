//! The first page of a log: the identity of store and log, and the key of its batches.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::engine::digest::DigestKey;
use crate::error::{Error, Result};

use super::page::{PAGE, PAGE_BYTES};

const MAGIC: [u8; 8] = *b"rfrn log";
const FORMAT: u32 = 2;

/// The content of the first page.
///
/// | bytes | content |
/// | --- | --- |
/// | 0..8 | magic |
/// | 8..12 | format |
/// | 12..28 | store uuid |
/// | 28..36 | generation |
/// | 36..44 | size of the file |
/// | 44..76 | random key of the batches' digests |
/// | 76..108 | the store's key of the entries' digests; absent in format 1 |
/// | 32 more | SHA-256 of the above |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogHeader {
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) size: u64,
    /// The key of this log's batches.
    pub(crate) key: [u8; 32],
    /// The key of the store's entries; `None` in format 1.
    pub(crate) entries: Option<DigestKey>,
}

impl LogHeader {
    pub(crate) const LEN: usize = 140;

    /// Returns the whole page, so that nothing of a recycled log is left on it.
    pub(crate) fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        let format = if self.entries.is_some() { FORMAT } else { 1 };
        page[0..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&format.to_le_bytes());
        page[12..28].copy_from_slice(&self.uuid);
        page[28..36].copy_from_slice(&self.generation.to_le_bytes());
        page[36..44].copy_from_slice(&self.size.to_le_bytes());
        page[44..76].copy_from_slice(&self.key);
        let end = checked(self.entries.is_some());
        if let Some(entries) = &self.entries {
            page[76..end].copy_from_slice(entries.as_bytes());
        }
        let checksum = Sha256::digest(&page[..end]);
        page[end..end + 32].copy_from_slice(&checksum);
        page
    }

    /// Decodes and verifies a header; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] and [`Error::Corrupt`].
    pub(crate) fn decode(page: &[u8; Self::LEN], path: &Path) -> Result<Self> {
        if page[..8] != MAGIC {
            return Err(Error::corrupt(path, "it does not begin like a log"));
        }
        let format = u32::from_le_bytes(field(page, 8));
        if format > FORMAT {
            return Err(Error::Newer { file: path.into(), found: format, supported: FORMAT });
        }
        let end = checked(format == FORMAT);
        if Sha256::digest(&page[..end])[..] != page[end..end + 32] {
            return Err(Error::corrupt(path, "its header does not match its checksum"));
        }
        let header = Self {
            uuid: field(page, 12),
            generation: u64::from_le_bytes(field(page, 28)),
            size: u64::from_le_bytes(field(page, 36)),
            key: field(page, 44),
            entries: (format == FORMAT).then(|| DigestKey::from_bytes(field(page, 76))),
        };
        if header.size < 2 * PAGE || !header.size.is_multiple_of(PAGE) {
            return Err(Error::corrupt(path, "its size is not a number of pages"));
        }
        Ok(header)
    }
}

/// Returns the number of bytes that the checksum of a header covers.
fn checked(has_entries_key: bool) -> usize {
    if has_entries_key { 108 } else { 76 }
}

/// Returns `N` bytes at a fixed offset.
///
/// # Panics
///
/// If the slice is too short, which the callers' array types rule out.
pub(super) fn field<const N: usize>(page: &[u8], at: usize) -> [u8; N] {
    page[at..at + N].try_into().expect("the range has N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: LogHeader = LogHeader {
        uuid: [1; 16],
        generation: 7,
        size: 1 << 20,
        key: [2; 32],
        entries: Some(DigestKey::from_bytes([3; 32])),
    };

    fn decode(page: &[u8; PAGE_BYTES]) -> Result<LogHeader> {
        LogHeader::decode(page.first_chunk().unwrap(), Path::new("x"))
    }

    #[test]
    fn golden_headers_of_formats_1_and_2() {
        for (header, format, length) in
            [(LogHeader { entries: None, ..HEADER }, "01", 76), (HEADER, "02", 108)]
        {
            let page = header.encode();
            let hex: String = page[..length].iter().map(|byte| format!("{byte:02x}")).collect();
            let mut expected = format!(
                "7266726e206c6f67{format}000000{}07000000000000000000100000000000{}{}",
                "01".repeat(16),
                "02".repeat(32),
                "03".repeat(32)
            );
            expected.truncate(2 * length);
            assert_eq!(hex, expected);
            assert_eq!(decode(&page).unwrap(), header);
        }
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_noticed() {
        let page = HEADER.encode();
        for bit in 0..LogHeader::LEN * 8 {
            let mut damaged = page;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }
}
