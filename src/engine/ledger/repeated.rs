//! The batches of the newest log that an opening repeats in a new one.
//!
//! | the newest log | repeated | the new log |
//! | --- | --- | --- |
//! | has one batch | that one | takes its place |
//! | is small, on a disk that is nearly full, and fits there | all of them | takes its place |
//! | otherwise | the last one | follows it |
//!
//! So on a disk that has no room for a log of the usual size further openings take no more than the first
//! ones did, however many there are.
//!
//! Invariant: `MANIFEST` lists the new log, and no longer the one whose place it takes, only once the
//! repeated batches are durable.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timeline;
use crate::engine::entry::{Encoded, End, Parts};
use crate::engine::log::{Batch, BatchBuilder, Frame, Identity, Log, PAGE, Tail};
use crate::error::Result;

use super::chain::{self, Found, Walked};
use super::rotation::start;

/// The most bytes of batches, the last one not counted, that are repeated to replace a log.
const REPLACED_BYTES: u64 = 64 * 1024;

/// The most bytes of a last batch behind which an opening writes no shorter one.
const SHORT_BYTES: u64 = 8 * PAGE;

/// The most bytes of a start entry in its batch, the batch's head included.
const START_BYTES: u64 = 512;

/// The batches with which a new log begins.
pub(super) struct Repeated {
    /// Oldest first; the last one may be on disk nowhere yet.
    batches: Vec<Batch>,
    /// The end of the log that the new one follows.
    follows: Option<End>,
    /// True if the new log takes the newest one's place.
    pub(super) replaces: bool,
    /// True if these batches hold every open claim, with its checkpoints.
    pub(super) holds_claims: bool,
}

impl Repeated {
    /// Decides which batches of the newest log are repeated, its `last` one among them. `claims` are
    /// those that have not expired, and `free` are the bytes that a log may take if the disk is nearly
    /// full.
    pub(super) fn of(newest: &Walked, last: Batch, claims: &[Found], free: Option<u64>) -> Self {
        let needed = newest.end.offset + last.span() + PAGE;
        let is_small = newest.end.offset <= PAGE + REPLACED_BYTES;
        let fits = is_small && free.is_some_and(|free| needed <= free);
        let earlier = if fits { earlier_batches(newest) } else { None };
        let is_alone = newest.end.offset == PAGE;
        let replaces = is_alone || earlier.is_some();
        let mut batches = earlier.unwrap_or_default();
        if is_empty(&last) {
            // Each opening may have left one, for the time in it.
            while batches.pop_if(|batch| is_empty(batch)).is_some() {}
        }
        batches.push(last);
        let follows = if replaces { newest.start } else { Some(newest.end) };
        let newest = newest.log.generation;
        let holds_claims = claims.iter().all(|found| replaces && found.oldest == newest);
        Self { batches, follows, replaces, holds_claims }
    }

    /// Returns true if the last of these batches has a time that the next boot may go on from, no older
    /// than `anchor_age`, and is short: the next opening repeats the last one, and that should not take
    /// much again.
    pub(super) fn has_time(&self, timeline: &Timeline, anchor_age: Duration) -> bool {
        let last = self.last().head.anchor;
        let is_short = self.last().span() <= SHORT_BYTES;
        is_short && timeline.may_keep(&last) && timeline.now().since(last.at) < anchor_age
    }

    /// Returns the bytes of these batches in a log.
    pub(super) fn bytes(&self) -> u64 {
        let entries = self.last().frames().map(|frame| frame.bytes.len() + Frame::OVERHEAD);
        let last = (entries.sum::<usize>() as u64 + START_BYTES).next_multiple_of(PAGE);
        last + self.batches.iter().rev().skip(1).map(Batch::span).sum::<u64>()
    }

    /// Appends the batches to a new log, with their times, and returns its end. They keep their
    /// sequences, except an empty one behind others that were left out.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) if they do not read back, and
    /// [`Error::Io`](crate::Error::Io).
    ///
    /// # Durability
    ///
    /// The batches are durable when this returns.
    pub(super) fn write(&self, log: Arc<Log>, store: Identity) -> Result<Tail> {
        let mut tail = Tail::new(log, self.follows.map_or(0, |end| end.sequence));
        for (number, batch) in self.batches.iter().enumerate() {
            let mut builder = BatchBuilder::new();
            if number == 0 {
                start(&store.entries, &mut builder, self.follows);
            }
            repeat(batch, &mut builder, &mut tail, store)?;
        }
        Ok(tail)
    }

    fn last(&self) -> &Batch {
        self.batches.last().expect("the last batch is always repeated")
    }
}

/// Returns true if the batch has nothing but its time, or the start of its log.
fn is_empty(batch: &Batch) -> bool {
    batch.frames().all(|frame| chain::is_start(&frame))
}

/// Reads the batches of the newest log before its last one; `None` if one of them is damaged or cannot
/// be read, or has a format in which they would take another space.
fn earlier_batches(newest: &Walked) -> Option<Vec<Batch>> {
    if !newest.log.is_current() {
        return None;
    }
    let (mut batches, mut offset) = (Vec::new(), PAGE);
    while offset < newest.end.offset {
        let batch = newest.log.batch_at(offset).ok().flatten().filter(Batch::is_whole)?;
        offset += batch.span();
        batches.push(batch);
    }
    Some(batches)
}

/// Appends a batch again, behind what is in `builder`.
fn repeat(
    original: &Batch,
    builder: &mut BatchBuilder,
    tail: &mut Tail,
    store: Identity,
) -> Result<()> {
    for frame in original.frames().filter(|frame| !chain::is_start(frame)) {
        let bytes = frame.bytes.to_vec();
        let (hash, digest) = if frame.is_whole {
            let hash = Parts::of(frame.bytes).map_or(0, |parts| parts.hash128(&store.uuid));
            (hash, store.entries.digest(&[frame.bytes]))
        } else {
            // A new digest would make a damaged entry a whole one.
            (frame.hash.unwrap_or_default(), frame.digest)
        };
        builder.push(&Encoded { bytes, digest, hash });
    }
    let offset = tail.append(builder, original.head.anchor)?;
    let damaged = |batch: &Batch| {
        let frames = batch.frames().filter(|frame| !chain::is_start(frame));
        frames.filter(|frame| !frame.is_whole).count()
    };
    let repeated = tail.log.batch_at(offset)?.filter(|batch| damaged(batch) == damaged(original));
    let repeated =
        repeated.ok_or_else(|| tail.log.broken("a repeated batch does not read back"))?;
    // Its claims were read with the log that it comes from.
    chain::enter(&tail.log, offset, &repeated, &mut Vec::new(), store.uuid)
}
