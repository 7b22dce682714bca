//! The tower layer for HTTP servers: any `http` service keeps the contract of `Idempotency-Key`.
//! With feature `actix` it is a middleware of actix-web too.
//!
//! ```text
//!  request ──► request id, scope, key, body, fingerprint ──► begin
//!                                                             │
//!         ┌──────────────┬──────────────┬─────────────────────┤
//!      execute        replay         refuse              wait, then refuse
//!         │
//!      handler ──► response collected ──► complete ──► first byte
//! ```
//!
//! POST, PUT, PATCH and DELETE with an `Idempotency-Key` go through the store; all other requests
//! go straight to the handler. Successful responses (2xx and 3xx; for gRPC by `grpc-status`) are
//! durable before their first byte is sent. Any other outcome frees the key, or interrupts it where
//! claims are durable and the outcome is unknown: a panic, a 5xx, a 408.
//!
//! The handler runs in the task of its request, and goes on in a task of its own if the client hangs
//! up, which cancels neither it nor its commit. [`Store::close`](crate::Store::close) waits for those
//! that run. The layer needs a tokio runtime.
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
//! # The order of layers
//!
//! From the outside in: tracing, CORS, compression, timeouts, rate limits, authentication, this
//! layer, the handlers. Outer layers act on each request, replays included, and their changes to an
//! answer are not recorded. `docs/http.md` gives the reasons; `docs/wire.md` shows each answer as
//! curl prints it.
//!
//! # Options for a route
//!
//! A clone of a layer shares its store and its memory budget, and can have other options. Give each
//! route a layer of its own: of two nested layers only the outer one acts.
//!
//! ```
//! use axum::{Router, routing::post};
//! use refrain::server::{IdempotencyLayer, OnInterrupted, KeepPolicy};
//!
//! # fn main() -> refrain::Result<()> {
//! # let store = refrain::Store::builder().open_in_memory()?;
//! let layer = IdempotencyLayer::new(store);
//! let strict = layer.clone().require_key(true).on_interrupted(OnInterrupted::Refuse);
//! let app: Router = Router::new()
//!     .route("/v1/payments", post(|| async { "paid" }).layer(strict))
//!     .route("/v1/quotes", post(|| async { "quoted" }).layer(layer.keep(KeepPolicy::All)));
//! # let _ = app;
//! # Ok(())
//! # }
//! ```
//!
//! Handlers see the operation as an [`Execution`], and any request's
//! [`RequestId`](crate::RequestId) in its extensions.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tokio::sync::Semaphore;
use tower_layer::Layer;

use crate::Store;

#[cfg(feature = "actix")]
#[cfg_attr(docsrs, doc(cfg(feature = "actix")))]
pub mod actix;
mod another;
mod answering;
mod authority;
mod budget;
#[cfg(feature = "canonical-json")]
mod canonical;
mod collect;
mod deadline;
mod dialect;
mod earlier;
mod envelope;
mod execution;
mod fingerprint;
#[cfg(feature = "forms")]
mod forms;
mod guard;
mod handler;
mod interruption;
mod lookup;
mod observe;
mod once;
mod options;
mod passing;
mod policy;
mod reply;
mod request;
mod response;
mod sameness;
pub mod scope;
mod service;
mod signing;
mod unread;

pub use crate::http::BoxError;
pub use answering::Answering;
pub use axum::body::Body;
pub use dialect::{Dialect, Exchange, Ietf, Reason, Refusal, RevDesk, Stripe};
pub use earlier::Earlier;
pub use envelope::Envelope;
pub use execution::Execution;
pub use interruption::{Hook, Interruption, OnInterrupted, Recovery};
pub use policy::{KeepPolicy, Verdict};
pub use request::request_id;
pub use service::Idempotent;

use budget::Budget;
#[cfg(fuzzing)]
pub(crate) use fingerprint::Fingerprinting;
use options::LayerOptions;
use scope::ScopeResult;

/// A tower layer that adds idempotency to a service; see the [module](self).
///
/// Each option names its default. Clones share the store and the memory budget, and can differ in
/// all other options. `docs/http.md` lists all limits.
#[derive(Clone, Debug)]
#[must_use]
pub struct IdempotencyLayer {
    store: Store,
    options: LayerOptions,
}

impl IdempotencyLayer {
    /// Creates a layer over a store, with the default that each option names.
    pub fn new(store: Store) -> Self {
        observe::register();
        let options = LayerOptions::new(store.rules().max_response_bytes);
        Self { store, options }
    }

    /// Sets the form of the layer's own answers; [`RevDesk`] by default. [`Ietf`], [`Stripe`] and
    /// your own [`Dialect`]s word them otherwise.
    pub fn dialect(mut self, dialect: impl Dialect) -> Self {
        self.options.dialect = Arc::new(dialect);
        self
    }

    /// Sets the function that reads the scope from a request's head; [`scope::bearer_token`] by
    /// default. A request with a key and without a scope is refused with 401.
    ///
    /// The function returns an `Option`, or a `Result` whose error names the missing
    /// [`Credentials`](scope::Credentials) to the client.
    ///
    /// ```
    /// use http::HeaderName;
    /// use refrain::server::{IdempotencyLayer, scope};
    ///
    /// # fn main() -> refrain::Result<()> {
    /// # let store = refrain::Store::builder().open_in_memory()?;
    /// let layer = IdempotencyLayer::new(store)
    ///     .scope(scope::header(HeaderName::from_static("x-api-key")));
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope<R: ScopeResult>(
        mut self,
        scope: impl Fn(&Parts) -> R + Send + Sync + 'static,
    ) -> Self {
        self.options.scope = Arc::new(move |request| scope(request).into_result());
        self
    }

