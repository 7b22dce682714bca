//! The reason why an operator did not get what was asked for.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::http::causes;
use crate::{Error, Key, RequestId, Scope};

/// The reason why an operator did not get what was asked for.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind, by which a caller decides what to do.
    pub code: Code,
    /// One sentence, with the causes of the store's error if it has some.
    pub message: String,
    /// The store's error. It does not travel.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// The kind of a [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The scope has no such key.
    NotFound,
    /// The key is not in the state that the act is for.
    NotInterrupted,
    /// The request cannot be used.
    BadRequest,
    /// The token is missing or wrong.
    Unauthorized,
    /// Only the socket in the store's directory takes this.
    SocketOnly,
    /// The directory holds something else.
    Occupied,
    /// A request holds the key. Ask again later.
    InFlight,
    /// The store has no room, or too much to do. Ask again later.
    Busy,
    /// The disk is full, and nothing was done.
    Full,
    /// The disk is full, and the act was done without the response.
    LeftOut,
    /// The record, or a part of the store, cannot be read.
    Damaged,
    /// The store takes no more work.
    Stopped,
    /// Anything else.
    #[serde(other)]
    Failed,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), error: None }
    }

    /// Says that nothing is known about a key.
    pub(super) fn unknown(scope: Scope, key: &Key) -> Self {
        Self::new(Code::NotFound, format!("{} is unknown in scope {scope}", key.as_str()))
    }

    /// Says that a verdict was recorded without its response.
    pub(super) fn response_left_out(key: &Key) -> Self {
        let key = key.as_str();
        let message = format!(
            "the disk has no room for the response: {key} is completed without it, and each retry \
             is told that the response is lost"
        );
        Self::new(Code::LeftOut, message)
    }

    /// Says that a request holds a key.
    pub(super) fn in_flight(key: &Key, holder: &RequestId) -> Self {
        let message = format!("{} is in flight for request {holder}", key.as_str());
        Self::new(Code::InFlight, message)
    }

    /// Returns the status of an HTTP response with this refusal.
    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::NotInterrupted | Code::InFlight | Code::Occupied => StatusCode::CONFLICT,
            Code::BadRequest => StatusCode::BAD_REQUEST,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::SocketOnly => StatusCode::FORBIDDEN,
            Code::Busy | Code::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            Code::Full | Code::LeftOut => StatusCode::INSUFFICIENT_STORAGE,
            Code::Damaged | Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Behind | Error::Limit { .. } | Error::Unavailable { .. } => Code::Busy,
            Error::InFlight { .. } => Code::InFlight,
            Error::Foreign { .. } => Code::Occupied,
            Error::Full => Code::Full,
            Error::Corrupt { .. } => Code::Damaged,
            Error::Stopped { .. } | Error::Forked => Code::Stopped,
            _ => Code::Failed,
        };
        Self { code, message: chain(&error), error: Some(error) }
    }
}

/// Says an error with its causes.
pub(super) fn chain(error: &Error) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
