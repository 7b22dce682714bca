//! A tower layer for HTTP clients that gives each mutation a key, so that retries are safe.
//!
//! ```text
//!  request ──► key ──► buffered body ──► attempt ──► buffered answer ──► response
//!               │                           ▲               │
//!               └─ joins an identical       └── back off ◄──┘ transient failure
//!                  call in flight
//! ```
//!
//! A *call* is one operation that the caller asks for; an *attempt* is one request sent for it. All
//! attempts of a call carry the same `Idempotency-Key`, and each new call gets a new key. A server
//! that implements the idempotency contract therefore does not repeat a call that has succeeded,
//! however many attempts reach it. A mutation without a key is never sent twice.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use refrain::client::{Call, ClientLayer};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any HTTP client that is a tower service and does not follow redirects: hyper-util's, or
//! // reqwest's with feature `reqwest`.
//! let transport = service_fn(|request: Request<refrain::client::Body>| async move {
//!     assert!(request.headers().contains_key("idempotency-key"));
//!     Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from("placed"))))
//! });
//! let client = ClientLayer::new().layer(transport);
//!
//! let request = Request::post("http://127.0.0.1:8080/v1/calls").body(Full::new(Bytes::from("{}")))?;
//! let response = client.oneshot(request).await?;
//! let call = response.extensions().get::<Call>().ok_or("each response has one")?;
//! assert_eq!((call.attempts(), call.is_replay()), (1, false));
//! # Ok(())
//! # }
//! ```
//!
//! # Retries
//!
//! The layer retries requests with a safe method and mutations with a key, if their body is
//! buffered. It retries after transport errors, after timeouts, after answers that break off, and
//! after these answers: 408, 409 while the key is in progress, 425, 429, 502, 503, 504, the
//! refusals of this crate's server layer that have a `Retry-After`, and `Stripe-Should-Retry: true`.
//! The pause grows exponentially and is at least as long as `Retry-After`. A conflict is never
//! retried. `docs/client.md` has the table.
//!
//! # Redirects
//!
//! A redirect is not the answer to a mutation. The layer sends the same request on, under the same
//! key, where 307 or 308 lead within the origin of the request. Any other redirect with a location
//! is [`Failure::Redirected`]. The service inside the layer must not follow redirects of mutations:
//! many HTTP clients send a GET in their place. hyper-util's client follows none, and [`Reqwest`]
//! none of a mutation.
//!
//! # Identical calls
//!
//! The layer keeps a key that the caller sets. A caller without a key can name a call by a
//! [`CallId`] in the request's extensions: within a time window, the same id gets the same key. If
//! two calls with the same key or id are in flight at once, and their requests are equal, headers
//! included, one is sent and both get its answer. Calls with neither key nor id are always separate
//! calls.
//!
//! # Across restarts
//!
//! A [`Journal`] keeps the key and the request of a job on disk until the job is done. A worker
//! that is restarted after a crash sends the same request under the same key, and
//! [`Journal::jobs`] lists what is left.

use std::sync::Arc;
use std::time::Duration;

use tower::retry::budget::{Budget, TpsBudget};
use tower_layer::Layer;

mod answer;
mod attempt;
mod call;
mod error;
mod journal;
mod policy;
mod recent;
mod redirect;
#[cfg(feature = "reqwest")]
mod reqwest;
mod service;

pub use crate::http::{Body, BodyError, BoxError};
pub use call::{Call, CallId};
pub use error::{Error, Failure, Stop};
pub use journal::{Job, JobState, Journal, JournalBuilder, JournalEntry, JournalError};
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use reqwest::Reqwest;
pub use service::Client;

use recent::RecentCalls;

/// The upper limit of every timeout.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The lifetime of a deposit in the retry budget.
const BUDGET_TTL: Duration = Duration::from_secs(10);
/// Retries per second that the budget allows without any deposit.
const BUDGET_MIN_PER_SEC: u32 = 10;
/// Retries that each successful call adds to the budget.
const BUDGET_SHARE: f32 = 0.2;

/// Wraps an HTTP client in a [`Client`], which adds keys and retries; see the [module](self).
///
/// All services made by a layer and by its clones share one table of calls and one retry budget. A
/// service that adds its own host or its own credentials therefore needs a layer of its own.
///
/// ```
/// use std::time::Duration;
///
/// use refrain::client::ClientLayer;
///
/// let layer = ClientLayer::new()
///     .max_attempts(4)
///     .attempt_timeout(Duration::from_secs(10))
///     .deadline(Duration::from_secs(45));
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientLayer {
    options: ClientOptions,
    recent: Arc<RecentCalls>,
}

