//! The digests of a segment's parts, bound to the store and to the file.

use crate::engine::digest::{Digest, DigestKey, Digests};

use super::meta::SegmentMeta;

/// The digests of one segment: a part of another file does not verify under them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    digests: Digests,
    uuid: [u8; 16],
    file: u64,
}

impl Binding {
    /// Returns the digests of a segment in a store with this key.
    pub(super) fn new(meta: &SegmentMeta, key: DigestKey) -> Self {
        let digests = if meta.format == 1 { Digests::Sha256 } else { Digests::Keyed(key) };
        Self { digests, uuid: meta.uuid, file: meta.file }
    }

    /// Returns the digests of a segment of the current format with this number.
    pub(super) fn of(uuid: [u8; 16], file: u64, key: DigestKey) -> Self {
        Self { digests: Digests::Keyed(key), uuid, file }
    }

    /// Returns the digests of a segment of format 1 with this number.
    pub(super) fn of_format_1(uuid: [u8; 16], file: u64) -> Self {
        Self { digests: Digests::Sha256, uuid, file }
    }

    /// Returns the digest of these bytes as a part of the segment.
    pub(super) fn digest(&self, bytes: &[u8]) -> Digest {
        self.digests.digest(&[&self.uuid, &self.file.to_le_bytes(), bytes])
    }

    /// Returns the digest of a row.
    pub(super) fn digest_row(&self, scope: &[u8; 32], key: &[u8], part: u16, row: &[u8]) -> Digest {
        self.digests.digest(&[
            &self.uuid,
            &self.file.to_le_bytes(),
            scope,
            &(key.len() as u64).to_le_bytes(),
            key,
            &part.to_le_bytes(),
            row,
        ])
    }
}
