//! What a caller wants to do once.

use std::time::Duration;

use crate::key::{Fingerprint, Key, RequestId, Scope};

/// What is to be done once: whose key, which, and for what.
///
/// ```
/// use std::time::Duration;
/// use refrain::{Fingerprint, Operation, Scope};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let operation = Operation::new(
///     Scope::from_api_key("sk_live_51"),
///     "9b8cfa7a".parse()?,
///     Fingerprint::of(["POST", "/v1/calls", "{}"]),
/// )
/// .request_id("req_81".parse()?)
/// .ttl(Duration::from_secs(60 * 60))
/// .durable();
/// # let _ = operation;
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
    /// An operation with the store's TTL and a volatile claim. Each time it is begun its request
    /// gets a [`random`](RequestId::random) name, unless it is given [one](Self::request_id).
    pub fn new(scope: Scope, key: Key, fingerprint: Fingerprint) -> Self {
        Self { scope, key, fingerprint, request_id: None, ttl: None, durable: false }
    }

    /// Names the request, for conflicts to refer to.
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

    /// Makes the claim durable before the work starts, at the price of one more commit. After a
    /// crash or a dropped permit the key is then *interrupted*, and whoever asks next is told.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Claims the key in memory alone, which is the default: the opposite of
    /// [`durable`](Self::durable).
    #[must_use]
    pub fn volatile(mut self) -> Self {
        self.durable = false;
        self
    }

    /// Whose key it is.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The client's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The use that the key is put to.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The name given to the request, if it has been given one.
    pub fn given_request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// The TTL given to the record; without one the store's counts.
    pub fn given_ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Whether the claim is made durable before the work starts.
    pub fn is_durable(&self) -> bool {
        self.durable
    }
}
