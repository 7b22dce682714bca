//! How a call can fail.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::http::BoxError;
use crate::key::InvalidKey;
use crate::{Key, RequestId};

use super::call::Call;

/// A call that did not end with an answer to it.
///
/// Whatever the server said stays in [`response`](Self::response). It is cheap to clone, since all who
/// share a call get it.
#[derive(Clone)]
pub struct Error(Arc<Details>);

struct Details {
    call: Call,
    failure: Failure,
    stop: Stop,
    response: Option<Response<Bytes>>,
}

/// What the last attempt met.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The caller's key is none that a server would take. Nothing was sent.
    #[error("{0}")]
    KeyInvalid(InvalidKey),
    /// The request has more than one key. Nothing was sent.
    #[error("the request has more than one idempotency key")]
    KeyRepeated,
    /// The request's body could not be read. Nothing was sent.
    #[error("the request's body could not be read")]
    RequestBody(#[source] BoxError),

    /// The key was used for another request. To ask for this one, use a new key.
    #[error("the key was already used for a different request")]
    Conflict {
        /// The request that used it, if the server's dialect says which.
        original_request_id: Option<RequestId>,
    },
    /// Another request with the key is running.
    #[error("another request with the key is running")]
    InProgress {
        /// The request that runs, if the server's dialect says which.
        holder_request_id: Option<RequestId>,
    },
    /// An earlier request with the key was interrupted, and nobody knows what it did. Find out, and
    /// only then use a new key.
    #[error("an earlier request with the key was interrupted, and its outcome is unknown")]
    Interrupted {
        /// The request that was interrupted, if the server's dialect says which.
        original_request_id: Option<RequestId>,
    },
    /// The call was done, and the server did not keep its answer.
    #[error("the call was done, and its answer was not kept")]
    ResultUnavailable {
        /// The request that did it, if the server's dialect says which.
        original_request_id: Option<RequestId>,
    },
    /// The server ran the call, and could not record it. A later attempt might run it again.
    #[error("the server ran the call, and could not record its outcome")]
    OutcomeUnknown,

    /// The server asks to be asked later.
    #[error("the server answered {status}")]
    Later {
        /// 425, 429, 502, 503, 504, or another under which it said so.
        status: StatusCode,
        /// After how long, if it said so.
        retry_after: Option<Duration>,
    },
    /// The connection failed, or the answer broke off.
    #[error("the request or its answer was lost on the way")]
    Transport(#[source] BoxError),
    /// The answer did not come within the time of an attempt, or of the call.
    #[error("no answer came within {within:?}")]
    TimedOut {
        /// How long it was waited for.
        within: Duration,
    },
}

/// Why there was no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// Another would meet the same, or do harm.
    Final,
    /// The body is too long to be held, or its length is not known, so it could be sent only once.
    BodyNotRepeatable,
    /// The request is neither safe nor under a key.
    NotIdempotent,
    /// All attempts were made.
    Attempts,
    /// The call's time would be over before the next.
    Deadline,
    /// Too many calls failed lately.
    Budget,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Final => "it is not tried again",
            Self::BodyNotRepeatable => {
                "it is not tried again, since its body can be sent only once"
            }
            Self::NotIdempotent => "it is not tried again, since it has no key",
            Self::Attempts => "all its attempts were made",
            Self::Deadline => "its time would be over before the next",
            Self::Budget => "the budget of retries is spent",
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

    /// A call of which nothing was sent.
    pub(super) fn unsent(key: Option<Key>, failure: Failure) -> Self {
        let call = Call { key, ..Call::default() };
        Self::new(call, failure, Stop::Final, None)
    }

    /// What became of the call: its attempts, and the key to go on with.
    pub fn call(&self) -> &Call {
        &self.0.call
    }

    /// What the last attempt met.
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// Why there was no further attempt.
    pub fn stop(&self) -> Stop {
        self.0.stop
    }

    /// The server's last answer, if that was it: its body as far as it is held.
    pub fn response(&self) -> Option<&Response<Bytes>> {
        self.0.response.as_ref()
    }
}

/// Without headers and body: a server may repeat the key there.
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
            1 => write!(f, "after 1 attempt {stop}"),
            attempts => write!(f, "after {attempts} attempts {stop}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0.failure)
    }
}
