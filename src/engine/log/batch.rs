//! A batch: the entries that one write and one fdatasync make durable.
//!
//! ```text
//! | head | frame, entry | frame, entry | … | zeros | frames again | head again |
//! ```
//!
//! A batch begins and ends with a page. A frame has the length, the address and the digest of its
//! entry, and the head has a digest of all frames: so an entry that is damaged is known by its
//! address, and costs its key alone. Head and frames are written twice, far apart where the batch
//! is long.

use std::time::Duration;

use crate::clock::{Anchor, Moment, Reading, millis};
use crate::codec::MAX_ENTRY_BYTES;
use crate::engine::digest::{Digest, DigestKey};
use crate::engine::entry::Encoded;

use super::header::field;
use super::page::{PAGE, PAGE_BYTES};

const MAGIC: [u8; 4] = *b"btc2";
/// The longest batch: one entry of the largest size, or many that are smaller.
pub(super) const MAX_BATCH_BYTES: usize = MAX_ENTRY_BYTES + 64 * 1024;
/// The most bytes that a batch takes in its log.
pub(super) const MAX_SPAN: u64 = (MAX_BATCH_BYTES as u64).next_multiple_of(PAGE);

/// The fixed part at the front of a batch, and again at its end.
///
/// | bytes | content |
/// | --- | --- |
/// | 0..4 | magic |
/// | 4..8 | length of this head, the frames and the entries |
/// | 8..16 | sequence |
/// | 16..20 | number of entries |
/// | 20..28 | engine time |
/// | 28..36 | wall time |
/// | 36..44 | boot time |
/// | 44..60 | boot id |
/// | 60..76 | digest of the frames |
/// | 76..92 | digest of the above |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHead {
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) anchor: Anchor,
    pub(super) count: u32,
    pub(super) frames: Digest,
    /// The bytes that the batch takes in its log.
    pub(super) span: u64,
}

impl BatchHead {
    /// The length of a head, in bytes.
    pub(super) const LEN: usize = 92;
    /// The bytes of a head that its digest covers.
    const CHECKED: usize = 76;

    fn encode(&self, key: &DigestKey) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..28].copy_from_slice(&self.anchor.at.0.to_le_bytes());
        out[28..36].copy_from_slice(&millis(self.anchor.reading.wall).to_le_bytes());
        out[36..44].copy_from_slice(&millis(self.anchor.reading.boot).to_le_bytes());
        out[44..60].copy_from_slice(&self.anchor.reading.boot_id);
        out[60..76].copy_from_slice(&self.frames);
        let digest = key.digest(&[&out[..Self::CHECKED]]);
        out[Self::CHECKED..].copy_from_slice(&digest);
        out
    }

    /// Decodes a head, or returns `None` if it does not verify under this key.
    pub(super) fn decode(head: &[u8; Self::LEN], key: &DigestKey) -> Option<Self> {
        // The magic first: most pages that a scan meets are not heads.
        if head[..4] != MAGIC || key.digest(&[&head[..Self::CHECKED]]) != head[Self::CHECKED..] {
            return None;
        }
        let (length, count) =
            (u32::from_le_bytes(field(head, 4)), u32::from_le_bytes(field(head, 16)));
        let frames = u64::from(count) * Frame::LEN as u64;
        let sane = (Self::LEN..=MAX_BATCH_BYTES).contains(&(length as usize))
            && Self::LEN as u64 + frames <= u64::from(length)
            && span(length.into(), count.into()) <= MAX_SPAN;
        sane.then(|| Self {
            length,
            count,
            sequence: u64::from_le_bytes(field(head, 8)),
            anchor: anchor_of(head),
            frames: field(head, 60),
            span: span(length.into(), count.into()),
        })
    }
}

