//! An earlier request with a key, as those who decide about it see it.

use crate::{Record, RequestId};

/// An earlier request with the key, of which a client is to hear; the argument of
/// [`authorize_replay`](super::IdempotencyLayer::authorize_replay).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Earlier {
    /// The id of the earlier request; `None` if its record is damaged.
    pub request_id: Option<RequestId>,
    /// The record of the earlier request; `None` while it runs, if it was interrupted, and if its
    /// record cannot be read.
    pub record: Option<Record>,
}
