//! Dialects: the keys that the layer reads, and the form of its own answers.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::error::Limit;
use crate::http::{IDEMPOTENCY_REPLAY, Named};
use crate::key::InvalidKey;
use crate::{Error, Key, RequestId};

use super::scope::Credentials;

mod grpc;
mod ietf;
mod revdesk;
mod stripe;

pub(super) use grpc::Grpc;
pub use ietf::Ietf;
pub use revdesk::RevDesk;
pub use stripe::Stripe;

/// The time after which a client may retry with the same key.
const RETRY_AFTER_SECONDS: u64 = 1;

/// The form of the layer's headers and refusals. [`RevDesk`], the contract's own, is the default;
/// [`Ietf`] and [`Stripe`] are for clients that expect those.
///
/// A gRPC client is answered in gRPC's terms, whatever the dialect.
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderMap, Response, StatusCode};
/// use refrain::server::{Dialect, Exchange, Reason, Refusal};
///
/// #[derive(Debug)]
/// struct Plain;
///
/// impl Dialect for Plain {
///     fn refuse(&self, refusal: &Refusal) -> Response<Bytes> {
///         let status = match refusal.reason {
///             Reason::Conflict { .. } => StatusCode::UNPROCESSABLE_ENTITY,
///             _ => refusal.reason.status(),
///         };
///         let mut response = Response::new(Bytes::from(refusal.reason.to_string()));
///         *response.status_mut() = status;
///         response
///     }
///
///     fn sign(&self, exchange: &Exchange<'_>, headers: &mut HeaderMap) {
///         if exchange.is_replay {
///             headers.insert("x-replayed", "yes".parse().expect("it is a header value"));
///         }
///     }
/// }
///
/// # fn main() -> refrain::Result<()> {
/// # let store = refrain::Store::builder().open_in_memory()?;
/// let layer = refrain::server::IdempotencyLayer::new(store).dialect(Plain);
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
pub trait Dialect: fmt::Debug + Send + Sync + 'static {
    /// Reads the key from the value of its header.
    ///
    /// # Errors
    ///
    /// The reason why the value is not a key. The request is refused with [`Reason::KeyInvalid`].
    fn parse_key(&self, value: &[u8]) -> Result<Key, InvalidKey> {
        Key::from_header(value)
    }

    /// Returns the response to a refused request. The layer adds `x-request-id`, and the headers of
    /// [`sign`](Self::sign).
    fn refuse(&self, refusal: &Refusal) -> Response<Bytes>;

    /// Adds the dialect's headers to an answer. By default, a replay gets
    /// `Idempotency-Replay: true`.
    fn sign(&self, exchange: &Exchange<'_>, headers: &mut HeaderMap) {
        if exchange.is_replay {
            headers.insert(IDEMPOTENCY_REPLAY, HeaderValue::from_static("true"));
        }
    }
}

/// The request that an answer belongs to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Exchange<'a> {
    /// The request at hand.
    pub request_id: &'a RequestId,
    /// The key, if the request is a mutation with one.
    pub key: Option<&'a Key>,
    /// True if the answer comes from a record.
    pub is_replay: bool,
}

/// A request that the layer answers itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The request at hand.
    pub request_id: RequestId,
    /// The key, if it could be read.
    pub key: Option<Key>,
}

/// The reason why the layer refuses a request. `Display` is the message for the client.
///
/// ```
/// use refrain::server::Reason;
///
/// let reason = Reason::BodyTooLarge { max: Some(1024) };
/// assert_eq!((reason.code(), reason.status().as_u16()), ("body_too_large", 413));
/// assert_eq!(reason.retry_after(), None);
/// assert_eq!(reason.to_string(), "a request with an idempotency key takes at most 1024 bytes");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The route requires a key.
    #[error("an idempotency key is required")]
    KeyMissing,
    /// The header's value is not a key.
    #[error("{0}")]
    KeyInvalid(InvalidKey),
    /// The header was sent more than once.
    #[error("the idempotency key is given more than once")]
    KeyRepeated,
    /// The request has no scope: no credentials that the layer reads.
    #[error("a request with an idempotency key needs {expected}")]
    Unauthorized {
        /// The credentials that the layer reads.
        expected: Credentials,
    },
    /// The client may not hear of the request that used the key.
    #[error("what became of the request with this key is not yours to see")]
    Forbidden,
    /// The body is over the limit. The handler did not run.
    #[error("{}", too_large(*max))]
    BodyTooLarge {
        /// The limit in bytes; `None` if it is that of a layer outside this one.
        max: Option<usize>,
    },
    /// The body did not arrive in time. The handler did not run.
    #[error("the request's body did not arrive in time")]
    BodyTooSlow,
    /// The body broke off. The handler did not run.
    #[error("the request's body could not be read to its end")]
    BodyUnreadable,
    /// The key has been used for another request.
    #[error("this key was already used for a different request; use a new one")]
    Conflict {
        /// The request that used it.
        original: RequestId,
        /// True if that request was to another endpoint, by method or path. With
        /// [`fingerprint_by`](super::IdempotencyLayer::fingerprint_by) nothing tells, and it is
        /// false.
        other_endpoint: bool,
    },
    /// A request with the key is still running.
    #[error("a request with this key is still running; retry with the same key")]
    InProgress {
        /// The request that runs.
        holder: RequestId,
    },
    /// An earlier run was interrupted.
    #[error("an earlier request with this key was interrupted, and its outcome is unknown")]
    Interrupted {
        /// The request that was interrupted.
        original: RequestId,
    },
    /// The operation was done, and its answer was not recorded.
    #[error("the request with this key succeeded, and its response was not kept")]
    ResultUnavailable {
        /// The request that did it.
        original: RequestId,
    },
    /// The handler ran, and the outcome could not be recorded.
    #[error("the request ran, and its outcome could not be recorded")]
    OutcomeUnknown,
    /// The key has a record, and that cannot be read: the storage has damaged it.
    #[error("the record of this key is damaged, so the outcome of its request is unknown")]
    RecordDamaged,
    /// The client has too many requests in flight. The handler did not run.
    #[error("too many requests with idempotency keys are in flight; retry with the same key")]
    TooManyRequests,
    /// The store cannot answer now. The handler did not run.
    #[error("idempotency cannot be guaranteed now, so nothing was run; retry with the same key")]
    Unavailable,
    /// The handler, or a function of the layer's options, panicked.
    #[error("the request failed")]
    Panicked,
    /// The server's program is mistaken, and says how to mend it: the handler asked a volatile
    /// claim for a checkpoint or a downstream key, or the layer's TTL is outside the store's.
    #[error("{0}")]
    Misused(&'static str),
}

