//! The tower layer for HTTP clients: each mutation gets a key, and each retry is safe.
//!
//! ```text
//!  request ──► key ──► whole body ──► attempt ──► answer, collected whole ──► response
//!               │                        ▲                  │
//!               └─ shared with a call    └── back off ◄─────┘ lost, or "later"
//!                  that is the same
//! ```
//!
//! A *call* is what the caller asks for once; an *attempt* is one request of it. All attempts of a
//! call carry one `Idempotency-Key`, and the next call has another. So a server that keeps the
//! contract runs a call once, however often it is tried, and a call that is lost on its way is tried
//! again. Without a key a mutation is never sent twice.
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
//! // Any HTTP client that is a tower service: hyper-util's, reqwest's with feature `reqwest`.
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
//! # What is tried again
//!
//! Requests that are safe by their method, and mutations under a key, whose body is held in memory:
//! after errors of the transport, answers that do not come in time or break off, and answers that say
//! so: 409 while the key is in progress, 425, 429, 502, 503, 504, and `Stripe-Should-Retry: true`. Not
//! before `Retry-After` is over, and backing off exponentially. Never a conflict. `docs/client.md` has
//! the table.
//!
//! # Calls that are the same
//!
//! A key that the caller sets is kept, and a [`CallId`] in the request's extensions names a call
//! where the caller has no key: within a window the same id is the same key. Of calls with one key or
//! id that are under way at once and are the same request, headers included, one is sent, and all get its
//! answer. Two calls without either are two calls, whatever they say.
//!
//! # Across restarts
//!
//! A [`Journal`] keeps keys and requests on disk until they are done, so that a worker that died
//! after it sent finds the key again.

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
#[cfg(feature = "reqwest")]
mod reqwest;
mod service;

pub use crate::http::{Body, BodyError, BoxError};
pub use call::{Call, CallId};
pub use error::{Error, Failure, Stop};
pub use journal::{Journal, JournalBuilder, JournalEntry, JournalError};
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use reqwest::Reqwest;
pub use service::Client;

use recent::RecentCalls;

/// The longest that a call, or an attempt, may be given.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a deposit into the budget counts.
const BUDGET_TTL: Duration = Duration::from_secs(10);
/// Retries a second that are there for a client that makes few calls,
const BUDGET_MIN_PER_SEC: u32 = 10;
/// and the share of calls that may be retried once more.
const BUDGET_SHARE: f32 = 0.2;

/// Makes a service keep the client's half of the contract; see the [module](self).
///
/// Services from one layer and its clones share its memory of calls, and its budget of retries. So give
/// each service that adds a host or credentials of its own a layer of its own.
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
    /// A layer with the limits that are named at its options.
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

    /// How often a call is sent at most, the first time included: 8, and at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = attempts.max(1);
        self
    }

    /// How long an attempt may take until its answer is there whole: 30 s, and a day at most. It covers what a server waits
    /// for another request with the key.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.attempt_timeout = timeout.min(A_DAY);
        self
    }

    /// How long a call may take, all its attempts and pauses together: 2 minutes, and a day at most.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = deadline.min(A_DAY);
        self
    }

    /// The pause before the second attempt, and the longest: 100 ms and 5 s. Each is twice the one before.
    /// To each comes up to half as much by chance. `Retry-After` lengthens a pause.
    ///
    /// # Panics
    ///
    /// If `longest` is zero, or below `shortest`. A day is the longest.
    pub fn backoff(mut self, shortest: Duration, longest: Duration) -> Self {
        assert!(shortest <= longest && !longest.is_zero(), "the longest pause is the longest");
        self.options.backoff = (shortest.min(A_DAY), longest.min(A_DAY));
        self
    }

    /// What retries of all calls together are taken from: by default ten a second, and one for every five
    /// calls that succeed.
    pub fn budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.options.budget = Arc::new(budget);
        self
    }

    /// The longest request body that is held, to be sent again: 1 MiB. A longer one, or one whose length
    /// is not known, is sent once.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.options.max_request_bytes = bytes;
        self
    }

    /// The longest response body that is collected before the caller gets it: 1 MiB. A longer one,
    /// and `text/event-stream`, is passed on as it comes; if that breaks off, the caller sees it.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.options.max_response_bytes = bytes;
        self
    }

    /// Sends the keys that it makes as structured-field strings, in quotes, as the IETF's draft has it; a
    /// key that the caller sets goes as it is.
    pub fn quote_keys(mut self, quoted: bool) -> Self {
        self.options.quote_keys = quoted;
        self
    }

    /// For how long from its first use a [`CallId`] is one call, and how many are remembered: 5 minutes, and 65,536. Over
    /// that the oldest is forgotten, and if it is asked for again it is another call. As many calls at
    /// most are shared at once.
    ///
    /// The layer forgets what it knew, and shares nothing with those it was cloned from.
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
