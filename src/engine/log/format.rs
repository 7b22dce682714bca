//! The format of a log: new logs have format 2, and format 1 is read.

use crate::engine::digest::{Digest, DigestKey, Digests};

use super::batch::{Batch, BatchHead, head_at_end};
use super::format_1;
use super::header::LogHeader;
use super::page::PAGE_BYTES;

/// The format of a log, with its keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    One { key: [u8; 32] },
    Two { key: DigestKey, entries: DigestKey },
}

impl Format {
    /// Returns the format of the log with this header.
    pub(super) fn of(header: &LogHeader) -> Self {
        match header.entries {
            None => Self::One { key: header.key },
            Some(entries) => Self::Two { key: DigestKey::from_bytes(header.key), entries },
        }
    }

    /// Returns the digest of an entry.
    pub(super) fn digest(&self, entry: &[u8]) -> Digest {
        match self {
            Self::One { .. } => Digests::Sha256.digest(&[entry]),
            Self::Two { entries, .. } => entries.digest(&[entry]),
        }
    }

    /// Decodes the head of a batch at the beginning of a page.
    pub(super) fn head(&self, page: &[u8]) -> Option<BatchHead> {
        match self {
            Self::One { key } => format_1::decode_head(page.first_chunk()?, key),
            Self::Two { key, .. } => BatchHead::decode(page.first_chunk()?, key),
        }
    }

    /// Decodes the second copy of a head at the end of a page. Format 1 has none.
    pub(super) fn head_at_end(&self, page: &[u8; PAGE_BYTES]) -> Option<BatchHead> {
        match self {
            Self::One { .. } => None,
            Self::Two { key, .. } => head_at_end(page, key),
        }
    }

    /// Decodes a batch whose head has verified. In format 1 a batch is whole or none.
    pub(super) fn batch(&self, head: BatchHead, bytes: Vec<u8>) -> Option<Batch> {
        match self {
            Self::One { .. } => format_1::decode(head, bytes),
            Self::Two { key, entries } => Batch::decode(head, bytes, key, entries),
        }
    }

    /// Returns true if both copies of a batch's head and frames are as they were written.
    pub(super) fn is_intact(&self, batch: &Batch) -> bool {
        match self {
            Self::One { .. } => true,
            Self::Two { key, .. } => batch.is_intact(key),
        }
    }
}
