//! One entry on its way into the log, and its effect once it is durable.
//!
//! Settling a batch publishes it to the index first, then frees keys and wakes their waiters: a
//! request that finds a key free finds its record. The queue needs no bound of its own, because
//! each command in it belongs to an operation in flight, and those are bounded. New keys wait while
//! the bytes in it are too many.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;
use crate::engine::core::Engine;
use crate::engine::digest::DigestKey;
use crate::engine::entry::Encoded;
use crate::engine::ledger::{Claims, OpenClaim, Reservation};
use crate::engine::log::{Change, Location, Log, check_of};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::record::{Completion, Record};
use crate::sync::{Mutex, Sender};
use crate::table::Hold;
use crate::ticket::Promise;

/// The callers' end of the writer.
#[derive(Debug, Clone)]
pub(crate) struct Queue(pub(crate) Sender<Command>);

/// A command to the writer.
pub(crate) enum Command {
    Commit(Box<Pending>),
    /// Freeze the active log, if the next one is prepared, and tell the reaper.
    Rotate,
    /// Commit the queued entries, and end.
    Stop,
}

/// An entry on its way into the log, with its effect once it is durable.
pub(crate) struct Pending {
    pub(crate) encoded: Encoded,
    /// Taken when the batch is settled.
    effect: Option<Effect>,
    /// Given back once the entry has its place in the log, or never gets one.
    pub(crate) room: Reservation,
    /// The error that the caller gets although the entry is written.
    denied: Option<Error>,
}

/// Consumes a claim that has become durable, or the error that prevented it.
pub(crate) type Granting = Box<dyn FnOnce(Result<Claimed>) + Send>;

/// The effect of an entry once it is durable.
///
/// Each variant has the promise that answers its caller. Those with a hold free the key.
pub(crate) enum Effect {
    Complete { hold: Hold, completion: Completion, promise: Promise<Record> },
    Claim { hold: Hold, claim: OpenClaim, verdict_room: Reservation, granting: Granting },
    Interrupt { hold: Hold, claim: OpenClaim, promise: Promise<()> },
    Release { hold: Hold, promise: Promise<()> },
    Checkpoint { address: Address, data: Bytes, promise: Promise<()> },
    Forget { hold: Hold, until: Moment, promise: Promise<()> },
}

/// A key whose claim is durable, with room reserved for its verdict.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) hold: Hold,
    pub(crate) claim: OpenClaim,
    pub(crate) room: Reservation,
}

impl Queue {
    /// Queues an entry. If the writer is gone, the entry fails.
    pub(crate) fn commit(&self, encoded: Encoded, mut room: Reservation, effect: Effect) {
        room.queue(encoded.bytes.len() as u64);
        // Dropping an unsent command fails it.
        let pending = Pending { encoded, effect: Some(effect), room, denied: None };
        let _ = self.0.send(Command::Commit(Box::new(pending)));
    }

    /// Asks the writer to make the prepared log the active one.
    pub(crate) fn rotate(&self) {
        // If the writer is gone, the store is closing.
        let _ = self.0.send(Command::Rotate);
    }

    /// Asks the writer to commit the queued entries, and to end.
    pub(crate) fn stop(&self) {
        let _ = self.0.send(Command::Stop);
    }
}

/// A batch that is durable.
pub(crate) struct Committed {
    pub(crate) log: Arc<Log>,
    pub(crate) at: Moment,
    pub(crate) items: Vec<(Box<Pending>, Location)>,
}

impl Committed {
    /// Applies the batch to the list of open claims.
    ///
    /// A first attempt takes the sequence of the batch, and every attempt its time.
    pub(crate) fn update_claims(&mut self, engine: &Engine, sequence: u64) {
        let mut claims = engine.ledger.claims.lock();
        for (pending, _) in &mut self.items {
            match pending.effect.as_mut() {
                Some(Effect::Claim { hold, claim, .. } | Effect::Interrupt { hold, claim, .. }) => {
                    claim.claimed_at = self.at;
                    if claim.attempt == 1 {
                        claim.first_sequence = sequence;
                        claims.insert_admitted(hold.address().clone(), claim.clone());
                    } else {
                        claims.insert(hold.address().clone(), claim.clone());
                    }
                }
                Some(Effect::Checkpoint { address, data, .. }) => {
                    claims.checkpoint(address, data.clone());
                }
                Some(
                    Effect::Complete { hold, .. }
                    | Effect::Release { hold, .. }
                    | Effect::Forget { hold, .. },
                ) => claims.remove(hold.address()),
                None => {}
            }
        }
    }

    /// Publishes the entries in the index of their log, and then, entry by entry, frees keys and
    /// wakes their waiters.
    ///
    /// The order matters: a request that finds a key free must find its record.
    pub(crate) fn settle(self) {
        let changes: Vec<Change> =
            self.items.iter().filter_map(|(pending, place)| pending.change(*place)).collect();
        self.log.publish(&changes);
        for (pending, _) in self.items {
            pending.succeed(self.at);
        }
    }
}

