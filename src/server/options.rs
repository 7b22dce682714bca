//! The options of a layer, with their defaults.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tokio::sync::Semaphore;

use crate::Scope;

use super::budget::Budget;
use super::collect::{AnswerCollector, Collector};
use super::dialect::{Dialect, RevDesk};
use super::earlier::Earlier;
use super::fingerprint::Fingerprinting;
use super::interruption::OnInterrupted;
use super::lookup::Lookups;
use super::policy::KeepPolicy;
use super::scope::{Credentials, bearer_token};

type ScopeOf = Arc<dyn Fn(&Parts) -> Result<Scope, Credentials> + Send + Sync>;
type Authorizing = Pin<Box<dyn Future<Output = bool> + Send>>;
type Authorize = Arc<dyn Fn(Parts, Earlier) -> Authorizing + Send + Sync>;
/// The default of [`max_buffered_bytes`](super::IdempotencyLayer::max_buffered_bytes).
const MAX_BUFFERED_BYTES: usize = 128 * 1024 * 1024;

#[derive(Clone)]
pub(super) struct LayerOptions {
    pub(super) dialect: Arc<dyn Dialect>,
    pub(super) scope: ScopeOf,
    pub(super) fingerprinting: Fingerprinting,
    pub(super) keep: KeepPolicy,
    pub(super) durable: bool,
    pub(super) on_interrupted: Option<OnInterrupted>,
    pub(super) authorize_replay: Option<Authorize>,
    pub(super) require_key: bool,
    pub(super) ttl: Option<Duration>,
    pub(super) wait: Duration,
    pub(super) collector: Collector,
    pub(super) answers: AnswerCollector,
    /// The places of handlers that run, if they are limited.
    pub(super) running: Option<Arc<Semaphore>>,
    pub(super) lookups: Lookups,
    pub(super) trust_request_ids: bool,
    pub(super) replay_set_cookie: bool,
}

impl LayerOptions {
    /// Returns the defaults, over a store with this limit in bytes for the bodies of responses.
    pub(super) fn new(max_response_bytes: usize) -> Self {
        Self {
            dialect: Arc::new(RevDesk),
            scope: Arc::new(bearer_token),
            fingerprinting: Fingerprinting::default(),
            keep: KeepPolicy::Success,
            durable: false,
            on_interrupted: None,
            authorize_replay: None,
            require_key: false,
            ttl: None,
            wait: Duration::from_secs(10),
            collector: Collector {
                max_bytes: 1024 * 1024,
                within: Duration::from_secs(30),
                budget: Budget::new(MAX_BUFFERED_BYTES),
            },
            answers: AnswerCollector {
                max_bytes: max_response_bytes,
                within: Duration::from_secs(10),
                budget: Budget::new(MAX_BUFFERED_BYTES),
            },
            running: None,
            lookups: Lookups::default(),
            trust_request_ids: true,
            replay_set_cookie: false,
        }
    }

    /// Returns true if claims are durable before the handler starts.
    pub(super) fn is_durable(&self) -> bool {
        self.durable || !matches!(self.on_interrupted, None | Some(OnInterrupted::Rerun))
    }

    /// Returns the policy for interrupted keys. A layer that is durable without a policy refuses them.
    pub(super) fn interrupted(&self) -> OnInterrupted {
        match &self.on_interrupted {
            Some(policy) => policy.clone(),
            None if self.durable => OnInterrupted::Refuse,
            None => OnInterrupted::Rerun,
        }
    }
}

impl fmt::Debug for LayerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerOptions")
            .field("dialect", &self.dialect)
            .field("fingerprinting", &self.fingerprinting)
            .field("keep", &self.keep)
            .field("durable", &self.is_durable())
            .field("on_interrupted", &self.interrupted())
            .finish_non_exhaustive()
    }
}
