//! What the owner of a key holds: a [`Permit`] to run, or an interrupted [`Attempt`] to judge.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use sha2::{Digest, Sha256};

use crate::clock::millis;
use crate::engine::commit::{Claimed, Effect};
use crate::engine::entry::{Claim, Encoded, Entry};
use crate::engine::ledger::{OpenClaim, Reservation};
use crate::error::{Error, Result};
use crate::key::{Fingerprint, Key, RequestId, Scope};
use crate::observe;
use crate::record::{Completion, Record, fits};
use crate::store::Inner;
use crate::table::Held;
use crate::ticket::{Slot, Ticket, block_on};

/// The right to run an operation, and the duty to say how it ended.
///
/// A verdict ends it: [`complete`](Self::complete) or [`release`](Self::release). Dropped without
/// one, as by a panic or an early return, a volatile operation frees its key, and the next request
/// runs; a durable one leaves it interrupted, and the next request is told.
#[must_use = "dropping a permit gives the key to the next request"]
pub struct Permit {
    store: Arc<Inner>,
    held: Held,
    room: Reservation,
    fingerprint: Fingerprint,
    request_id: RequestId,
    ttl: Duration,
    /// The durable claim behind it, if the operation has one.
    claim: Option<OpenClaim>,
}

impl Permit {
    pub(crate) fn volatile(store: Arc<Inner>, held: Held, room: Reservation, facts: Facts) -> Self {
        let Facts { fingerprint, request_id, ttl } = facts;
        Self { store, held, room, fingerprint, request_id, ttl, claim: None }
    }

    fn durable(store: Arc<Inner>, claimed: Claimed) -> Self {
        let Claimed { held, claim, room } = claimed;
        let OpenClaim { fingerprint, ttl, ref request_id, .. } = claim;
        let request_id = request_id.clone();
        Self { store, held, room, fingerprint, request_id, ttl, claim: Some(claim) }
    }

    /// Records the response as the operation's, for as long as its TTL.
    ///
    /// A response over the store's limits is recorded as done without it, and so is one whose body
    /// finds no room on a full disk: the operation never runs again, and
    /// [`Record::response`] is `None`. [`Trailers`](crate::record::Trailers) are taken from the extensions.
    ///
    /// # Durability
    ///
    /// Once the ticket is settled the record survives a kill, a crash of the system and a power cut.
    /// Send no byte of the response before.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`]: whether the record is durable is unknown until the store is reopened, and
    /// the key stays locked until then.
    pub fn complete(self, response: &Response<Bytes>) -> Ticket<Record> {
        let kept = fits(response, self.store.max_response_bytes).then(|| response.clone());
        self.finish(kept)
    }

    /// Records that the operation is done, without a response to replay.
    ///
    /// For a response that is streamed. Durability and errors are those of
    /// [`complete`](Self::complete).
    pub fn complete_without_response(self) -> Ticket<Record> {
        self.finish(None)
    }

    fn finish(self, response: Option<Response<Bytes>>) -> Ticket<Record> {
        observe::ended(if response.is_some() { "stored" } else { "without_response" });
        let Self { store, held, room, fingerprint, request_id, ttl, .. } = self;
        let completion = Completion { fingerprint, request_id, ttl, response };
        let encoded = Encoded::completion(held.address(), &completion);
        let (ticket, outcome) = Ticket::new();
        store.queue.commit(encoded, room, Effect::Complete { held, completion, outcome });
        ticket
    }

    /// Frees the key, since nothing happened: the next request runs.
    ///
    /// # Durability
    ///
    /// A durable claim is gone for good once the ticket is settled. A volatile one leaves nothing
    /// behind, and its ticket is settled at once.
    pub fn release(self) -> Ticket<()> {
        observe::ended("released");
        let Self { store, held, room, claim, .. } = self;
        match claim {
            Some(_) => release_durably(&store, held, room),
            None => {
                drop(held);
                Ticket::ready(Ok(()))
            }
        }
    }

    /// Gives up the key without knowing what happened: it becomes interrupted, also if its claim was
    /// volatile, and the next request is told.
    ///
    /// # Durability
    ///
    /// Once the ticket is settled that survives a kill, a crash of the system and a power cut.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] for the store's durable claims, [`Error::Full`] or [`Error::Stopped`]; the key
    /// then stays claimed for as long as the process lives.
    pub fn interrupt(self) -> Ticket<()> {
        observe::ended("interrupted");
        if self.claim.is_some() {
            drop(self);
            return Ticket::ready(Ok(()));
        }
        let Self { store, held, room, fingerprint, request_id, ttl, .. } = self;
        let ledger = &store.engine.ledger;
        if let Err(error) = ledger.claims.lock().admit(held.address().scope) {
            held.keep();
            return Ticket::ready(Err(error));
        }
        let claim = OpenClaim::first(fingerprint, request_id, ttl, ledger.timeline.now());
        let encoded = encode_claim(&held, &claim);
        let (ticket, outcome) = Ticket::new();
        store.queue.commit(encoded, room, Effect::Interrupt { held, claim, outcome });
        ticket
    }

