//! One entry on its way into the log, and what follows once it is durable.
//!
//! Settling publishes to the index first, then frees keys and wakes who waits: whoever finds a key
//! free finds its record. The queue needs no bound of its own, since each command in it belongs to
//! an operation in flight, and those are bounded.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;
use crate::engine::core::Engine;
use crate::engine::entry::{Encoded, Entry};
use crate::engine::ledger::{OpenClaim, Reservation};
use crate::engine::log::{Change, Location, Log, check_of};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::record::{Completion, Record};
use crate::sync::Sender;
use crate::table::Held;
use crate::ticket::Slot;

/// The callers' end of the writer.
#[derive(Debug, Clone)]
pub(crate) struct Queue(pub(crate) Sender<Command>);

pub(crate) enum Command {
    Commit(Box<Pending>),
    /// Freeze the active log, if a next one is prepared; the reaper hears of it.
    Rotate,
    /// Commit what is queued, and end.
    Stop,
}

/// An entry on its way into the log, with what follows once it is durable.
pub(crate) struct Pending {
    pub(crate) encoded: Encoded,
    /// Nothing once it is settled.
    effect: Option<Effect>,
    /// Given back when the entry has its place, or never gets one.
    pub(crate) room: Reservation,
}

/// Where the outcome of a commit goes.
pub(crate) type Outcome<T> = Arc<Slot<Result<T>>>;

pub(crate) enum Effect {
    Complete { held: Held, completion: Completion, outcome: Outcome<Record> },
    Claim { held: Held, claim: OpenClaim, verdict_room: Reservation, outcome: Outcome<Claimed> },
    Interrupt { held: Held, claim: OpenClaim, outcome: Outcome<()> },
    Release { held: Held, outcome: Outcome<()> },
    Checkpoint { address: Address, data: Bytes, outcome: Outcome<()> },
    Forget { held: Held, until: Moment, outcome: Outcome<()> },
}

/// A key whose claim is durable, with room for the verdict.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) held: Held,
    pub(crate) claim: OpenClaim,
    pub(crate) room: Reservation,
}

impl Queue {
    /// Queues an entry. If the writer is gone, its outcome says so.
    pub(crate) fn commit(&self, encoded: Encoded, room: Reservation, effect: Effect) {
        // Dropping what cannot be sent settles it.
        let pending = Pending { encoded, effect: Some(effect), room };
        let _ = self.0.send(Command::Commit(Box::new(pending)));
    }

    pub(crate) fn rotate(&self) {
        // If the writer is gone, the store is closing.
        let _ = self.0.send(Command::Rotate);
    }

    pub(crate) fn stop(&self) {
        let _ = self.0.send(Command::Stop);
    }

    /// Takes back a claim whose permit nobody took. A first attempt ran nothing, so the key becomes
    /// free; a later one leaves it interrupted, since nobody knows what the earlier ones did.
    pub(crate) fn release_unused(&self, claimed: Claimed) {
        let Claimed { held, claim, room } = claimed;
        if claim.attempt > 1 {
            return;
        }
        let encoded = Encoded::new(Some(held.address()), &Entry::Release);
        self.commit(encoded, room, Effect::Release { held, outcome: Arc::new(Slot::new()) });
    }
}

/// A batch that is durable.
pub(crate) struct Committed {
    pub(crate) log: Arc<Log>,
    pub(crate) at: Moment,
    pub(crate) items: Vec<(Box<Pending>, Location)>,
}

impl Committed {
    pub(crate) fn update_claims(&mut self, engine: &Engine, sequence: u64) {
        let mut claims = engine.ledger.claims.lock();
        for (pending, _) in &mut self.items {
            match pending.effect.as_mut() {
                Some(Effect::Claim { held, claim, .. } | Effect::Interrupt { held, claim, .. }) => {
                    claim.claimed_at = self.at;
                    if claim.attempt == 1 {
                        claim.first_sequence = sequence;
                        claims.insert_admitted(held.address().clone(), claim.clone());
                    } else {
                        claims.insert(held.address().clone(), claim.clone());
                    }
                }
                Some(Effect::Checkpoint { address, data, .. }) => {
                    claims.checkpoint(address, data.clone());
                }
                Some(
                    Effect::Complete { held, .. }
                    | Effect::Release { held, .. }
                    | Effect::Forget { held, .. },
                ) => claims.remove(held.address()),
                None => {}
            }
        }
    }