impl Reason {
    /// Returns the contract's code for the reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyMissing => "idempotency_key_missing",
            Self::KeyInvalid(_) | Self::KeyRepeated => "idempotency_key_invalid",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyUnreadable => "body_unreadable",
            Self::Conflict { .. } => "idempotency_conflict",
            Self::InProgress { .. } => "idempotency_in_progress",
            Self::Interrupted { .. } => "idempotency_interrupted",
            Self::ResultUnavailable { .. } => "idempotency_result_unavailable",
            Self::OutcomeUnknown => "idempotency_outcome_unknown",
            Self::RecordDamaged => "idempotency_record_damaged",
            Self::TooManyRequests => "too_many_requests",
            Self::Unavailable => "idempotency_unavailable",
            Self::Panicked | Self::Misused(_) => "internal_error",
        }
    }

    /// Returns the contract's status for the reason.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::KeyMissing | Self::KeyInvalid(_) | Self::KeyRepeated | Self::BodyUnreadable => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict { .. }
            | Self::InProgress { .. }
            | Self::Interrupted { .. }
            | Self::ResultUnavailable { .. } => StatusCode::CONFLICT,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::OutcomeUnknown | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::RecordDamaged | Self::Panicked | Self::Misused(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// Returns the time after which a client may retry with the same key (1 second), or `None` if a
    /// retry cannot help.
    pub fn retry_after(&self) -> Option<Duration> {
        let helps = Named::by_code(self.code()).is_some_and(|named| named.meaning.is_retryable());
        helps.then_some(Duration::from_secs(RETRY_AFTER_SECONDS))
    }

    /// Returns the other request that the reason names, with the contract's name for the field.
    pub fn other_request(&self) -> Option<(&'static str, &RequestId)> {
        match self {
            Self::Conflict { original, .. } => Some(("conflicts_with", original)),
            Self::InProgress { holder } => Some(("in_progress_request_id", holder)),
            Self::Interrupted { original } => Some(("interrupted_request_id", original)),
            Self::ResultUnavailable { original } => Some(("original_request_id", original)),
            _ => None,
        }
    }
}

/// The reason why a key was not granted. The handler did not run, so the key may be retried.
impl From<&Error> for Reason {
    fn from(error: &Error) -> Self {
        match error {
            Error::Limit { limit, .. } if is_a_clients_own(*limit) => Self::TooManyRequests,
            Error::Volatile => Self::Misused(
                "the handler needs durable claims; call `.durable(true)` on its idempotency layer",
            ),
            Error::Ttl { .. } => Self::Misused(
                "the idempotency layer's `ttl` must be from 1 ms to the store's own `ttl`",
            ),
            Error::Corrupt { .. } => Self::RecordDamaged,
            _ => Self::Unavailable,
        }
    }
}

fn too_large(max: Option<usize>) -> String {
    match max {
        Some(max) => format!("a request with an idempotency key takes at most {max} bytes"),
        None => "the request's body is too large".to_owned(),
    }
}

/// Returns whether the limit is one client's own, so that other clients are still served.
fn is_a_clients_own(limit: Limit) -> bool {
    matches!(limit, Limit::InFlightPerScope | Limit::WaitersPerKey | Limit::OpenClaimsPerScope)
}

/// Returns a response with a JSON body, and with the headers that HTTP has for the reason.
fn json(reason: &Reason, status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    let body = serde_json::to_vec(body).expect("strings and numbers are always JSON");
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    advise(reason, headers);
    response
}

/// Adds `Retry-After` where a retry can help, and `WWW-Authenticate` for missing credentials.
fn advise(reason: &Reason, headers: &mut HeaderMap) {
    if let Some(delay) = reason.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs()));
    }
    if let Reason::Unauthorized { expected } = reason {
        for challenge in expected.challenges() {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
    }
}
