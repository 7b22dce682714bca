//! Rotation: the next log becomes the active one, and the claims without a verdict go along.
//!
//! Invariants:
//! - A log is sealed only once all open claims of it have been carried into a newer one.
//! - Once it is unknown which `MANIFEST` is on disk, no log is begun.

use std::sync::Arc;

use crate::clock::Anchor;
use crate::engine::digest::DigestKey;
use crate::engine::entry::{Encoded, End, Entry};
use crate::engine::log::{BatchBuilder, Frame, Frozen, PAGE, Tail};
use crate::error::Result;

use super::Ledger;
use super::chain::Found;
use super::held::Held;
use super::size::{CARRY_BYTES, usable};

impl Ledger {
    /// Makes the prepared log the active one and carries all open claims into it. Returns the log
    /// that was active, or nothing if no log is prepared. `asked` are the bytes that did not fit the
    /// active log, or none if it is frozen for its age.
    ///
    /// `batch` is the writer's buffer; its content is lost.
    ///
    /// # Errors
    ///
    /// After an error it is unknown what is on disk, and the store must stop.
    ///
    /// # Durability
    ///
    /// The new log's first batch, which names its predecessor's end, is durable when this returns.
    pub(crate) fn rotate(
        &self,
        tail: &mut Tail,
        batch: &mut BatchBuilder,
        asked: u64,
    ) -> Result<Option<Frozen>> {
        let taken = {
            let mut next = self.next.lock();
            // The next log may have been unlisted in favour of a larger one.
            self.expect_known_manifest()?;
            // From now on, all that is reserved is in the new log.
            let is_offered = self.space.has_next();
            next.take_if(|_| is_offered).inspect(|log| self.space.take_next(usable(log.size)))
        };
        let Some(log) = taken else { return Ok(None) };
        // Readers know the new log before anything can be published in it.
        self.update_snapshot(|snapshot| snapshot.logs.insert(0, Arc::clone(&log)));
        let end = tail.end();
        let old = std::mem::replace(tail, Tail::new(log, end.sequence));
        self.space.freeze(end.offset);
        self.note_load(&old.log, end, asked, tail.log.size);
        batch.clear();
        start(&self.digests, batch, Some(end));
        self.carry(tail, batch, self.timeline.anchor())?;
        *self.held.lock() = None;
        self.measure(tail);
        Ok(Some(Frozen::new(old.log, end)))
    }

    /// Holds the logs that have these claims, for which the log of the opening has no room.
    pub(super) fn hold(&self, claims: &[Found], tail: &Tail) {
        *self.held.lock() = Held::by(claims, tail.sequence);
    }

    /// Returns the logs that are held for the claims in them, if any are. A rotation ends that.
    pub(super) fn held(&self) -> Option<Held> {
        let held = (*self.held.lock())?;
        held.is_needed(&self.claims.lock(), self.timeline.now()).then_some(held)
    }

    /// Returns true if some open claims are not in the active log, and a rotation should carry them.
    pub(crate) fn holds_claims(&self) -> bool {
        self.held().is_some()
    }

    /// Appends the batch, and with it all open claims, in as many batches as they need. The last one is
    /// short.
    pub(super) fn carry(
        &self,
        tail: &mut Tail,
        batch: &mut BatchBuilder,
        anchor: Anchor,
    ) -> Result<()> {
        let claims: Vec<Vec<Encoded>> = {
            let mut claims = self.claims.lock();
            claims.expire(anchor.at);
            claims.iter().map(|(address, claim)| claim.encode(&self.digests, address)).collect()
        };
        for entries in claims {
            let bytes: usize =
                entries.iter().map(|entry| Frame::OVERHEAD + entry.bytes.len()).sum();
            if !batch.is_empty() && batch.span() + bytes as u64 > CARRY_BYTES {
                tail.append(batch, anchor)?;
                batch.clear();
            }
            // A claim and its checkpoints share a batch: half a copy would hide the other half.
            for entry in &entries {
                batch.push(entry);
            }
        }
        // The next opening repeats the last batch, and may have little room for that.
        let is_long = batch.span() > PAGE;
        tail.append(batch, anchor)?;
        batch.clear();
        if is_long {
            tail.append(batch, anchor)?;
        }
        batch.clear();
        Ok(())
    }
}

/// Adds the first entries of a log: twice the end of the log that it follows, because a store whose
/// logs do not form a chain cannot be opened.
pub(super) fn start(digests: &DigestKey, batch: &mut BatchBuilder, follows: Option<End>) {
    let encoded = Encoded::new(digests, None, &Entry::Start(follows));
    batch.push(&encoded);
    batch.push(&encoded);
}
