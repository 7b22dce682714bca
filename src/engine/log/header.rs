//! The first page of a log: the identity of store and log, and the key of its batches.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

use super::page::{PAGE, PAGE_BYTES};

const MAGIC: [u8; 8] = *b"rfrn log";
const FORMAT: u32 = 1;

/// The content of the first page.
///
/// | bytes | content |
/// | --- | --- |
/// | 0..8 | magic |
/// | 8..12 | format |
/// | 12..28 | store uuid |
/// | 28..36 | generation |
/// | 36..44 | size of the file |
/// | 44..76 | random key of the batches' checksums |
/// | 76..108 | SHA-256 of the above |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogHeader {
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) size: u64,
    pub(crate) key: [u8; 32],
}

impl LogHeader {
    pub(crate) const LEN: usize = 108;

    /// Returns the whole page, so that nothing of a recycled log is left on it.
    pub(crate) fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        page[0..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        page[12..28].copy_from_slice(&self.uuid);
        page[28..36].copy_from_slice(&self.generation.to_le_bytes());
        page[36..44].copy_from_slice(&self.size.to_le_bytes());
        page[44..76].copy_from_slice(&self.key);
        let checksum = Sha256::digest(&page[..76]);
        page[76..108].copy_from_slice(&checksum);
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
        if Sha256::digest(&page[..76])[..] != page[76..108] {
            return Err(Error::corrupt(path, "its header does not match its checksum"));
        }
        let header = Self {
            uuid: field(page, 12),
            generation: u64::from_le_bytes(field(page, 28)),
            size: u64::from_le_bytes(field(page, 36)),
            key: field(page, 44),
        };
        if header.size < 2 * PAGE || !header.size.is_multiple_of(PAGE) {
            return Err(Error::corrupt(path, "its size is not a number of pages"));
        }
        Ok(header)
    }
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

    #[test]
    fn golden_header_of_format_1() {
        let header = LogHeader { uuid: [1; 16], generation: 7, size: 1 << 20, key: [2; 32] };
        let page = header.encode();
        let hex: String = page[..76].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = format!(
            "7266726e206c6f6701000000{}07000000000000000000100000000000{}",
            "01".repeat(16),
            "02".repeat(32)
        );
        assert_eq!(hex, expected);
        let decoded = LogHeader::decode(page.first_chunk().unwrap(), Path::new("x")).unwrap();
        assert_eq!(decoded, header);
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_noticed() {
        let header = LogHeader { uuid: [1; 16], generation: 7, size: 1 << 20, key: [2; 32] };
        let page = header.encode();
        for bit in 0..LogHeader::LEN * 8 {
            let mut head: [u8; LogHeader::LEN] = *page.first_chunk().unwrap();
            head[bit / 8] ^= 1 << (bit % 8);
            assert!(LogHeader::decode(&head, Path::new("x")).is_err(), "bit {bit}");
        }
    }
}
