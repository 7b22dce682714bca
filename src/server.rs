//! The tower layer for HTTP servers: any `http` service keeps the contract of `Idempotency-Key`.
//!
//! ```text
//!  request ──► request id, scope, key, body, fingerprint ──► begin
//!                                                             │
//!         ┌──────────────┬──────────────┬─────────────────────┤
//!      execute        replay         refuse              wait, then refuse
//!         │
//!   its own task: handler ──► response collected ──► complete ──► first byte
//! ```
//!
//! POST, PUT, PATCH and DELETE with an `Idempotency-Key` go through the store; all else passes
//! through. The scope is the bearer token, so the layer belongs behind authentication, and a client
//! whose token is refreshed starts a new window. Successful responses (2xx and 3xx; for gRPC by
//! `grpc-status`) are durable before their first byte is sent; any other outcome frees the key.
//!
//! Put the layer around the outermost router: inside one that is nested, axum cuts the prefix off the
//! path before the layer sees it, and the same key under two prefixes would be one request.
//!
//! The handler runs in a task of its own: a client that hangs up cancels neither it nor its commit.
//! Put timeouts outside this layer, and compression and CORS too. The layer needs a tokio runtime.
//!
//! ```
//! use axum::{Router, routing::post};
//! use refrain::{Store, server::IdempotencyLayer};
//!
//! # fn main() -> refrain::Result<()> {
//! let store = Store::builder().open_in_memory()?;
//! let app: Router = Router::new()
//!     .route("/v1/calls", post(|| async { "placed" }))
//!     .layer(IdempotencyLayer::new(store));
//! # let _ = app;
//! # Ok(())
//! # }
//! ```
//!
//! Handlers find the [`RequestId`](crate::RequestId) of the request in its extensions, and the
//! [`Key`](crate::Key) if there is one.

use std::time::Duration;

use tower_layer::Layer;

use crate::store::Store;

mod body;
mod envelope;
mod request;
mod response;
mod service;

pub use body::{Body, BodyError};
pub use envelope::Envelope;
pub use service::Idempotent;

/// Adds idempotency to a service; see the [module](self).
#[derive(Clone, Debug)]
#[must_use]
pub struct IdempotencyLayer {
    store: Store,
    options: Options,
}

#[derive(Clone, Debug)]
struct Options {
    durable: bool,
    ttl: Option<Duration>,
    wait: Duration,
    max_request_bytes: usize,
    max_response_bytes: usize,
    collect_within: Duration,
    trust_request_ids: bool,
    replay_set_cookie: bool,
}

impl IdempotencyLayer {
    /// The layer with its defaults.
    pub fn new(store: Store) -> Self {
        let options = Options {
            durable: false,
            ttl: None,
            wait: Duration::from_secs(10),
            max_request_bytes: 1024 * 1024,
            max_response_bytes: 1024 * 1024,
            collect_within: Duration::from_secs(10),
            trust_request_ids: true,
            replay_set_cookie: false,
        };
        Self { store, options }
    }

    /// The strict mode: the claim is durable before the handler starts, and a retry after a crash
    /// is refused with `idempotency_interrupted` instead of running again.
    pub fn durable(mut self) -> Self {
        self.options.durable = true;
        self
    }

    /// Keeps records for a shorter time than the store's TTL.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// How long a request waits for another one that holds its key; 10 seconds by default.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.options.wait = wait;
        self
    }

    /// The longest body of a request with a key; 1 MiB by default. It is collected before the
    /// handler runs.
    pub fn max_request_bytes(mut self, max: usize) -> Self {
        self.options.max_request_bytes = max;
        self
    }

    /// The longest response body that is collected and stored; 1 MiB by default. A longer one is
    /// passed through, and recorded as done without its response. The store has a limit of its own,
    /// [`Builder::max_response_bytes`](crate::Builder::max_response_bytes).
    pub fn max_response_bytes(mut self, max: usize) -> Self {
        self.options.max_response_bytes = max;
        self
    }

    /// How long a response of unknown length may take to be collected, 10 seconds by default, before
    /// it is passed through and recorded as done without its response.
    pub fn collect_within(mut self, limit: Duration) -> Self {
        self.options.collect_within = limit;
        self
    }

    /// Makes a request id for every request, whatever the client's `x-request-id` says.
    pub fn distrust_request_ids(mut self) -> Self {
        self.options.trust_request_ids = false;
        self
    }

    /// Replays `Set-Cookie` too, which hands a session to whoever retries.
    pub fn replay_set_cookie(mut self) -> Self {
        self.options.replay_set_cookie = true;
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotent<S>;

    fn layer(&self, inner: S) -> Idempotent<S> {
        Idempotent::new(inner, self.store.clone(), self.options.clone())
    }
}
