//! The request for one run of an operation: an [`Operation`].
//!
//! It is built once per request, from the edge of the program, and is not changed afterwards.

use std::time::Duration;

use crate::key::{Fingerprint, Key, RequestId, Scope};

/// An operation that runs once: its scope, its key and its fingerprint, with the options of this
/// run.
///
/// ```
/// use std::time::Duration;
/// use refrain::{Fingerprint, Operation, Scope};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scope = Scope::from_api_key("sk_live_51");
/// let fingerprint = Fingerprint::of(["POST", "/v1/calls", "{}"]);
/// let operation = Operation::new(scope, "9b8cfa7a".parse()?, fingerprint)
///     .request_id("req_81".parse()?)
///     .ttl(Duration::from_secs(60 * 60))
///     .durable();
/// assert_eq!(operation.key().as_str(), "9b8cfa7a");
/// assert!(operation.is_durable());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Operation {
    pub(crate) scope: Scope,
    pub(crate) key: Key,
    pub(crate) fingerprint: Fingerprint,
    /// If none, each request makes one.
    pub(crate) request_id: Option<RequestId>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) durable: bool,
}

impl Operation {
    /// Creates an operation with the store's TTL and a volatile claim.
    ///
    /// Each call of [`Store::begin`](crate::Store::begin) gets a [`random`](RequestId::random)
    /// request id, unless [`request_id`](Self::request_id) sets one.
    pub fn new(scope: Scope, key: Key, fingerprint: Fingerprint) -> Self {
        Self { scope, key, fingerprint, request_id: None, ttl: None, durable: false }
    }

    /// Sets the name of the request. A later request that conflicts with this one is told the name.
    #[must_use]
    pub fn request_id(mut self, request_id: RequestId) -> Self {
        self.request_id = Some(request_id);
        self
    }

    /// Sets how long the record is kept: from a millisecond to the store's TTL, which is the
    /// default. [`Store::begin`](crate::Store::begin) refuses any other with
    /// [`Error::Ttl`](crate::Error::Ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Makes the claim durable before the work starts.
    ///
    /// # Durability
    ///
    /// The claim costs one more commit, and [`Store::begin`](crate::Store::begin) is ready only
    /// once the claim survives a power cut. After a crash or a dropped permit the key is
    /// *interrupted*, and the next request with the key is told.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Keeps the claim in memory, which is the default: the opposite of [`durable`](Self::durable).
    ///
    /// # Durability
    ///
    /// A crash during the work leaves no trace of the claim, and the next request with the key runs
    /// again.
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.durable = false;
        self
    }

    /// Returns the owner of the key.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Returns the client's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the content of the request that uses the key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the name of the request, if [`request_id`](Self::request_id) has set one.
    pub fn given_request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// Returns the TTL of the record, if [`ttl`](Self::ttl) has set one; otherwise the store's
    /// applies.
    pub fn given_ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Returns true if the claim is made durable before the work starts.
    pub fn is_durable(&self) -> bool {
        self.durable
    }
}
