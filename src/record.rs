//! A completed key: its use, its response, and the time until which they hold.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::clock::Moment;
use crate::key::{Fingerprint, RequestId};

/// A completed key.
///
/// Cheap to clone: everyone who waited for one key shares one record.
#[derive(Clone)]
pub struct Record(Arc<Inner>);

struct Inner {
    completion: Completion,
    completed_at: Moment,
}

impl Record {
    /// The most response headers, trailers included, that are stored.
    pub const MAX_HEADERS: usize = 256;
    /// The most bytes of header names and values, trailers included, that are stored.
    pub const MAX_HEADER_BYTES: usize = 64 * 1024;

    /// A record that became durable at this time, for backends.
    ///
    /// Times are kept in milliseconds.
    pub fn new(completion: Completion, completed_at: SystemTime) -> Self {
        Self::at(completion, Moment::from_system_time(completed_at))
    }

    pub(crate) fn at(completion: Completion, completed_at: Moment) -> Self {
        Self(Arc::new(Inner { completion, completed_at }))
    }

    /// The stored response, byte for byte; its [`Trailers`] are an extension of it.
    ///
    /// `None` when the operation was done but its response was not kept: it was over a limit, was
    /// streamed, or did not fit on a full disk. The operation must not run again all the same.
    pub fn response(&self) -> Option<&Response<Bytes>> {
        self.0.completion.response.as_ref()
    }

    /// The request that was answered.
    pub fn request_id(&self) -> &RequestId {
        &self.0.completion.request_id
    }

    /// The use that the key was put to.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.completion.fingerprint
    }

    /// The time at which the record became durable, by the store's clock. The TTL counts from here.
    pub fn completed_at(&self) -> SystemTime {
        self.0.completed_at.to_system_time()
    }

    /// The time from which on the record is no longer replayed.
    pub fn expires_at(&self) -> SystemTime {
        self.expiry().to_system_time()
    }

    pub(crate) fn expiry(&self) -> Moment {
        self.0.completed_at.plus(self.0.completion.ttl)
    }
}

/// Shows neither headers nor body.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("request_id", self.request_id())
            .field("status", &self.response().map(|response| response.status().as_u16()))
            .field("completed_at", &self.completed_at())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// The trailers of a stored response, as an extension of it.
///
/// gRPC reports its status there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers(pub HeaderMap);

/// A verdict that an operation is done, before its commit gives it a time: a [`Record`] without
/// one.
#[derive(Clone)]
pub struct Completion {
    /// The use that the key was put to.
    pub fingerprint: Fingerprint,
    /// The request that was answered.
    pub request_id: RequestId,
    /// The time for which the record is kept, counted from its commit.
    pub ttl: Duration,
    /// The response, or nothing if it was not kept.
    pub response: Option<Response<Bytes>>,
}

/// Shows neither headers nor body.
impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("request_id", &self.request_id)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// Returns whether a response is within the limits for storing it.
pub(crate) fn fits(response: &Response<Bytes>, max_body: usize) -> bool {
    let trailers = response.extensions().get::<Trailers>().map(|Trailers(map)| map);
    let maps = || std::iter::once(response.headers()).chain(trailers);
    let count: usize = maps().map(HeaderMap::len).sum();
    let bytes: usize =
        maps().flat_map(|map| map.iter().map(|(n, v)| n.as_str().len() + v.len())).sum();
    response.body().len() <= max_body
        && count <= Record::MAX_HEADERS
        && bytes <= Record::MAX_HEADER_BYTES
}