/// Returns the times in a head, which both formats have in the same place.
pub(super) fn anchor_of(head: &[u8]) -> Anchor {
    let time = |at| u64::from_le_bytes(field(head, at));
    Anchor {
        at: Moment(time(20)),
        reading: Reading {
            wall: Duration::from_millis(time(28)),
            boot: Duration::from_millis(time(36)),
            boot_id: field(head, 44),
        },
    }
}

/// Returns the bytes that a batch of `length` bytes takes with the second copies of its head and of
/// `count` frames.
fn span(length: u64, count: u64) -> u64 {
    (length + count * Frame::LEN as u64 + BatchHead::LEN as u64).next_multiple_of(PAGE)
}

/// A batch whose head and frames have verified.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) head: BatchHead,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: Vec<Place>,
}

/// The place of an entry in its batch, as its frame says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) hash: Option<u128>,
    pub(super) digest: Digest,
    pub(super) is_whole: bool,
}

/// One entry in a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// The offset of the entry's bytes in the batch.
    pub(crate) at: u64,
    /// The hash of its address, or 0 if it has none. Format 1 keeps no hashes.
    pub(crate) hash: Option<u128>,
    pub(crate) digest: Digest,
    pub(crate) bytes: &'a [u8],
    /// The bytes match the digest.
    pub(crate) is_whole: bool,
}

impl Frame<'_> {
    /// The bytes of a frame: length, hash and digest.
    const LEN: usize = 4 + 16 + 16;
    /// The bytes that an entry takes besides its own: its frame, twice.
    pub(crate) const OVERHEAD: usize = 2 * Self::LEN;
}

impl Batch {
    /// Verifies the frames that follow a verified head, and notes the entries that are not whole.
    /// `bytes` are the whole batch, second copies included.
    pub(super) fn decode(
        head: BatchHead,
        bytes: Vec<u8>,
        log: &DigestKey,
        entries: &DigestKey,
    ) -> Option<Self> {
        let frames = frames_inline(&head, &bytes)
            .filter(|(table, _)| log.digest(&[table]) == head.frames)
            .map(|(_, places)| places);
        let mut frames = frames.or_else(|| frames_at_end(&head, &bytes, log))?;
        for place in &mut frames {
            let entry = &bytes[place.at..place.at + place.length];
            place.is_whole = entries.digest(&[entry]) == place.digest;
        }
        Some(Self { head, bytes, frames })
    }

    /// Returns true if no entry is damaged.
    pub(crate) fn is_whole(&self) -> bool {
        self.frames.iter().all(|place| place.is_whole)
    }

    /// Returns true if both copies of the head and of the frames are as they were written.
    pub(super) fn is_intact(&self, log: &DigestKey) -> bool {
        let table = frames_inline(&self.head, &self.bytes).map(|(table, _)| table);
        let head = self.head.encode(log);
        table.is_some_and(|table| log.digest(&[&table]) == self.head.frames)
            && frames_at_end(&self.head, &self.bytes, log).is_some()
            && self.bytes.starts_with(&head)
            && self.bytes.ends_with(&head)
    }

    /// Returns the bytes that the batch takes in its log.
    pub(crate) fn span(&self) -> u64 {
        self.head.span
    }

    /// Returns the entries, damaged ones included.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames.iter().map(|place| Frame {
            at: place.at as u64,
            hash: place.hash,
            digest: place.digest,
            bytes: &self.bytes[place.at..place.at + place.length],
            is_whole: place.is_whole,
        })
    }
}

/// Reads the frames in front of the entries, and returns them as bytes and as places; `None` if a
/// length does not fit.
fn frames_inline(head: &BatchHead, bytes: &[u8]) -> Option<(Vec<u8>, Vec<Place>)> {
    let bytes = bytes.get(..head.length as usize)?;
    let mut table = Vec::with_capacity(head.count as usize * Frame::LEN);
    let mut places = Vec::with_capacity(head.count as usize);
    let mut at = BatchHead::LEN;
    for _ in 0..head.count {
        let frame: &[u8; Frame::LEN] = bytes.get(at..)?.first_chunk()?;
        table.extend_from_slice(frame);
        at += Frame::LEN;
        let place = Place::decode(frame, at);
        at += place.length;
        places.push(place);
    }
    (at == bytes.len()).then_some((table, places))
}

