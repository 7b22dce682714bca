//! One run of an operation: [`Past`].

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::Asked;
use crate::cursor::Cursor;
use crate::key::{Fingerprint, Key, RequestId, Scope, downstream_key, random_bytes};
use crate::record::Completion;
use crate::table::Hold;

/// One run of an operation: whose, which key, for what, and how far it came.
///
/// `Debug` shows neither the key nor what the checkpoints and the seed hold.
#[derive(Clone)]
pub struct Past {
    /// Whose key it is.
    pub scope: Scope,
    /// The client's key.
    pub key: Key,
    /// The use that the key was put to.
    pub fingerprint: Fingerprint,
    /// The request that ran.
    pub request_id: RequestId,
    /// The number of the run, counted from 1. A volatile one is always the first.
    pub attempt: u32,
    /// The recovery points of earlier attempts and of this one, oldest first.
    pub checkpoints: Vec<Bytes>,
    /// 24 bytes that name the operation among all that the backend has ever held, the same for all
    /// its attempts and after a restart; none if the claim is volatile. Downstream keys are derived
    /// from them.
    pub seed: Option<[u8; 24]>,
}

impl fmt::Debug for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Past")
            .field("request_id", &self.request_id)
            .field("attempt", &self.attempt)
            .field("checkpoints", &self.checkpoints.len())
            .finish_non_exhaustive()
    }
}

impl Past {
    /// The most checkpoints of one operation.
    pub const MAX_CHECKPOINTS: usize = 16;
    /// The most bytes of one checkpoint.
    pub const MAX_CHECKPOINT_BYTES: usize = 16 * 1024;

    /// Returns the first run of an operation, for the request that asks and the key that it holds.
    pub fn first(asked: &Asked, hold: &Hold) -> Self {
        let (scope, key) = (hold.scope(), hold.key().clone());
        let (fingerprint, request_id) = (asked.fingerprint, asked.request_id.clone());
        Self {
            scope,
            key,
            fingerprint,
            request_id,
            attempt: 1,
            checkpoints: Vec::new(),
            seed: None,
        }
    }

    /// Returns whether the claim of this run is durable.
    pub fn is_durable(&self) -> bool {
        self.seed.is_some()
    }

    /// Returns the key that the operation sends to the next service under a label; `None` if the
    /// claim is volatile.
    pub fn downstream_key(&self, label: &str) -> Option<Key> {
        Some(downstream_key(self.seed.as_ref()?, self.scope, &self.key, label))
    }

    /// Makes this the next run, for the request that asks.
    pub fn advance(&mut self, asked: &Asked) {
        self.attempt = self.attempt.saturating_add(1);
        self.request_id = asked.request_id.clone();
    }

    /// Names the operation by random bytes, unless it has a name already: for a durable claim.
    pub fn ensure_seed(&mut self) {
        self.seed.get_or_insert_with(random_bytes);
    }

    /// Returns the completion of this run, to be kept for `ttl`.
    pub fn completion(&self, ttl: Duration, response: Option<Response<Bytes>>) -> Completion {
        let (fingerprint, request_id) = (self.fingerprint, self.request_id.clone());
        Completion { fingerprint, request_id, ttl, response }
    }

    /// Returns the place behind this run in the list of
    /// [`Backend::interrupted`](super::Backend::interrupted).
    pub fn cursor(&self) -> Cursor {
        Cursor { scope: self.scope, key: self.key.clone() }
    }
}
