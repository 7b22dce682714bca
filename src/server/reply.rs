//! The answer to a request, by its origin.

use axum::body::Body;
use http::Response;

use super::dialect::Reason;
use super::guard::Panicked;
use super::unread::Refused;

/// The answer to a request, by its origin.
pub(super) enum Reply {
    Fresh(Response<Body>),
    Replay(Response<Body>),
    Refused(Refused),
}

impl From<Reason> for Reply {
    fn from(reason: Reason) -> Self {
        Self::Refused(Refused::from(reason))
    }
}

impl From<Panicked> for Reply {
    fn from(_: Panicked) -> Self {
        // Nobody knows how far the request was read.
        Self::Refused(Refused { reason: Reason::Panicked, close: true })
    }
}
