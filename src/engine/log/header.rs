//! The first page of a log: the identity of store and log, and the key of its batches.
//!
//! Nothing in it but the size of the file is known from there alone. The key follows from that of
//! the store and from the generation, which is used once. So a damaged header costs nothing.

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
/// | 44..76 | key of the batches' digests |
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

/// The identity of a store, which each of its logs has in its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) uuid: [u8; 16],
    /// The key of the entries' digests.
    pub(crate) entries: DigestKey,
}

/// A header that does not verify, compared with the one that the log should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remains {
    /// All but bytes that are known from elsewhere is whole: this is the header.
    Whole(LogHeader),
    /// The header was this log's, and its size is not certain.
    Ours,
    /// Nothing shows that this was the header of the log.
    Nothing,
}

impl LogHeader {
    pub(crate) const LEN: usize = 140;

    /// The header of a new log.
    pub(super) fn new(store: Identity, generation: u64, size: u64) -> Self {
        let Identity { uuid, entries } = store;
        let mut hasher = Sha256::new_with_prefix(b"refrain log\0");
        hasher.update(entries.as_bytes());
        hasher.update(uuid);
        hasher.update(generation.to_le_bytes());
        Self { uuid, generation, size, key: hasher.finalize().into(), entries: Some(entries) }
    }

    /// Compares a header that does not verify with this one, which has everything but the size.
    pub(super) fn remains_in(&self, page: &[u8; Self::LEN]) -> Remains {
        let size = u64::from_le_bytes(field(page, 36));
        let whole = Self { size, ..*self };
        // Of bytes that are put right, the checksum shows whether the others are whole.
        if is_size(size) && whole.encode()[CHECKED..Self::LEN] == page[CHECKED..] {
            return Remains::Whole(whole);
        }
        // The key shows store and generation. Another format may have something else there.
        let is_ours = self.key == field(page, 44) && page[8..12] == FORMAT.to_le_bytes();
        if is_ours { Remains::Ours } else { Remains::Nothing }
    }

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
        if !is_size(header.size) {
            return Err(Error::corrupt(path, "its size is not a number of pages"));
        }
        Ok(header)
    }
}

/// The bytes that the checksum of a header covers.
const CHECKED: usize = 108;

/// Returns the number of bytes that the checksum of a header covers, which are fewer in format 1.
fn checked(has_entries_key: bool) -> usize {
    if has_entries_key { CHECKED } else { 76 }
}

/// Returns true if a log can have this size.
fn is_size(size: u64) -> bool {
    size >= 2 * PAGE && size.is_multiple_of(PAGE)
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

    /// Format 2 is on users' disks: the key of a generation never changes.
    #[test]
    fn golden_key_of_format_2() {
        let store = Identity { uuid: [1; 16], entries: DigestKey::from_bytes([3; 32]) };
        let key = LogHeader::new(store, 7, 1 << 20).key;
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "f44cb3717175d6756d1f6bc25cfa417a37d3c41d9b0d86c6cb0356bb5e300183");
    }

    #[test]
    fn p5_a_header_with_a_flipped_bit_is_known_and_one_of_another_log_is_not() {
        let store = Identity { uuid: [1; 16], entries: DigestKey::from_bytes([3; 32]) };
        let header = LogHeader::new(store, 7, 1 << 20);
        let page: [u8; LogHeader::LEN] = *header.encode().first_chunk().unwrap();
        for bit in 0..page.len() * 8 {
            let mut damaged = page;
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Of the size and of the checksum only one is known.
            let is_size_known = !(36 * 8..44 * 8).contains(&bit) && bit < CHECKED * 8;
            let expected = if is_size_known { Remains::Whole(header) } else { Remains::Ours };
            let known = LogHeader::new(store, 7, 2 * PAGE);
            assert_eq!(known.remains_in(&damaged), expected, "bit {bit}");
        }
        let others = [
            LogHeader::new(store, 8, 1 << 20),
            LogHeader::new(Identity { uuid: [2; 16], ..store }, 7, 1 << 20),
            LogHeader::new(
                Identity { entries: DigestKey::from_bytes([4; 32]), ..store },
                7,
                1 << 20,
            ),
        ];
        for other in others {
            let page = *other.encode().first_chunk().unwrap();
            assert_eq!(header.remains_in(&page), Remains::Nothing);
        }
        assert_eq!(header.remains_in(&[0; LogHeader::LEN]), Remains::Nothing);
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