    /// Publishes, then frees keys and wakes.
    pub(crate) fn settle(self, queue: &Queue) {
        let changes: Vec<Change> =
            self.items.iter().filter_map(|(pending, place)| pending.change(*place)).collect();
        self.log.publish(&changes);
        for (pending, _) in self.items {
            pending.succeed(self.at, queue);
        }
    }
}

impl Pending {
    pub(crate) fn location(&self, offset: u64, at: Moment) -> Location {
        let length = u32::try_from(self.encoded.bytes.len()).expect("entries are bounded");
        Location { offset, length, check: check_of(&self.encoded.digest), at }
    }

    fn change(&self, location: Location) -> Option<Change> {
        match self.effect.as_ref()? {
            Effect::Complete { held, .. } => {
                Some(Change { hash: held.address().hash, location, hides_until: None })
            }
            Effect::Forget { held, until, .. } => {
                let hides_until = Some(*until);
                Some(Change { hash: held.address().hash, location, hides_until })
            }
            Effect::Claim { .. }
            | Effect::Interrupt { .. }
            | Effect::Release { .. }
            | Effect::Checkpoint { .. } => None,
        }
    }

    /// Records the operation without its response, and says how many bytes that saves.
    pub(crate) fn leave_body_out(&mut self) -> usize {
        let Some(Effect::Complete { held, completion, .. }) = &mut self.effect else { return 0 };
        if completion.response.take().is_none() {
            return 0;
        }
        let bare = Encoded::completion(held.address(), completion);
        std::mem::replace(&mut self.encoded, bare).bytes.len() - self.encoded.bytes.len()
    }

    fn succeed(mut self, at: Moment, queue: &Queue) {
        match self.effect.take() {
            Some(Effect::Complete { held, completion, outcome }) => {
                let record = Record::new(completion, at);
                held.settle(&record);
                deliver(&outcome, Ok(record));
            }
            Some(Effect::Claim { held, claim, verdict_room, outcome }) => {
                let claimed = Claimed { held, claim, room: verdict_room };
                if let Some(Ok(claimed)) = deliver(&outcome, Ok(claimed)) {
                    queue.release_unused(claimed);
                }
            }
            Some(
                Effect::Release { held, outcome }
                | Effect::Interrupt { held, outcome, .. }
                | Effect::Forget { held, outcome, .. },
            ) => {
                drop(held);
                deliver(&outcome, Ok(()));
            }
            Some(Effect::Checkpoint { outcome, .. }) => {
                deliver(&outcome, Ok(()));
            }
            None => {}
        }
    }

    /// The outcome is unknown: the key stays locked, and whoever waits is told.
    pub(crate) fn fail(mut self, error: &Error) {
        self.fail_with(error);
    }

    fn fail_with(&mut self, error: &Error) {
        match self.effect.take() {
            Some(Effect::Complete { held, outcome, .. }) => {
                held.keep();
                deliver(&outcome, Err(error.clone()));
            }
            Some(Effect::Claim { held, outcome, .. }) => {
                held.keep();
                deliver(&outcome, Err(error.clone()));
            }
            Some(
                Effect::Release { held, outcome }
                | Effect::Interrupt { held, outcome, .. }
                | Effect::Forget { held, outcome, .. },
            ) => {
                held.keep();
                deliver(&outcome, Err(error.clone()));
            }
            Some(Effect::Checkpoint { outcome, .. }) => {
                deliver(&outcome, Err(error.clone()));
            }
            None => {}
        }
    }
}

/// A command that the writer never saw, because it is gone, is settled all the same.
impl Drop for Pending {
    fn drop(&mut self) {
        self.fail_with(&Error::Stopped { source: None });
    }
}

/// Fills the slot and wakes who waits for it; the value comes back if nobody will take it.
pub(crate) fn deliver<T>(outcome: &Slot<Result<T>>, value: Result<T>) -> Option<Result<T>> {
    match outcome.fill(value) {
        Ok(waker) => {
            if let Some(waker) = waker {
                waker.wake();
            }
            None
        }
        Err(value) => Some(value),
    }
}
