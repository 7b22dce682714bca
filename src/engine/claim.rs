//! A key claimed in the embedded engine: [`Claim`] over its log.
//!
//! | claim | on the disk | dropped without a verdict |
//! | --- | --- | --- |
//! | volatile | nothing | the key is free |
//! | durable | an entry, before the operation runs | the key is interrupted |
//!
//! Invariants:
//! - Room for the verdict is reserved before the operation runs, so that neither a full disk nor a
//!   backlog keeps a verdict out. A new key may have to wait for it.
//! - The hold on the key is freed by the settler, after the verdict is durable and published.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use crate::backend::{self, Answer, Asked, Delayed, Granted, Past};
use crate::clock::{Moment, millis};
use crate::engine::commit::{Claimed, Effect, Granting, Queue};
use crate::engine::core::Engine;
use crate::engine::digest::DigestKey;
use crate::engine::entry::{self, Encoded, Entry};
use crate::engine::ledger::{Admission, MAX_KEY_PAGES, OpenClaim, Reservation, Turn};
use crate::engine::log::PAGE;
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::key::Scope;
use crate::record::Record;
use crate::table::Hold;
use crate::ticket::Ticket;

/// The engine as a claim sees it: its state, and the queue to its writer.
pub(crate) struct Desk {
    pub(crate) engine: Arc<Engine>,
    pub(crate) queue: Queue,
}

/// A key that was claimed, in memory or in the log.
///
/// Dropped, it drops its hold: a volatile key is then free, and a durable one interrupted, because
/// the ledger still lists its claim.
pub(crate) struct Claim {
    desk: Arc<Desk>,
    hold: Hold,
    /// Room for the verdict. A claim that was found interrupted reserves it when it is judged.
    room: Option<Reservation>,
    past: Past,
    ttl: Duration,
    /// The batch that held the first attempt, if the claim is durable.
    first_sequence: Option<u64>,
}

impl Desk {
    /// Claims a free key for an operation: in memory, or durably by one commit. Without room for the
    /// verdict, and for the durable claim before it, the answer is a wait.
    pub(crate) fn claim(self: &Arc<Self>, asked: Asked, hold: Hold) -> Ticket<Answer> {
        let pages = if asked.durable { MAX_KEY_PAGES } else { 1 };
        match self.admit(hold.scope(), pages) {
            Err(error) => {
                self.engine.watch();
                Ticket::ready(Err(error))
            }
            Ok(Admission::Granted(room)) => self.claim_in(room, asked, hold),
            Ok(Admission::Queued(turn)) => {
                let desk = Arc::clone(self);
                let turn = in_turn(turn, move |room| match desk.expect_room(hold.scope()) {
                    Ok(()) => desk.claim_in(room, asked, hold),
                    Err(error) => Ticket::ready(Err(error)),
                });
                let delayed = Delayed { turn, refused: Error::Behind };
                Ticket::ready(Ok(Answer::Delayed(Box::new(delayed))))
            }
        }
    }

    /// Asks for room for a new key.
    ///
    /// # Errors
    ///
    /// Those of [`expect_room`](Self::expect_room), and of
    /// [`Ledger::admit`](crate::engine::ledger::Space::admit).
    fn admit(&self, scope: Scope, pages: u64) -> Result<Admission> {
        self.expect_room(scope)?;
        self.queue_for_room(scope, pages)
    }

    /// Asks for room. If a larger log is what it takes, the caller prepares it, also for all others
    /// that wait.
    fn queue_for_room(&self, scope: Scope, pages: u64) -> Result<Admission> {
        let space = &self.engine.ledger.space;
        let admission = space.admit(scope, pages)?;
        if matches!(admission, Admission::Queued(_)) && space.is_short(0) {
            self.prepare(0);
        }
        Ok(admission)
    }

    /// Reserves a page for an entry of an operation that was admitted before, and further pages for
    /// `content` bytes. If a larger log is what it takes, the caller prepares it.
    ///
    /// # Errors
    ///
    /// Those of [`Space::reserve`](crate::engine::ledger::Space::reserve).
    fn reserve(&self, content: u64) -> Result<Reservation> {
        let space = &self.engine.ledger.space;
        let bytes = PAGE + content.next_multiple_of(PAGE);
        if space.is_short(bytes) {
            self.prepare(bytes);
        }
        space.reserve(content)
    }

    /// Prepares a next log with so much room, if it can be.
    fn prepare(&self, bytes: u64) {
        // The reaper reports a transient error when it tries again.
        if let Err(Trouble::Fatal(error)) = self.engine.ledger.prepare_at_once(bytes) {
            self.engine.fail(error);
        }
    }

    /// Checks that there is a place for a claim: the outcome of an operation may turn out unknown,
    /// and then its verdict is a durable claim.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if there are as many as may be.
    fn expect_room(&self, scope: Scope) -> Result<()> {
        self.engine.ledger.expect_room_for_claim(scope)
    }

