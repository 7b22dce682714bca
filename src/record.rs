//! A completed key: what it was used for, what was answered, and until when that holds.

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

    pub(crate) fn new(completion: Completion, completed_at: Moment) -> Self {
        Self(Arc::new(Inner { completion, completed_at }))
    }

    /// The stored response, byte for byte; its [`Trailers`] are an extension of it.
    ///
    /// `None` when the operation was done but its answer was not kept: it was over a limit, was
    /// streamed, or did not fit on a full disk. The operation must not run again all the same.
    pub fn response(&self) -> Option<&Response<Bytes>> {
        self.0.completion.response.as_ref()
    }

    /// The request that was answered.
    pub fn request_id(&self) -> &RequestId {
        &self.0.completion.request_id
    }

    /// What the key was used for.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.completion.fingerprint
    }

    /// When the record became durable, by the store's clock. The TTL counts from here.
    pub fn completed_at(&self) -> SystemTime {
        self.0.completed_at.to_system_time()
    }

    /// From when on the record is no longer replayed.
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

/// What a verdict says about a key, before the commit gives it a time.
#[derive(Clone)]
pub(crate) struct Completion {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) request_id: RequestId,
    pub(crate) ttl: Duration,
    pub(crate) response: Option<Response<Bytes>>,
}

/// Whether a response is within the limits for storing it.
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
