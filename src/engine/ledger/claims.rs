//! Durable claims without a verdict: held by a permit, or interrupted.
//!
//! Invariants:
//! - Each new log opens with all of them, so that older logs can be sealed without them. Their
//!   number and their bytes are therefore bounded. On a full disk an opening may lack the room; then
//!   the older logs [are held](super::held).
//! - A claim or checkpoint counts against the bounds from its admission on, before it is durable.

use std::collections::{HashMap, hash_map};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::address_map::AddressMap;
use crate::backend::Past;
use crate::clock::{Moment, millis};
use crate::codec::{Malformed, request_id};
use crate::engine::digest::DigestKey;
use crate::engine::entry::{Claim, Encoded, Entry};
use crate::engine::settings::{CLAIM_BYTES, Settings};
use crate::error::{Error, Limit, Result};
use crate::key::{Address, Fingerprint, RequestId, Scope};
use crate::sync::atomic::{AtomicUsize, Ordering};

use super::space::Space;

/// The most bytes of a checkpoint in a log, besides its data.
const CHECKPOINT_BYTES: usize = 512;

/// A durable claim without a verdict.
#[derive(Debug, Clone)]
pub(crate) struct OpenClaim {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) request_id: RequestId,
    /// The time until it expires, from `claimed_at` on.
    pub(crate) ttl: Duration,
    /// Counts from 1.
    pub(crate) attempt: u32,
    /// The sequence of the batch that held the first attempt.
    pub(crate) first_sequence: u64,
    /// The time at which this attempt began.
    pub(crate) claimed_at: Moment,
    pub(crate) checkpoints: Vec<Bytes>,
}

impl OpenClaim {
    /// Creates the claim of a first attempt. Its time and sequence are preliminary: the batch that
    /// makes it durable sets them.
    pub(crate) fn first(
        fingerprint: Fingerprint,
        request_id: RequestId,
        ttl: Duration,
        now: Moment,
    ) -> Self {
        Self {
            fingerprint,
            request_id,
            ttl,
            attempt: 1,
            first_sequence: 0,
            claimed_at: now,
            checkpoints: Vec::new(),
        }
    }

    /// Reads a claim from a batch of this sequence and time.
    pub(crate) fn read(claim: &Claim<'_>, sequence: u64, at: Moment) -> Result<Self, Malformed> {
        Ok(Self {
            fingerprint: Fingerprint::from_bytes(claim.fingerprint),
            request_id: request_id(claim.request_id)?,
            ttl: Duration::from_millis(claim.ttl_ms),
            attempt: claim.attempt,
            first_sequence: claim.first_sequence.unwrap_or(sequence),
            claimed_at: claim.claimed_at.map_or(at, Moment),
            checkpoints: Vec::new(),
        })
    }

    /// Returns the entries that carry the claim into another log: the claim, then its checkpoints.
    pub(crate) fn encode(&self, digests: &DigestKey, address: &Address) -> Vec<Encoded> {
        let claim = Entry::Claim(Claim {
            fingerprint: *self.fingerprint.as_bytes(),
            request_id: self.request_id.as_str(),
            ttl_ms: millis(self.ttl),
            attempt: self.attempt,
            first_sequence: Some(self.first_sequence),
            claimed_at: Some(self.claimed_at.0),
        });
        let checkpoints = self.checkpoints.iter().map(|data| Entry::Checkpoint(data));
        std::iter::once(claim)
            .chain(checkpoints)
            .map(|entry| Encoded::new(digests, Some(address), &entry))
            .collect()
    }

    /// The run as its callers see it.
    pub(crate) fn into_past(self, address: &Address, uuid: &[u8; 16]) -> Past {
        Past {
            scope: address.scope,
            key: address.key.clone(),
            seed: Some(self.seed(uuid)),
            fingerprint: self.fingerprint,
            request_id: self.request_id,
            attempt: self.attempt,
            checkpoints: self.checkpoints,
        }
    }

    /// The store's uuid and the first claim's batch: no two claims of one key share a batch.
    fn seed(&self, uuid: &[u8; 16]) -> [u8; 24] {
        let mut seed = [0; 24];
        seed[..16].copy_from_slice(uuid);
        seed[16..].copy_from_slice(&self.first_sequence.to_le_bytes());
        seed
    }