    /// Sets the policy for the answers that are kept and replayed; [`KeepPolicy::Success`] by
    /// default. A handler overrides the policy with a [`Verdict`].
    pub fn keep(mut self, policy: KeepPolicy) -> Self {
        self.options.keep = policy;
        self
    }

    /// Sets a function that chooses the answers to keep, by status and headers: those for which it
    /// returns `true`.
    pub fn keep_if(
        self,
        keeps: impl Fn(&http::response::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.keep(KeepPolicy::Custom(Arc::new(keeps)))
    }

    /// Sets whether claims are durable before the handler starts; `false` by default. Handlers then
    /// have checkpoints and downstream keys.
    ///
    /// # Durability
    ///
    /// A durable claim costs one more commit per request, and outlives a crash in mid-handler. The
    /// retry after the crash is refused, unless [`on_interrupted`](Self::on_interrupted) says
    /// otherwise.
    pub fn durable(mut self, durable: bool) -> Self {
        self.options.durable = durable;
        self
    }

    /// Sets the policy for keys whose last run was interrupted. Every policy but
    /// [`OnInterrupted::Rerun`] makes claims [`durable`](Self::durable).
    pub fn on_interrupted(mut self, policy: OnInterrupted) -> Self {
        self.options.on_interrupted = Some(policy);
        self
    }

    /// Sets a function that decides whether a client may hear of an earlier request with its key,
    /// from the head of the client's request and the [`Earlier`] one. The answer to a client that
    /// may not is 403, whatever has become of the earlier request, and whatever both contained.
    pub fn authorize_replay<F, R>(mut self, authorize: F) -> Self
    where
        F: Fn(Parts, Earlier) -> R + Send + Sync + 'static,
        R: Future<Output = bool> + Send + 'static,
    {
        self.options.authorize_replay =
            Some(Arc::new(move |request, earlier| Box::pin(authorize(request, earlier))));
        self
    }

    /// Sets whether a POST, PUT, PATCH or DELETE without a key is refused with 400; `false` by
    /// default.
    pub fn require_key(mut self, required: bool) -> Self {
        self.options.require_key = required;
        self
    }

    /// Sets how long records are kept: at least a millisecond, and at most the store's TTL, which
    /// is the default. With any other, requests with a key are answered with 500 `internal_error`.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// Sets how long a request waits for others: for one that holds its key, for room in the store,
    /// for a place among the handlers that run, and for the inner service to be ready; 10 seconds in
    /// all by default.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.options.wait = wait;
        self
    }

    /// Sets the longest body of a request with a key, in bytes; 1 MiB by default. The body is
    /// collected before the handler runs.
    pub fn max_request_bytes(mut self, max: usize) -> Self {
        self.options.collector.max_bytes = max;
        self
    }

    /// Sets how long the body of a request with a key may take to arrive; 30 seconds by default. In
    /// each third of that time it must bring 4 KiB or its end.
    pub fn read_within(mut self, limit: Duration) -> Self {
        self.options.collector.within = limit;
        self
    }

    /// Sets the memory in bytes for the bodies of all requests with a key, each counted until its
    /// handler has read it; 128 MiB by default. One scope may take an eighth, and a quarter is for
    /// bodies of up to 64 KiB alone. A request over a limit is refused at once.
    ///
    /// As much again is for answers while they are collected, if they come in pieces. They wait for
    /// memory within [`collect_within`](Self::collect_within). A body that is being sent is not
    /// counted.
    ///
    /// Clones made earlier keep the earlier budget.
    pub fn max_buffered_bytes(mut self, max: usize) -> Self {
        self.options.collector.budget = Budget::new(max);
        self.options.answers.budget = Budget::new(max);
        self
    }

    /// Sets how many handlers and recovery functions run at once for requests with a key, at least
    /// one; by default only the store's [`max_in_flight`](crate::Builder::max_in_flight) limits them.
    /// The next one waits its turn for as long as [`wait`](Self::wait) says, and is then refused with
    /// 503; nothing was run.
    ///
    /// A limit outside this layer counts requests, and a handler goes on after its client has gone.
    /// Clones made later share the limit: a handler that asks another route of theirs takes two
    /// places.
    pub fn max_running(mut self, max: usize) -> Self {
        self.options.running = Some(Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))));
        self
    }

    /// Sets the longest response body that is collected and recorded, in bytes: at most the store's
    /// [`max_response_bytes`](crate::backend::Rules::max_response_bytes), which is the default. A
    /// longer body is streamed, and its operation recorded without the response.
    pub fn max_response_bytes(mut self, max: usize) -> Self {
        self.options.answers.max_bytes = max.min(self.store.rules().max_response_bytes);
        self
    }

    /// Sets how long the collection of a response body may take; 10 seconds by default. A slower
    /// body is streamed, and its operation recorded without the response.
    pub fn collect_within(mut self, limit: Duration) -> Self {
        self.options.answers.within = limit;
        self
    }

    /// Sets whether a client's `x-request-id` becomes the request's id; `true` by default.
    /// Otherwise every request gets a new id.
    pub fn trust_request_ids(mut self, trusted: bool) -> Self {
        self.options.trust_request_ids = trusted;
        self
    }

    /// Sets whether `Set-Cookie` is recorded and replayed; `false` by default, because a replayed
    /// cookie hands the session to the client that retries.
    pub fn replay_set_cookie(mut self, replayed: bool) -> Self {
        self.options.replay_set_cookie = replayed;
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotent<S>;

    fn layer(&self, inner: S) -> Idempotent<S> {
        Idempotent::new(inner, self.store.clone(), self.options.clone())
    }
}

/// The examples of `docs/http.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/http.md")]
mod document {}