impl Pending {
    /// Returns the location of the entry at this offset of its log.
    pub(crate) fn location(&self, offset: u64, at: Moment) -> Location {
        let length = u32::try_from(self.encoded.bytes.len()).expect("entries are bounded");
        Location { offset, length, check: check_of(&self.encoded.digest), at }
    }

    /// Returns the change to the index, if the entry is a record or a forget.
    fn change(&self, location: Location) -> Option<Change> {
        match self.effect.as_ref()? {
            Effect::Complete { hold, .. } => {
                Some(Change { hash: hold.address().hash, location, hides_until: None })
            }
            Effect::Forget { hold, until, .. } => {
                let hides_until = Some(*until);
                Some(Change { hash: hold.address().hash, location, hides_until })
            }
            Effect::Claim { .. }
            | Effect::Interrupt { .. }
            | Effect::Release { .. }
            | Effect::Checkpoint { .. } => None,
        }
    }

    /// Records the operation without its response, and returns the bytes that this saves.
    pub(crate) fn leave_body_out(&mut self, digests: &DigestKey) -> usize {
        let Some(Effect::Complete { hold, completion, .. }) = &mut self.effect else { return 0 };
        if completion.response.take().is_none() {
            return 0;
        }
        let bare = Encoded::completion(digests, hold.address(), completion);
        std::mem::replace(&mut self.encoded, bare).bytes.len() - self.encoded.bytes.len()
    }

    /// Frees the key, and answers the caller. The entry is durable, and `at` is the time of its
    /// batch.
    fn succeed(mut self, at: Moment) {
        // First, so that a caller who goes on with the next key finds what this one had.
        self.room.give_back();
        match self.effect.take() {
            Some(Effect::Complete { hold, completion, promise }) => {
                let record = Record::at(completion, at);
                hold.answer(&record);
                promise.fulfil(self.denied.take().map_or(Ok(record), Err));
            }
            Some(Effect::Claim { hold, claim, verdict_room, granting }) => {
                granting(Ok(Claimed { hold, claim, room: verdict_room }));
            }
            Some(
                Effect::Release { hold, promise }
                | Effect::Interrupt { hold, promise, .. }
                | Effect::Forget { hold, promise, .. },
            ) => {
                hold.free();
                promise.fulfil(self.denied.take().map_or(Ok(()), Err));
            }
            Some(Effect::Checkpoint { promise, .. }) => promise.fulfil(Ok(())),
            None => {}
        }
    }

    /// Denies the caller of a verdict its acknowledgement, with this error, once it is written. Returns
    /// false for any other entry.
    pub(crate) fn deny(&mut self, error: &Error) -> bool {
        let has_run =
            matches!(self.effect, Some(Effect::Complete { .. } | Effect::Interrupt { .. }));
        self.denied = has_run.then(|| error.clone());
        has_run
    }

    /// Refuses the entry, of which nothing was written, and frees its key. A verdict of what has run is
    /// written, and [denied](Self::deny) instead.
    pub(crate) fn refuse(mut self, claims: &Mutex<Claims>, error: &Error) {
        match self.effect.take() {
            Some(Effect::Claim { hold, claim, granting, .. }) => {
                if claim.attempt == 1 {
                    claims.lock().take_back(hold.scope());
                }
                hold.free();
                granting(Err(error.clone()));
            }
            Some(Effect::Release { hold, promise } | Effect::Forget { hold, promise, .. }) => {
                hold.free();
                promise.fulfil(Err(error.clone()));
            }
            Some(Effect::Checkpoint { data, promise, .. }) => {
                claims.lock().take_back_checkpoint(data.len());
                promise.fulfil(Err(error.clone()));
            }
            ran => {
                self.effect = ran;
                self.fail_with(error);
            }
        }
    }

    /// Fails the entry, whose outcome is unknown: the key stays in flight, and its owner is told.
    pub(crate) fn fail(mut self, error: &Error) {
        self.fail_with(error);
    }

    /// Answers the caller with an error, and keeps the key in flight, because a retry could run
    /// twice.
    fn fail_with(&mut self, error: &Error) {
        match self.effect.take() {
            Some(Effect::Complete { hold, promise, .. }) => {
                hold.retain();
                promise.fulfil(Err(error.clone()));
            }
            Some(Effect::Claim { hold, granting, .. }) => {
                hold.retain();
                granting(Err(error.clone()));
            }
            Some(
                Effect::Release { hold, promise }
                | Effect::Interrupt { hold, promise, .. }
                | Effect::Forget { hold, promise, .. },
            ) => {
                hold.retain();
                promise.fulfil(Err(error.clone()));
            }
            Some(Effect::Checkpoint { promise, .. }) => promise.fulfil(Err(error.clone())),
            None => {}
        }
    }
}

/// Fails a command that never reached the writer because the writer is gone.
impl Drop for Pending {
    fn drop(&mut self) {
        self.fail_with(&Error::Stopped { source: None });
    }
}
