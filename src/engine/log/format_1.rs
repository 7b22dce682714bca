//! Batches of format 1, which earlier versions wrote: they are read, and never written.
//!
//! A batch verifies only under its log's key, and only whole: its head has a keyed checksum, and
//! covers the digest of every entry.

use sha2::{Digest as _, Sha256};

use crate::engine::digest::first_half;

use super::batch::{Batch, BatchHead, MAX_BATCH_BYTES, Place, anchor_of};
use super::header::field;
use super::page::PAGE;

const MAGIC: [u8; 4] = *b"btch";
/// The length of a head, in bytes.
pub(super) const HEAD: usize = 124;
/// The bytes of a head that its checksum covers.
const CHECKED: usize = 92;

/// Decodes a head, or returns `None` if it does not verify under this key.
///
/// | bytes | content |
/// | --- | --- |
/// | 0..4 | magic |
/// | 4..8 | length, this head included |
/// | 8..16 | sequence |
/// | 16..20 | number of entries |
/// | 20..28 | engine time |
/// | 28..36 | wall time |
/// | 36..44 | boot time |
/// | 44..60 | boot id |
/// | 60..92 | SHA-256 over each entry's length and digest |
/// | 92..124 | SHA-256 of the log's key and the above |
pub(super) fn decode_head(head: &[u8; HEAD], key: &[u8; 32]) -> Option<BatchHead> {
    // The magic first: most pages that a scan meets are not heads.
    if head[..4] != MAGIC || keyed(key, &head[..CHECKED]) != head[CHECKED..] {
        return None;
    }
    let length = u32::from_le_bytes(field(head, 4));
    let sane = (HEAD..=MAX_BATCH_BYTES).contains(&(length as usize));
    sane.then(|| BatchHead {
        length,
        sequence: u64::from_le_bytes(field(head, 8)),
        count: u32::from_le_bytes(field(head, 16)),
        anchor: anchor_of(head),
        frames: first_half(&field(head, 60)),
        span: u64::from(length).next_multiple_of(PAGE),
    })
}

/// Returns the SHA-256 of a log's key and bytes.
fn keyed(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix(key);
    hasher.update(bytes);
    hasher.finalize().into()
}

/// Verifies the entries that follow a verified head; `bytes` are the whole batch.
pub(super) fn decode(head: BatchHead, bytes: Vec<u8>) -> Option<Batch> {
    let mut entries = Sha256::new();
    let mut frames = Vec::new();
    let mut at = HEAD;
    while at < head.length as usize {
        let (length, rest) = bytes.get(at..)?.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        let entry = rest.get(..u32::from_le_bytes(*length) as usize)?;
        if Sha256::digest(entry)[..] != digest[..] {
            return None;
        }
        entries.update(length);
        entries.update(digest);
        at += 4 + 32;
        let digest = first_half(digest);
        frames.push(Place { at, length: entry.len(), hash: None, digest, is_whole: true });
        at += entry.len();
    }
    let whole = frames.len() == head.count as usize && at == head.length as usize;
    let matches = || first_half(&entries.finalize().into()) == head.frames;
    (whole && matches()).then_some(Batch { head, bytes, frames })
}