    /// Claims a free key, with room for it.
    fn claim_in(self: &Arc<Self>, room: Reservation, asked: Asked, hold: Hold) -> Ticket<Answer> {
        if asked.durable {
            return self.claim_durably(room, asked, hold);
        }
        let past = Past::first(&asked, &hold);
        let (desk, room, ttl) = (Arc::clone(self), Some(room), asked.ttl);
        let claim = Claim { desk, hold, room, past, ttl, first_sequence: None };
        Ticket::ready(Ok(Answer::Claimed(Granted::new(Box::new(claim)))))
    }

    /// Claims a free key by a commit, and answers once the claim is durable.
    fn claim_durably(
        self: &Arc<Self>,
        room: Reservation,
        asked: Asked,
        hold: Hold,
    ) -> Ticket<Answer> {
        let Asked { fingerprint, request_id, ttl, .. } = asked;
        let now = self.engine.ledger.timeline.now();
        let claim = OpenClaim::first(fingerprint, request_id, ttl, now);
        let (ticket, promise) = Ticket::new();
        let desk = Arc::clone(self);
        let granting: Granting = Box::new(move |claimed| {
            promise.fulfil(claimed.map(|claimed| {
                Answer::Claimed(Granted::new(Box::new(Claim::durable(desk, claimed))))
            }));
        });
        self.commit_claim(room, claim, hold, granting);
        ticket
    }

    /// Commits a forget, once there is room for it.
    pub(crate) fn forget(self: &Arc<Self>, hold: Hold, until: Moment) -> Ticket<()> {
        let desk = Arc::clone(self);
        let scope = hold.scope();
        let commit = move |room| {
            let encoded =
                Encoded::new(desk.digests(), Some(hold.address()), &Entry::Forget(until.0));
            let (ticket, promise) = Ticket::new();
            desk.queue.commit(encoded, room, Effect::Forget { hold, until, promise });
            ticket
        };
        match self.queue_for_room(scope, 1) {
            Err(error) => Ticket::ready(Err(error)),
            Ok(Admission::Granted(room)) => commit(room),
            Ok(Admission::Queued(turn)) => in_turn(turn, commit).unnest(),
        }
    }

    /// Returns the key of the store's digests.
    fn digests(&self) -> &DigestKey {
        &self.engine.ledger.digests
    }

    /// Returns the entry of a claim. A first attempt gets its sequence from its batch.
    fn encode(&self, hold: &Hold, claim: &OpenClaim) -> Encoded {
        let entry = Entry::Claim(entry::Claim {
            fingerprint: *claim.fingerprint.as_bytes(),
            request_id: claim.request_id.as_str(),
            ttl_ms: millis(claim.ttl),
            attempt: claim.attempt,
            first_sequence: (claim.attempt > 1).then_some(claim.first_sequence),
            claimed_at: None,
        });
        Encoded::new(self.digests(), Some(hold.address()), &entry)
    }

    /// Checks that the writer is in this process: what is queued elsewhere stays there.
    fn expect_writer(&self) -> Result<()> {
        if self.engine.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }

    /// Returns the claim of a run that was interrupted, with a new hold on its key.
    pub(crate) fn interrupted(self: &Arc<Self>, claim: OpenClaim, hold: Hold) -> Claim {
        Claim::over(Arc::clone(self), hold, claim, None)
    }

    /// Commits a claim, in the first page of its room; the second is for the verdict. The batch gives
    /// a first attempt its sequence.
    fn commit_claim(
        &self,
        mut room: Reservation,
        claim: OpenClaim,
        hold: Hold,
        granting: Granting,
    ) {
        let admitted = self.expect_writer().and_then(|()| match claim.attempt {
            1 => self.engine.ledger.claims.lock().admit(hold.scope()),
            _ => Ok(()),
        });
        match admitted {
            Ok(()) => {
                let encoded = self.encode(&hold, &claim);
                let verdict_room = room.split();
                let effect = Effect::Claim { hold, claim, verdict_room, granting };
                self.queue.commit(encoded, room, effect);
            }
            Err(error) => {
                drop(hold);
                granting(Err(error));
            }
        }
    }
}

impl Claim {
    /// Returns the claim of an entry that has become durable.
    fn durable(desk: Arc<Desk>, claimed: Claimed) -> Self {
        let Claimed { hold, claim, room } = claimed;
        Self::over(desk, hold, claim, Some(room))
    }

    /// Returns a claim over an entry of the log, with or without room for its verdict.
    fn over(desk: Arc<Desk>, hold: Hold, claim: OpenClaim, room: Option<Reservation>) -> Self {
        let OpenClaim { ttl, first_sequence, .. } = claim;
        let past = claim.into_past(hold.address(), &desk.engine.ledger.uuid);
        Self { desk, hold, room, past, ttl, first_sequence: Some(first_sequence) }
    }

