//! A batch: the entries that one write and one fdatasync make durable.
//!
//! A batch verifies only under its log's key, and only whole: its head has a keyed checksum, and
//! covers the digest of every entry.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::{Anchor, Moment, Reading, millis};
use crate::codec::MAX_ENTRY_BYTES;
use crate::engine::entry::{self, Encoded};

use super::header::field;
use super::page::PAGE_BYTES;

const MAGIC: [u8; 4] = *b"btch";
/// The zeros between the end of a batch and the end of its last page.
static PADDING: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
/// The longest batch: one entry of the largest size, or many that are smaller.
const MAX_BATCH_BYTES: usize = MAX_ENTRY_BYTES + 64 * 1024;

/// The fixed part at the front of a batch.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHead {
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) anchor: Anchor,
    count: u32,
    entries: [u8; 32],
}

impl BatchHead {
    /// The length of a head, in bytes.
    pub(crate) const LEN: usize = 124;
    /// The bytes of a head that its checksum covers.
    const CHECKED: usize = 92;

    fn encode(&self, key: &[u8; 32], out: &mut [u8]) {
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..28].copy_from_slice(&self.anchor.at.0.to_le_bytes());
        out[28..36].copy_from_slice(&millis(self.anchor.reading.wall).to_le_bytes());
        out[36..44].copy_from_slice(&millis(self.anchor.reading.boot).to_le_bytes());
        out[44..60].copy_from_slice(&self.anchor.reading.boot_id);
        out[60..92].copy_from_slice(&self.entries);
        let checksum = keyed(key, &out[..Self::CHECKED]);
        out[92..124].copy_from_slice(&checksum);
    }

    /// Decodes a head, or returns `None` if it does not verify under this key.
    pub(crate) fn decode(head: &[u8; Self::LEN], key: &[u8; 32]) -> Option<Self> {
        // The magic first: most pages that a scan meets are not heads.
        if head[..4] != MAGIC || keyed(key, &head[..Self::CHECKED]) != head[92..124] {
            return None;
        }
        let time = |at| u64::from_le_bytes(field(head, at));
        let head = Self {
            length: u32::from_le_bytes(field(head, 4)),
            sequence: time(8),
            count: u32::from_le_bytes(field(head, 16)),
            anchor: Anchor {
                at: Moment(time(20)),
                reading: Reading {
                    wall: Duration::from_millis(time(28)),
                    boot: Duration::from_millis(time(36)),
                    boot_id: field(head, 44),
                },
            },
            entries: field(head, 60),
        };
        let sane = (Self::LEN..=MAX_BATCH_BYTES).contains(&(head.length as usize));
        sane.then_some(head)
    }
}

/// Returns the SHA-256 of a log's key and bytes.
fn keyed(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix(key);
    hasher.update(bytes);
    hasher.finalize().into()
}

/// A batch that has verified.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) head: BatchHead,
    bytes: Vec<u8>,
}

/// One entry in a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// The offset of the entry's bytes in the batch.
    pub(crate) at: u64,
    pub(crate) digest: &'a [u8; 32],
    pub(crate) bytes: &'a [u8],
}

impl Frame<'_> {
    /// Bytes in front of an entry: its length and digest.
    pub(crate) const HEAD: usize = 4 + 32;
}

impl Batch {
    /// Verifies the entries that follow a verified head; `bytes` are the whole batch.
    pub(super) fn decode(head: BatchHead, bytes: Vec<u8>) -> Option<Self> {
        let batch = Self { head, bytes };
        let mut entries = Sha256::new();
        let mut count = 0_u32;
        let mut end = BatchHead::LEN as u64;
        for frame in batch.frames() {
            if entry::digest(frame.bytes) != *frame.digest {
                return None;
            }
            entries.update(u32::try_from(frame.bytes.len()).ok()?.to_le_bytes());
            entries.update(frame.digest);
            count += 1;
            end = frame.at + frame.bytes.len() as u64;
        }
        let whole = count == head.count && end == u64::from(head.length);
        (whole && entries.finalize()[..] == head.entries).then_some(batch)
    }

    /// Returns the entries, up to the first length that does not fit: all of a verified batch.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut at = BatchHead::LEN;
        std::iter::from_fn(move || {
            let (length, rest) = self.bytes.get(at..)?.split_first_chunk()?;
            let (digest, rest) = rest.split_first_chunk()?;
            let bytes = rest.get(..u32::from_le_bytes(*length) as usize)?;
            let frame = Frame { at: (at + Frame::HEAD) as u64, digest, bytes };
            at += Frame::HEAD + bytes.len();
            Some(frame)
        })
    }
}