/// Reads the second copy of the frames; `None` if it does not verify either.
fn frames_at_end(head: &BatchHead, bytes: &[u8], log: &DigestKey) -> Option<Vec<Place>> {
    let end = bytes.len().checked_sub(BatchHead::LEN)?;
    let table = bytes.get(end.checked_sub(head.count as usize * Frame::LEN)?..end)?;
    if log.digest(&[table]) != head.frames {
        return None;
    }
    let mut at = BatchHead::LEN;
    let (frames, _) = table.as_chunks::<{ Frame::LEN }>();
    let places: Vec<_> = frames
        .iter()
        .map(|frame| {
            let place = Place::decode(frame, at + Frame::LEN);
            at = place.at + place.length;
            place
        })
        .collect();
    (at == head.length as usize && at <= bytes.len()).then_some(places)
}

impl Place {
    fn decode(frame: &[u8; Frame::LEN], at: usize) -> Self {
        Self {
            at,
            length: u32::from_le_bytes(field(frame, 0)) as usize,
            hash: Some(u128::from_le_bytes(field(frame, 4))),
            digest: field(frame, 20),
            is_whole: false,
        }
    }
}

/// A batch being built. Its buffer is reused.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    buffer: Vec<u8>,
    /// All frames once more.
    frames: Vec<u8>,
}

impl BatchBuilder {
    /// The bytes that a batch takes besides its entries and their frames: its head, twice.
    pub(crate) const OVERHEAD: usize = 2 * BatchHead::LEN;

    /// Creates an empty batch.
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BatchHead::LEN], frames: Vec::new() }
    }

    /// Adds an entry, and returns the offset of its bytes in the batch.
    pub(crate) fn push(&mut self, encoded: &Encoded) -> u64 {
        let length = u32::try_from(encoded.bytes.len()).expect("entries are bounded");
        let start = self.frames.len();
        self.frames.extend_from_slice(&length.to_le_bytes());
        self.frames.extend_from_slice(&encoded.hash.to_le_bytes());
        self.frames.extend_from_slice(&encoded.digest);
        self.buffer.extend_from_slice(&self.frames[start..]);
        let at = self.buffer.len() as u64;
        self.buffer.extend_from_slice(&encoded.bytes);
        at
    }

    /// Returns the bytes that the batch will take in its log.
    pub(crate) fn span(&self) -> u64 {
        span(self.buffer.len() as u64, self.count().into())
    }

    /// Returns true if the batch has no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Empties the batch, and keeps up to 2 MiB of its buffer for the next one.
    pub(crate) fn clear(&mut self) {
        self.buffer.truncate(BatchHead::LEN);
        // The memory of a rare large entry is given back.
        self.buffer.shrink_to(2 * 1024 * 1024);
        self.frames.clear();
    }

    /// Completes the batch and returns it as whole pages: if a page were written in part, the
    /// kernel would have to read the rest first.
    pub(super) fn finish(&mut self, key: &DigestKey, sequence: u64, anchor: Anchor) -> &[u8] {
        let span = self.span();
        let head = BatchHead {
            length: u32::try_from(self.buffer.len()).expect("batches are bounded"),
            sequence,
            count: self.count(),
            anchor,
            frames: key.digest(&[&self.frames]),
            span,
        };
        let head = head.encode(key);
        self.buffer[..BatchHead::LEN].copy_from_slice(&head);
        let end = usize::try_from(span).expect("batches are bounded") - BatchHead::LEN;
        self.buffer.resize(end - self.frames.len(), 0);
        self.buffer.extend_from_slice(&self.frames);
        self.buffer.extend_from_slice(&head);
        &self.buffer
    }

    fn count(&self) -> u32 {
        u32::try_from(self.frames.len() / Frame::LEN).expect("batches are bounded")
    }
}

