//! The error of a call: the last failure, and the reason for not retrying.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};

use crate::http::BoxError;
use crate::key::InvalidKey;
use crate::{Key, RequestId};

use super::call::Call;

/// The error of a call that got no answer.
///
/// It has the failure of the last attempt ([`failure`](Self::failure)), the reason for not retrying
/// ([`stop`](Self::stop)), and the key to continue with ([`call`](Self::call)). The server's last
/// answer is in [`response`](Self::response). Clones are cheap, because all callers who share a
/// call get the same error.
///
/// ```
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use refrain::client::{Body, ClientLayer, Failure, Stop};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let busy = service_fn(|_: Request<Body>| async {
///     let response = Response::builder().status(503);
///     Ok::<_, std::io::Error>(response.body(Empty::<bytes::Bytes>::new()).expect("it is valid"))
/// });
/// let client = ClientLayer::new().max_attempts(1).layer(busy);
///
/// let error = client.oneshot(Request::post("/v1/calls").body(String::new())?).await.unwrap_err();
/// assert!(matches!(error.failure(), Failure::Later { status, .. } if status.as_u16() == 503));
/// assert_eq!((error.stop(), error.call().attempts()), (Stop::Attempts, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Details>);

struct Details {
    call: Call,
    failure: Failure,
    stop: Stop,
    response: Option<Response<Bytes>>,
}

/// The failure of a call's last attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The caller's key is outside the grammar of keys. Nothing was sent.
    #[error("{0}")]
    KeyInvalid(InvalidKey),
    /// The request has more than one `Idempotency-Key` header. Nothing was sent.
    #[error("the request has more than one idempotency key")]
    KeyRepeated,
    /// Reading the request's body failed. Nothing was sent.
    #[error("cannot read the request body")]
    RequestBody(#[source] BoxError),

    /// The key was used for a different request. Send this one with a new key.
    #[error("the key was already used for a different request")]
    Conflict {
        /// The request that used the key, if the server names it.
        original_request_id: Option<RequestId>,
    },
    /// Another request with the key is running.
    #[error("another request with the key is running")]
    InProgress {
        /// The running request, if the server names it.
        holder_request_id: Option<RequestId>,
    },
    /// An earlier request with the key was interrupted, and its outcome is unknown. Find out what
    /// it did before you use a new key.
    #[error("an earlier request with the key was interrupted, and its outcome is unknown")]
    Interrupted {
        /// The interrupted request, if the server names it.
        original_request_id: Option<RequestId>,
    },
    /// The call succeeded earlier, and the server did not keep the response.
    #[error("the call succeeded, and the server did not keep its response")]
    ResultUnavailable {
        /// The request that succeeded, if the server names it.
        original_request_id: Option<RequestId>,
    },
    /// The server ran the call and has no record of the outcome: it could not be made, or is
    /// damaged. A retry might run it again.
    #[error("the server ran the call and has no record of its outcome")]
    OutcomeUnknown,

    /// The server redirected the request, and the layer did not follow: the redirect changes the
    /// method or the origin, the body can be sent only once, or there were too many redirects.
    ///
    /// 303 says that the server acted, and that the result is at the location. After another
    /// status, mend the address, and send the request again with the same key.
    #[error("the server answered {status}, and the request was not sent on")]
    Redirected {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// The `Location`, as the server sent it. `Debug` does not print it, because it may contain
        /// the key.
        location: HeaderValue,
    },

    /// The server refused the call for now.
    #[error("the server answered {status}")]
    Later {
        /// 408, 425, 429, 502, 503, 504, or another status with a header that asks for a retry.
        status: StatusCode,
        /// The delay that `Retry-After` asks for, if there is one. [`Duration::MAX`] stands for one
        /// that no duration holds.
        retry_after: Option<Duration>,
    },
    /// The connection failed, or the answer broke off. The cause is in the sources.
    #[error("the request or its answer was lost in transit")]
    Transport(#[source] BoxError),
    /// No complete answer arrived within the time limit of the attempt or of the call.
    #[error("no complete answer within {within:?}")]
    TimedOut {
        /// The time that the layer waited.
        within: Duration,
    },
}

/// The reason that the layer made no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// A retry could not succeed, or might run the call twice.
    Final,
    /// The body is too long to buffer, or its length is unknown, so it can be sent only once.
    BodyNotRepeatable,
    /// The method is not safe, and the request has no key.
    NotIdempotent,
    /// The maximum number of attempts was reached.
    Attempts,
    /// The call's deadline would pass before the next attempt.
    Deadline,
    /// The retry budget was used up, because too many calls failed recently.
    Budget,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Final => "not retried",
            Self::BodyNotRepeatable => "not retried, because the body can be sent only once",
            Self::NotIdempotent => "not retried, because the request has no key",
            Self::Attempts => "the maximum number of attempts was reached",
            Self::Deadline => "the deadline would pass before the next attempt",
            Self::Budget => "the retry budget is used up",
        })
    }
}

impl Error {
    pub(super) fn new(
        call: Call,
        failure: Failure,
        stop: Stop,
        response: Option<Response<Bytes>>,
    ) -> Self {
        Self(Arc::new(Details { call, failure, stop, response }))
    }

    /// Returns the error of a call that failed before its first attempt.
    pub(super) fn unsent(key: Option<Key>, failure: Failure) -> Self {
        let call = Call { key, ..Call::default() };
        Self::new(call, failure, Stop::Final, None)
    }

    /// Returns the call's report: its attempts, and the key to continue with.
    pub fn call(&self) -> &Call {
        &self.0.call
    }

    /// Returns the failure of the last attempt.
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// Returns the reason that no further attempt was made.
    pub fn stop(&self) -> Stop {
        self.0.stop
    }

    /// Returns the server's answer to the last attempt, if there was one. A streamed body is left
    /// empty.
    pub fn response(&self) -> Option<&Response<Bytes>> {
        self.0.response.as_ref()
    }
}

/// Leaves out headers and body, because a server may repeat the key there.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { call, failure, stop, response } = &*self.0;
        f.debug_struct("Error")
            .field("call", call)
            .field("failure", failure)
            .field("stop", stop)
            .field("status", &response.as_ref().map(Response::status))
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { call, failure, stop, .. } = &*self.0;
        write!(f, "{failure}; ")?;
        match call.attempts {
            0 => f.write_str("nothing was sent"),
            1 => write!(f, "{stop} (1 attempt)"),
            attempts => write!(f, "{stop} ({attempts} attempts)"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0.failure)
    }
}
