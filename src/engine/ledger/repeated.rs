//! The batches of the newest log that an opening repeats in a new one.
//!
//! | the newest log | repeated | the new log |
//! | --- | --- | --- |
//! | has one batch | that one | takes its place |
//! | is small, on a disk that is nearly full, and fits there | all of them | takes its place |
//! | otherwise | the last one | follows it |
//!
//! So an opening that finds no room for a log of the usual size, and a small log, leaves the disk no
//! fuller than it was, however often it is repeated.
//!
//! Invariant: `MANIFEST` lists the new log, and no longer the one whose place it takes, only once the
//! repeated batches are durable.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Anchor, Timeline};
use crate::engine::entry::{Encoded, End, Parts};
use crate::engine::log::{Batch, BatchBuilder, Frame, Identity, Log, PAGE, Tail};
use crate::error::Result;
use crate::key::Address;

use super::chain::{self, Walked};
use super::claims::OpenClaim;
use super::rotation::start;
use super::size::size_for;

/// The most bytes of batches, the last one not counted, that are repeated to replace a log.
const REPLACED_BYTES: u64 = 64 * 1024;

/// The most bytes of a start entry in its batch, the batch's head included.
const START_BYTES: u64 = 512;

/// The batches with which a new log begins.
pub(super) struct Repeated {
    /// Oldest first; the last one may be on disk nowhere yet.
    batches: Vec<Batch>,
    /// The end of the log that the new one follows.
    follows: Option<End>,
    /// Whether the new log takes the newest one's place.
    pub(super) replaces: bool,
    /// Whether these batches hold every open claim, with its checkpoints.
    holds_claims: bool,
}

impl Repeated {
    /// Decides which batches of the newest log are repeated, its `last` one among them. `free` are the
    /// bytes that are free on a disk that is nearly full.
    pub(super) fn of(
        newest: &Walked,
        last: Batch,
        claims: &[(Address, OpenClaim)],
        free: Option<u64>,
    ) -> Self {
        let carried: u64 = claims.iter().map(|(_, claim)| claim.carried_bytes()).sum();
        let needed = newest.end.offset + last.span() + size_for(carried);
        let is_small = newest.end.offset <= PAGE + REPLACED_BYTES;
        let fits = is_small && free.is_some_and(|free| needed <= free);
        let earlier = if fits { earlier_batches(newest) } else { None };
        let is_alone = newest.end.offset == PAGE;
        let replaces = is_alone || earlier.is_some();
        let mut batches = earlier.unwrap_or_default();
        batches.push(last);
        let follows = if replaces { newest.start } else { Some(newest.end) };
        let holds_claims = replaces && holds(newest, claims);
        Self { batches, follows, replaces, holds_claims }
    }

    /// Returns the time of the last batch.
    pub(super) fn anchor(&self) -> Anchor {
        self.last().head.anchor
    }

    /// Returns true if nothing need be carried behind these batches: the open claims are in them, and
    /// so is a time that the next boot may go on from, no older than `anchor_age`.
    pub(super) fn suffices(&self, timeline: &Timeline, anchor_age: Duration) -> bool {
        let last = self.anchor();
        self.holds_claims && timeline.may_keep(&last) && timeline.now().since(last.at) < anchor_age
    }

    /// Returns the bytes of a log that holds nothing but these batches, and `carried` bytes of claims
    /// behind them, if any are carried.
    pub(super) fn log_bytes(&self, carried: Option<u64>) -> u64 {
        let entries = self.last().frames().map(|frame| frame.bytes.len() + Frame::OVERHEAD);
        let last = (entries.sum::<usize>() as u64 + START_BYTES).next_multiple_of(PAGE);
        let earlier = self.batches.iter().rev().skip(1).map(Batch::span).sum::<u64>();
        carried.map_or(PAGE, size_for) + earlier + last
    }

    /// Appends the batches to a new log, under their sequences and with their times, and returns its
    /// end.
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
        let mut tail = Tail::new(log, self.batches[0].head.sequence - 1);
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

/// Returns true if the newest log has these claims, with all of their checkpoints.
fn holds(newest: &Walked, claims: &[(Address, OpenClaim)]) -> bool {
    let own: HashMap<Address, OpenClaim> =
        chain::open_claims(std::slice::from_ref(newest)).into_iter().collect();
    claims.iter().all(|(address, claim)| {
        own.get(address).is_some_and(|own| {
            own.attempt == claim.attempt && own.checkpoints.len() == claim.checkpoints.len()
        })
    })
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