    /// Commits a verdict, in the room that was reserved for it.
    fn commit<T>(
        self,
        encoded: Encoded,
        effect: impl FnOnce(Hold) -> (Ticket<T>, Effect),
    ) -> Ticket<T> {
        let room = self.desk.expect_writer().and_then(|()| match self.room {
            Some(room) => Ok(room),
            None => self.desk.reserve(0),
        });
        match room {
            Ok(room) => {
                let (ticket, effect) = effect(self.hold);
                self.desk.queue.commit(encoded, room, effect);
                ticket
            }
            Err(error) => {
                // Nothing was recorded, so the run stays interrupted.
                self.hold.free();
                Ticket::ready(Err(error))
            }
        }
    }

    /// Reserves room for a checkpoint, and counts it against the limits.
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`], [`Error::Limit`] or [`Error::Forked`], and those of
    /// [`Space::reserve`](crate::engine::ledger::Space::reserve).
    fn admit_checkpoint(&self, bytes: usize) -> Result<Reservation> {
        self.desk.expect_writer()?;
        let ledger = &self.desk.engine.ledger;
        let room = self.desk.reserve(bytes as u64)?;
        ledger.claims.lock().admit_checkpoint(bytes)?;
        Ok(room)
    }
}

impl backend::Claim for Claim {
    fn past(&self) -> &Past {
        &self.past
    }

    fn hold(&mut self) -> &mut Hold {
        &mut self.hold
    }

    fn complete(self: Box<Self>, response: Option<Response<Bytes>>) -> Ticket<Record> {
        let completion = self.past.completion(self.ttl, response);
        let encoded = Encoded::completion(self.desk.digests(), self.hold.address(), &completion);
        self.commit(encoded, |hold| {
            let (ticket, promise) = Ticket::new();
            (ticket, Effect::Complete { hold, completion, promise })
        })
    }

    fn release(self: Box<Self>) -> Ticket<()> {
        if self.first_sequence.is_none() {
            drop(self);
            return Ticket::ready(Ok(()));
        }
        let encoded = Encoded::new(self.desk.digests(), Some(self.hold.address()), &Entry::Release);
        self.commit(encoded, |hold| {
            let (ticket, promise) = Ticket::new();
            (ticket, Effect::Release { hold, promise })
        })
    }

    fn interrupt(self: Box<Self>) -> Ticket<()> {
        if self.first_sequence.is_some() {
            self.hold.free();
            return Ticket::ready(Ok(()));
        }
        let ledger = &self.desk.engine.ledger;
        if let Err(error) = ledger.claims.lock().admit_unknown(self.past.scope) {
            self.hold.retain();
            return Ticket::ready(Err(error));
        }
        let Past { fingerprint, ref request_id, .. } = self.past;
        let now = ledger.timeline.now();
        let claim = OpenClaim::first(fingerprint, request_id.clone(), self.ttl, now);
        let encoded = self.desk.encode(&self.hold, &claim);
        self.commit(encoded, |hold| {
            let (ticket, promise) = Ticket::new();
            (ticket, Effect::Interrupt { hold, claim, promise })
        })
    }

    fn checkpoint(&mut self, data: Bytes) -> Ticket<()> {
        let room = match self.admit_checkpoint(data.len()) {
            Ok(room) => room,
            Err(error) => return Ticket::ready(Err(error)),
        };
        self.past.checkpoints.push(data.clone());
        let address = self.hold.address().clone();
        let encoded = Encoded::new(self.desk.digests(), Some(&address), &Entry::Checkpoint(&data));
        let (ticket, promise) = Ticket::new();
        self.desk.queue.commit(encoded, room, Effect::Checkpoint { address, data, promise });
        ticket
    }

    fn retry(self: Box<Self>, asked: Asked) -> Ticket<Box<dyn backend::Claim>> {
        let Self { desk, hold, past, first_sequence, .. } = *self;
        let Some(first_sequence) = first_sequence else {
            return Ticket::ready(Err(Error::Volatile));
        };
        let claim = OpenClaim {
            fingerprint: past.fingerprint,
            request_id: asked.request_id,
            ttl: asked.ttl,
            attempt: past.attempt.saturating_add(1),
            first_sequence,
            claimed_at: desk.engine.ledger.timeline.now(),
            checkpoints: past.checkpoints,
        };
        let room = match desk.reserve(PAGE) {
            Ok(room) => room,
            Err(error) => return Ticket::ready(Err(error)),
        };
        let (ticket, promise) = Ticket::new();
        let next = Arc::clone(&desk);
        let granting: Granting = Box::new(move |claimed| {
            promise.fulfil(claimed.map(|claimed| -> Box<dyn backend::Claim> {
                Box::new(Self::durable(next, claimed))
            }));
        });
        desk.commit_claim(room, claim, hold, granting);
        ticket
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("request_id", &self.past.request_id)
            .field("attempt", &self.past.attempt)
            .finish_non_exhaustive()
    }
}

/// Returns a ticket that is ready when the turn has come and `then` has used the room.
fn in_turn<T: 'static>(
    mut turn: Box<Turn>,
    then: impl FnOnce(Reservation) -> T + Send + 'static,
) -> Ticket<T> {
    let mut then = Some(then);
    Ticket::polling(move |cx| {
        turn.poll(cx).map(|room| {
            let then = then.take().expect("polled after the outcome was taken");
            room.map(then)
        })
    })
}