    /// Gives up the key without a word, where what happens next is not for this process to say. A
    /// volatile one stays claimed for as long as the process lives; a durable one is interrupted.
    #[cfg(feature = "server")]
    pub(crate) fn abandon(self) {
        if self.claim.is_none() {
            self.held.keep();
        }
    }

    /// Stores a recovery point, which an [`Attempt`] hands back if this run is interrupted.
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`] if the operation is not durable; [`Error::Limit`] over
    /// 16 checkpoints, 16 KiB for one, or the store's bound for all; [`Error::Full`].
    pub fn checkpoint(&mut self, data: impl Into<Bytes>) -> Ticket<()> {
        let data = data.into();
        let room = match self.admit_checkpoint(&data) {
            Ok(room) => room,
            Err(error) => return Ticket::ready(Err(error)),
        };
        let claim = self.claim.as_mut().expect("only durable operations are admitted");
        claim.checkpoints.push(data.clone());
        let address = self.held.address().clone();
        let encoded = Encoded::new(Some(&address), &Entry::Checkpoint(&data));
        let (ticket, outcome) = Ticket::new();
        self.store.queue.commit(encoded, room, Effect::Checkpoint { address, data, outcome });
        ticket
    }

    fn admit_checkpoint(&self, data: &Bytes) -> Result<Reservation> {
        let ledger = &self.store.engine.ledger;
        let Some(claim) = &self.claim else { return Err(Error::Volatile) };
        let room = ledger.space.reserve(data.len() as u64)?;
        ledger.claims.lock().admit_checkpoint(claim.checkpoints.len(), data.len())?;
        Ok(room)
    }

    /// A key to hand to the next service: stable over attempts and restarts, and new once this
    /// operation's key is free again, released or expired.
    ///
    /// # Errors
    ///
    /// [`Error::Volatile`] if the operation is not durable.
    pub fn downstream_key(&self, label: &str) -> Result<Key> {
        let claim = self.claim.as_ref().ok_or(Error::Volatile)?;
        Ok(downstream_key(&self.store, &self.held, claim, label))
    }

    /// Which run of the operation this is, counted from 1. A volatile one is always the first.
    pub fn attempt(&self) -> u32 {
        self.claim.as_ref().map_or(1, |claim| claim.attempt)
    }

    /// The recovery points of earlier attempts and of this one, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        self.claim.as_ref().map_or(&[], |claim| &claim.checkpoints)
    }

    /// The client's key.
    pub fn key(&self) -> &Key {
        &self.held.address().key
    }

    /// The request that holds the permit.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("request_id", &self.request_id)
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

/// An earlier run that was claimed durably and then interrupted: nobody knows what it did.
///
/// Say what you find out: [`complete`](Self::complete) it, [`release`](Self::release) it if it did
/// nothing, or [`retry`](Self::retry) it. Dropped, it stays interrupted.
#[must_use = "an interrupted attempt stays interrupted until it is judged"]
pub struct Attempt {
    store: Arc<Inner>,
    held: Held,
    claim: OpenClaim,
    facts: Facts,
}

/// What the operation at hand says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) request_id: RequestId,
    pub(crate) ttl: Duration,
}

impl Attempt {
    pub(crate) fn new(store: Arc<Inner>, held: Held, claim: OpenClaim, facts: Facts) -> Self {
        Self { store, held, claim, facts }
    }

    /// The client's key.
    pub fn key(&self) -> &Key {
        &self.held.address().key
    }

    /// The request that was interrupted.
    pub fn request_id(&self) -> &RequestId {
        &self.claim.request_id
    }

    /// Which run of the operation it was, counted from 1.
    pub fn number(&self) -> u32 {
        self.claim.attempt
    }

    /// The recovery points that were stored, oldest first.
    pub fn checkpoints(&self) -> &[Bytes] {
        &self.claim.checkpoints
    }

    /// The key that this operation hands to the next service under a label.
    pub fn downstream_key(&self, label: &str) -> Key {
        downstream_key(&self.store, &self.held, &self.claim, label)
    }

    /// Runs the operation again, as the next attempt, once that is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] or [`Error::Stopped`].
    pub fn retry(self) -> Retry {
        let Self { store, held, claim, facts } = self;
        // The fingerprint is the claim's, or it would be a conflict.
        let Facts { request_id, ttl, .. } = facts;
        let attempt = claim.attempt.saturating_add(1);
        let claim = OpenClaim { request_id, ttl, attempt, ..claim };
        Retry(Claiming::start(store, held, claim))
    }

    /// Records that the interrupted run had this response after all.
    ///
    /// Durability and errors are those of [`Permit::complete`].
    pub fn complete(self, response: &Response<Bytes>) -> Ticket<Record> {
        match self.into_permit() {
            Ok(permit) => permit.complete(response),
            Err(error) => Ticket::ready(Err(error)),
        }
    }

    /// Records that the interrupted run took effect, but that its response is lost.
    pub fn complete_without_response(self) -> Ticket<Record> {
        match self.into_permit() {
            Ok(permit) => permit.complete_without_response(),
            Err(error) => Ticket::ready(Err(error)),
        }
    }

    /// Records that the interrupted run did nothing, and frees the key, durably.
    pub fn release(self) -> Ticket<()> {
        match self.into_permit() {
            Ok(permit) => permit.release(),
            Err(error) => Ticket::ready(Err(error)),
        }
    }

    fn into_permit(self) -> Result<Permit> {
        let room = self.store.engine.ledger.space.reserve(0)?;
        let claimed = Claimed { held: self.held, claim: self.claim, room };
        Ok(Permit::durable(self.store, claimed))
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("request_id", self.request_id())
            .field("number", &self.number())
            .finish_non_exhaustive()
    }
}

/// A permit for another attempt, once that is durable: a future, with [`wait`](Self::wait) for
/// threads without a runtime.
#[must_use = "the permit comes with the ticket"]
#[derive(Debug)]
pub struct Retry(Claiming);

impl Retry {
    /// Blocks this thread until the attempt is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] or [`Error::Stopped`].
    pub fn wait(self) -> Result<Permit> {
        block_on(self)
    }
}

impl Future for Retry {
    type Output = Result<Permit>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Permit>> {
        self.0.poll(cx)
    }
}

/// A claim on its way to being durable. Given up, a first one is taken back, since nothing was run; a
/// later one stands, and leaves the key interrupted as it was.
pub(crate) struct Claiming {
    store: Arc<Inner>,
    outcome: Option<Arc<Slot<Result<Claimed>>>>,
    refused: Option<Error>,
}

impl Claiming {
    /// Claims a key durably; the batch it comes into decides its first sequence, if it is the first.
    pub(crate) fn start(store: Arc<Inner>, held: Held, claim: OpenClaim) -> Self {
        match Self::admit(&store, held.address().scope, &claim) {
            Ok((claim_room, verdict_room)) => {
                let encoded = encode_claim(&held, &claim);
                let outcome = Arc::new(Slot::new());
                let effect =
                    Effect::Claim { held, claim, verdict_room, outcome: Arc::clone(&outcome) };
                store.queue.commit(encoded, claim_room, effect);
                Self { store, outcome: Some(outcome), refused: None }
            }
            Err(error) => Self { store, outcome: None, refused: Some(error) },
        }
    }

    fn admit(store: &Inner, scope: Scope, claim: &OpenClaim) -> Result<(Reservation, Reservation)> {
        let ledger = &store.engine.ledger;
        let rooms = (ledger.space.reserve(0)?, ledger.space.reserve(0)?);
        if claim.attempt == 1 {
            ledger.claims.lock().admit(scope)?;
        }
        Ok(rooms)
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Permit>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Err(error));
        }
        let outcome = self.outcome.as_ref().expect("polled after the outcome was taken");
        let Poll::Ready(claimed) = outcome.poll(cx) else { return Poll::Pending };
        self.outcome = None;
        Poll::Ready(claimed.map(|claimed| Permit::durable(Arc::clone(&self.store), claimed)))
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        let claimed = self.outcome.take().and_then(|outcome| outcome.close());
        if let Some(Ok(claimed)) = claimed {
            self.store.queue.release_unused(claimed);
        }
    }
}

impl fmt::Debug for Claiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claiming").finish_non_exhaustive()
    }
}

fn encode_claim(held: &Held, claim: &OpenClaim) -> Encoded {
    let entry = Entry::Claim(Claim {
        fingerprint: *claim.fingerprint.as_bytes(),
        request_id: claim.request_id.as_str(),
        ttl_ms: millis(claim.ttl),
        attempt: claim.attempt,
        first_sequence: (claim.attempt > 1).then_some(claim.first_sequence),
        claimed_at: None,
    });
    Encoded::new(Some(held.address()), &entry)
}

fn release_durably(store: &Inner, held: Held, room: Reservation) -> Ticket<()> {
    let encoded = Encoded::new(Some(held.address()), &Entry::Release);
    let (ticket, outcome) = Ticket::new();
    store.queue.commit(encoded, room, Effect::Release { held, outcome });
    ticket
}

/// The store's uuid and the first claim's batch name the operation: no two claims of one key share
/// a batch.
fn downstream_key(store: &Inner, held: &Held, claim: &OpenClaim, label: &str) -> Key {
    let mut hasher = Sha256::new_with_prefix(store.engine.ledger.uuid);
    hasher.update(claim.first_sequence.to_le_bytes());
    hasher.update(held.address().scope.as_bytes());
    hasher.update((held.address().key.as_bytes().len() as u64).to_le_bytes());
    hasher.update(held.address().key.as_bytes());
    hasher.update(label);
    let digest: [u8; 32] = hasher.finalize().into();
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().expect("hexadecimal digits are a key")
}