    /// Returns the moment at which the claim expires and its key becomes free.
    pub(crate) fn expiry(&self) -> Moment {
        self.claimed_at.plus(self.ttl)
    }

    /// Returns the bytes of all checkpoints of this claim.
    fn checkpoint_bytes(&self) -> usize {
        self.checkpoints.iter().map(Bytes::len).sum()
    }

    /// Returns the most bytes that a new log needs to carry the claim, with its checkpoints.
    pub(super) fn carried_bytes(&self) -> u64 {
        let checkpoints = self.checkpoint_bytes() + self.checkpoints.len() * CHECKPOINT_BYTES;
        (CLAIM_BYTES + checkpoints) as u64
    }
}

/// All durable claims without a verdict.
#[derive(Debug)]
pub(crate) struct Claims {
    open: AddressMap<OpenClaim>,
    /// Open and admitted claims of each scope.
    scopes: HashMap<Scope, usize>,
    checkpoint_bytes: usize,
    /// The most bytes that all open claims need in a new log.
    carried_bytes: u64,
    space: Arc<Space>,
    /// Claims that are admitted and not durable yet.
    pending: usize,
    /// Bytes of checkpoints that are admitted and not durable yet.
    pending_bytes: usize,
    /// The number of open and admitted claims, to be read without the mutex.
    count: Arc<AtomicUsize>,
    max_open: usize,
    max_open_per_scope: usize,
    max_carried: usize,
    max_checkpoint_bytes: usize,
}

impl Claims {
    /// Creates an empty list, with the limits of these settings, which tells `space` the bytes that
    /// it needs in a new log.
    pub(crate) fn new(settings: &Settings, space: Arc<Space>) -> Self {
        Self {
            open: AddressMap::default(),
            scopes: HashMap::new(),
            checkpoint_bytes: 0,
            carried_bytes: 0,
            space,
            pending: 0,
            pending_bytes: 0,
            count: Arc::default(),
            max_open: settings.max_open_claims,
            max_open_per_scope: settings.max_open_claims_per_scope,
            max_carried: settings.max_carried_claims(),
            max_checkpoint_bytes: settings.max_checkpoint_bytes(),
        }
    }

    /// Allows for more claims than the limit that were found when the store was opened, as with
    /// smaller logs than before: as many again may be made, or nothing could run before those are
    /// judged.
    pub(crate) fn allow_for_found(&mut self) {
        if self.open.len() > self.max_open {
            self.max_open += self.open.len();
        }
    }