#[derive(Clone)]
struct ClientOptions {
    max_attempts: u32,
    attempt_timeout: Duration,
    deadline: Duration,
    backoff: (Duration, Duration),
    budget: Arc<dyn Budget + Send + Sync>,
    max_request_bytes: usize,
    max_response_bytes: usize,
    quote_keys: bool,
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("max_attempts", &self.max_attempts)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Default for ClientLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientLayer {
    /// Creates a layer with the default that each setter names.
    pub fn new() -> Self {
        let options = ClientOptions {
            max_attempts: 8,
            attempt_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(120),
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            budget: Arc::new(TpsBudget::new(BUDGET_TTL, BUDGET_MIN_PER_SEC, BUDGET_SHARE)),
            max_request_bytes: 1024 * 1024,
            max_response_bytes: 1024 * 1024,
            quote_keys: false,
        };
        Self { options, recent: Arc::new(RecentCalls::new(Duration::from_secs(300), 65_536)) }
    }

    /// Sets the maximum number of attempts per call, the first included (default 8, at least 1).
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = attempts.max(1);
        self
    }

    /// Sets the time limit of an attempt, from sending to the end of the answer (default 30 s, at
    /// most a day).
    ///
    /// The limit must cover the server's own wait for another request with the same key (10 s for
    /// refrain's server layer).
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.attempt_timeout = timeout.min(A_DAY);
        self
    }

    /// Sets the time limit of a call, all attempts and pauses included (default 2 min, at most a
    /// day).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = deadline.min(A_DAY);
        self
    }

    /// Sets the shortest and the longest pause between attempts (default 100 ms and 5 s, at most a
    /// day).
    ///
    /// Each pause is twice the previous one, plus a random extra of up to a half. A longer
    /// `Retry-After` takes precedence.
    ///
    /// # Panics
    ///
    /// If `longest` is zero or less than `shortest`.
    pub fn backoff(mut self, shortest: Duration, longest: Duration) -> Self {
        assert!(
            shortest <= longest && !longest.is_zero(),
            "the longest pause is positive and not below the shortest"
        );
        self.options.backoff = (shortest.min(A_DAY), longest.min(A_DAY));
        self
    }

    /// Sets the retry budget that all calls share.
    ///
    /// By default it allows ten retries per second, plus one for every five calls that succeed. A
    /// retry that the budget refuses ends its call with [`Stop::Budget`].
    pub fn budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.options.budget = Arc::new(budget);
        self
    }

    /// Sets the longest request body, in bytes, that is buffered for retries (default 1 MiB).
    ///
    /// A request with a longer body, or with a body of unknown length, is sent once.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.options.max_request_bytes = bytes;
        self
    }

    /// Sets the longest response body, in bytes, that is buffered before the caller gets it
    /// (default 1 MiB).
    ///
    /// A longer body, and any `text/event-stream`, is streamed to the caller. If a streamed body
    /// breaks off, the caller gets the error and the call is not retried. A buffered answer that
    /// breaks off is retried.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.options.max_response_bytes = bytes;
        self
    }

    /// Sets whether generated keys are sent in quotes, as structured-field strings (the form of the
    /// IETF draft); `false` by default.
    ///
    /// A key that the caller sets is sent unchanged.
    pub fn quote_keys(mut self, quoted: bool) -> Self {
        self.options.quote_keys = quoted;
        self
    }

    /// Sets how long a [`CallId`] keeps its key (default 5 min) and how many ids are remembered
    /// (default 65,536).
    ///
    /// The time counts from the id's first use. Beyond `max` the oldest id is evicted; an evicted
    /// id starts a new call. `max` also limits the number of calls in flight that can be shared.
    ///
    /// The layer starts with an empty table, which it no longer shares with the layer it was cloned
    /// from.
    pub fn call_ids(mut self, window: Duration, max: usize) -> Self {
        self.recent = Arc::new(RecentCalls::new(window, max));
        self
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = Client<S>;

    fn layer(&self, inner: S) -> Client<S> {
        Client::new(inner, self.options.clone(), Arc::clone(&self.recent))
    }
}

/// The examples of `docs/client.md`.
#[cfg(all(doctest, feature = "reqwest"))]
#[doc = include_str!("../docs/client.md")]
mod document {}