/// Returns the head at the end of a page, if that page ends a batch which verifies under this key.
pub(super) fn head_at_end(page: &[u8; PAGE_BYTES], key: &DigestKey) -> Option<BatchHead> {
    page.last_chunk().and_then(|head| BatchHead::decode(head, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::entry::Entry;

    const KEY: DigestKey = DigestKey::from_bytes([3; 32]);
    const ENTRIES: DigestKey = DigestKey::from_bytes([5; 32]);

    fn anchor() -> Anchor {
        let reading = Reading {
            boot_id: [4; 16],
            boot: Duration::from_millis(5),
            wall: Duration::from_millis(6),
        };
        Anchor { at: Moment(7), reading }
    }

    fn encoded(entry: &Entry<'_>) -> Encoded {
        Encoded::new(&ENTRIES, None, entry)
    }

    fn bytes() -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        builder.push(&encoded(&Entry::Start(None)));
        builder.push(&encoded(&Entry::Checkpoint(b"x")));
        builder.finish(&KEY, 9, anchor()).to_vec()
    }

    /// As recovery reads it: by the head in front, or else by the one at the end.
    fn decode(bytes: &[u8]) -> Option<Batch> {
        let head = BatchHead::decode(bytes.first_chunk()?, &KEY)
            .or_else(|| head_at_end(bytes.last_chunk()?, &KEY))?;
        (head.span == bytes.len() as u64)
            .then(|| Batch::decode(head, bytes.to_vec(), &KEY, &ENTRIES))?
    }

    #[test]
    fn a_batch_reads_back_as_written() {
        let bytes = bytes();
        assert_eq!(bytes.len(), PAGE_BYTES);
        let batch = decode(&bytes).unwrap();
        assert_eq!((batch.head.sequence, batch.head.anchor), (9, anchor()));
        let entries: Vec<_> = batch.frames().map(|frame| frame.bytes.len()).collect();
        assert_eq!(entries, [36, 37]);
        assert!(batch.is_whole());
        let last = batch.frames().last().unwrap();
        assert_eq!(last.at + last.bytes.len() as u64, u64::from(batch.head.length));
    }

    #[test]
    fn the_longest_entry_fits_a_batch() {
        let entry = vec![7; MAX_ENTRY_BYTES];
        let mut builder = BatchBuilder::new();
        builder.push(&Encoded { digest: ENTRIES.digest(&[&entry]), bytes: entry, hash: 7 });
        let batch = decode(builder.finish(&KEY, 9, anchor())).unwrap();
        assert!(batch.frames().map(|frame| frame.bytes.len()).eq([MAX_ENTRY_BYTES]));
    }

    #[test]
    fn golden_head_of_format_2() {
        let hex: String = bytes()[..60].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = format!(
            "62746332ed000000{}02000000{}{}{}{}",
            "0900000000000000",
            "0700000000000000",
            "0600000000000000",
            "0500000000000000",
            "04".repeat(16)
        );
        assert_eq!(hex, expected);
    }

    /// The entry that is hit is known, and the others are whole.
    #[test]
    fn p5_a_flipped_bit_costs_at_most_the_entry_that_it_is_in() {
        let bytes = bytes();
        let whole = decode(&bytes).unwrap();
        let entries: Vec<_> =
            whole.frames().map(|f| f.at * 8..(f.at + f.bytes.len() as u64) * 8).collect();
        for bit in 0..bytes.len() as u64 * 8 {
            let mut damaged = bytes.clone();
            damaged[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
            let batch = decode(&damaged).unwrap_or_else(|| panic!("bit {bit}"));
            for (frame, range) in batch.frames().zip(&entries) {
                assert_eq!(frame.is_whole, !range.contains(&bit), "bit {bit}");
            }
        }
        assert!(BatchHead::decode(bytes.first_chunk().unwrap(), &ENTRIES).is_none());
    }
}