    /// Returns the number of open and admitted claims as it goes on changing.
    pub(crate) fn count(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.count)
    }

    fn publish_count(&self) {
        self.count.store(self.open.len() + self.pending, Ordering::Release);
        self.space.set_carried(self.carried_bytes);
    }

    /// Returns the claim on an address, expired or not.
    pub(crate) fn get(&self, address: &Address) -> Option<&OpenClaim> {
        self.open.get(address)
    }

    /// Adds an admitted claim, which has become durable.
    pub(crate) fn insert_admitted(&mut self, address: Address, claim: OpenClaim) {
        self.pending -= 1;
        self.count_out(address.scope);
        self.insert(address, claim);
    }

    /// Adds a claim, or replaces an earlier attempt and takes over the checkpoints of the same run.
    pub(crate) fn insert(&mut self, address: Address, mut claim: OpenClaim) {
        if let Some(old) = self.open.get_mut(&address)
            && old.first_sequence == claim.first_sequence
        {
            claim.checkpoints.clone_from(&old.checkpoints);
        }
        self.take_out(&address);
        self.checkpoint_bytes += claim.checkpoint_bytes();
        self.carried_bytes += claim.carried_bytes();
        *self.scopes.entry(address.scope).or_insert(0) += 1;
        self.open.insert(address, claim);
        self.publish_count();
    }

    /// Removes the claim on an address, which has its verdict.
    pub(crate) fn remove(&mut self, address: &Address) {
        if self.take_out(address) {
            self.publish_count();
        }
    }

    /// Takes a claim out, and returns whether there was one.
    fn take_out(&mut self, address: &Address) -> bool {
        let Some(old) = self.open.remove(address) else { return false };
        self.checkpoint_bytes -= old.checkpoint_bytes();
        self.carried_bytes -= old.carried_bytes();
        self.count_out(address.scope);
        true
    }

    /// Counts one claim of a scope less.
    fn count_out(&mut self, scope: Scope) {
        if let hash_map::Entry::Occupied(mut count) = self.scopes.entry(scope) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Adds an admitted checkpoint, which has become durable.
    pub(crate) fn checkpoint(&mut self, address: &Address, data: Bytes) {
        self.pending_bytes -= data.len();
        if let Some(claim) = self.open.get_mut(address) {
            self.checkpoint_bytes += data.len();
            self.carried_bytes += (data.len() + CHECKPOINT_BYTES) as u64;
            claim.checkpoints.push(data);
            self.publish_count();
        }
    }

    /// Checks that one more key of a scope may be claimed, in memory or durably. As with operations
    /// in flight, a scope has at most as many claims as are free for others, unless it may have all.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if the store or the scope has as many as it may.
    pub(crate) fn expect_room(&self, scope: Scope) -> Result<()> {
        let free = self.free();
        if free == 0 {
            return Err(Error::limit(Limit::OpenClaims, self.max_open));
        }
        let own = self.scopes.get(&scope).copied().unwrap_or_default();
        let is_shared = self.max_open_per_scope < self.max_open;
        let max = if is_shared { free.min(self.max_open_per_scope) } else { self.max_open };
        if own < max { Ok(()) } else { Err(Error::limit(Limit::OpenClaimsPerScope, max)) }
    }

    /// Returns true if no key of any scope may be claimed.
    pub(crate) fn is_full(&self) -> bool {
        self.free() == 0
    }

    fn free(&self) -> usize {
        self.max_open.saturating_sub(self.open.len() + self.pending)
    }

    /// Admits one more claim of a scope. It counts from now on, until it is durable or the
    /// admission is taken back.
    ///
    /// # Errors
    ///
    /// Those of [`expect_room`](Self::expect_room).
    pub(crate) fn admit(&mut self, scope: Scope) -> Result<()> {
        self.expect_room(scope)?;
        self.count_in(scope);
        Ok(())
    }

    /// Admits the claim of an operation that has run, and whose outcome is unknown. There was room
    /// when it began, and others may have taken it since: a new log has more.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if a new log cannot begin with one more.
    pub(crate) fn admit_unknown(&mut self, scope: Scope) -> Result<()> {
        if self.open.len() + self.pending >= self.max_carried.max(self.max_open) {
            return Err(Error::limit(Limit::OpenClaims, self.max_carried));
        }
        self.count_in(scope);
        Ok(())
    }

    /// Takes back the admission of a claim that was not written.
    pub(crate) fn take_back(&mut self, scope: Scope) {
        self.pending -= 1;
        self.count_out(scope);
        self.publish_count();
    }

    /// Takes back the admission of a checkpoint that was not written.
    pub(crate) fn take_back_checkpoint(&mut self, bytes: usize) {
        self.pending_bytes -= bytes;
    }

    fn count_in(&mut self, scope: Scope) {
        self.pending += 1;
        *self.scopes.entry(scope).or_insert(0) += 1;
        self.publish_count();
    }

    /// Admits a checkpoint of this size. It counts from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if the checkpoints of all claims would have too many bytes.
    pub(crate) fn admit_checkpoint(&mut self, bytes: usize) -> Result<()> {
        if self.checkpoint_bytes + self.pending_bytes + bytes > self.max_checkpoint_bytes {
            return Err(Error::limit(Limit::CheckpointBytes, self.max_checkpoint_bytes));
        }
        self.pending_bytes += bytes;
        Ok(())
    }

    /// Removes the claims that have expired by `now`.
    pub(crate) fn expire(&mut self, now: Moment) {
        let expired = self.open.iter().filter(|(_, claim)| claim.expiry() <= now);
        let expired: Vec<Address> = expired.map(|(address, _)| address.clone()).collect();
        expired.iter().for_each(|address| self.remove(address));
    }

    /// Returns all claims, expired ones included, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Address, &OpenClaim)> {
        self.open.iter()
    }

    /// Returns the number of claims, expired ones included.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