/// A batch being built. Its buffer is reused.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    buffer: Vec<u8>,
    entries: Sha256,
    count: u32,
}

impl BatchBuilder {
    /// Bytes in front of the entries.
    pub(crate) const HEAD: usize = BatchHead::LEN;

    /// Creates an empty batch.
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BatchHead::LEN], entries: Sha256::new(), count: 0 }
    }

    /// Adds an entry, and returns the offset of its bytes in the batch.
    pub(crate) fn push(&mut self, encoded: &Encoded) -> u64 {
        self.push_bytes(&encoded.digest, &encoded.bytes)
    }

    /// Adds an entry whose bytes have this digest.
    pub(crate) fn push_bytes(&mut self, digest: &[u8; 32], bytes: &[u8]) -> u64 {
        let length = u32::try_from(bytes.len()).expect("entries are bounded").to_le_bytes();
        self.entries.update(length);
        self.entries.update(digest);
        self.buffer.extend_from_slice(&length);
        self.buffer.extend_from_slice(digest);
        let at = self.buffer.len() as u64;
        self.buffer.extend_from_slice(bytes);
        self.count += 1;
        at
    }

    /// Returns the bytes of the batch so far, head included.
    pub(crate) fn len(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Returns true if the batch has no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Empties the batch, and keeps up to 2 MiB of its buffer for the next one.
    pub(crate) fn clear(&mut self) {
        self.buffer.truncate(BatchHead::LEN);
        // The memory of a rare large entry is given back.
        self.buffer.shrink_to(2 * 1024 * 1024);
        self.entries = Sha256::new();
        self.count = 0;
    }

    /// Completes the batch and returns it as whole pages: if a page were written in part, the
    /// kernel would have to read the rest first.
    pub(super) fn finish(&mut self, key: &[u8; 32], sequence: u64, anchor: Anchor) -> &[u8] {
        let head = BatchHead {
            length: u32::try_from(self.buffer.len()).expect("batches are bounded"),
            sequence,
            count: self.count,
            anchor,
            entries: self.entries.clone().finalize().into(),
        };
        head.encode(key, &mut self.buffer[..BatchHead::LEN]);
        let padding = self.buffer.len().next_multiple_of(PAGE_BYTES) - self.buffer.len();
        self.buffer.extend_from_slice(&PADDING[..padding]);
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::entry::Entry;

    const KEY: [u8; 32] = [3; 32];

    fn anchor() -> Anchor {
        let reading = Reading {
            boot_id: [4; 16],
            boot: Duration::from_millis(5),
            wall: Duration::from_millis(6),
        };
        Anchor { at: Moment(7), reading }
    }

    fn bytes() -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        builder.push(&Encoded::new(None, &Entry::Start(None)));
        builder.push(&Encoded::new(None, &Entry::Checkpoint(b"x")));
        let length = builder.buffer.len();
        builder.finish(&KEY, 9, anchor())[..length].to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Batch> {
        let head = BatchHead::decode(bytes.first_chunk()?, &KEY)?;
        Batch::decode(head, bytes.to_vec())
    }

    #[test]
    fn a_batch_reads_back_as_written() {
        let bytes = bytes();
        let batch = decode(&bytes).unwrap();
        assert_eq!((batch.head.sequence, batch.head.anchor), (9, anchor()));
        let entries: Vec<_> = batch.frames().map(|frame| frame.bytes.len()).collect();
        assert_eq!(entries, [36, 37]);
        let last = batch.frames().last().unwrap();
        assert!(bytes.ends_with(last.bytes));
        assert_eq!(last.at, (bytes.len() - last.bytes.len()) as u64);
    }

    #[test]
    fn the_longest_entry_fits_a_batch() {
        let entry = vec![7; MAX_ENTRY_BYTES];
        let mut builder = BatchBuilder::new();
        builder.push_bytes(&entry::digest(&entry), &entry);
        let length = builder.buffer.len();
        let batch = decode(&builder.finish(&KEY, 9, anchor())[..length]).unwrap();
        assert!(batch.frames().map(|frame| frame.bytes.len()).eq([MAX_ENTRY_BYTES]));
    }

    #[test]
    fn golden_head_of_format_1() {
        let hex: String = bytes()[..60].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = format!(
            "627463680d010000{}02000000{}{}{}{}",
            "0900000000000000",
            "0700000000000000",
            "0600000000000000",
            "0500000000000000",
            "04".repeat(16)
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn p5_every_flipped_bit_and_every_other_key_is_noticed() {
        let bytes = bytes();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_none(), "bit {bit}");
        }
        assert!(BatchHead::decode(bytes.first_chunk().unwrap(), &[0; 32]).is_none());
    }
}
