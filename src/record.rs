//! A completed key: its use, its response, and the time until which they hold.
//!
//! A [`Completion`] is a record before its commit, which gives it a time. Backends store
//! completions, and hand out records.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::clock::Moment;
use crate::key::{Fingerprint, RequestId};

/// A completed key.
///
/// Clones are cheap: all requests that waited for one key share one record.
///
/// ```
/// use bytes::Bytes;
/// use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::builder().open_in_memory()?;
/// let scope = Scope::from_api_key("sk_live_51");
/// let operation = Operation::new(scope, "9b8cfa7a".parse()?, Fingerprint::of(["POST"]));
/// let Outcome::Execute(permit) = store.begin(&operation).wait()? else { unreachable!() };
/// let record = permit.complete(&http::Response::new(Bytes::from("placed"))).wait()?;
///
/// assert_eq!(record.response().map(|response| &response.body()[..]), Some(&b"placed"[..]));
/// let ttl = record.expires_at().duration_since(record.completed_at())?;
/// assert_eq!(ttl.as_secs(), 24 * 60 * 60);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Record(Arc<Inner>);

struct Inner {
    completion: Completion,
    completed_at: Moment,
}

impl Record {
    /// The largest number of response headers, trailers included, that is stored.
    pub const MAX_HEADERS: usize = 256;
    /// The largest size of all header names and values together, trailers included, that is stored,
    /// in bytes.
    pub const MAX_HEADER_BYTES: usize = 64 * 1024;

    /// Creates the record of a completion that became durable at `completed_at`, for backends.
    ///
    /// Times are kept in whole milliseconds.
    pub fn new(completion: Completion, completed_at: SystemTime) -> Self {
        Self::at(completion, Moment::from_system_time(completed_at))
    }

    pub(crate) fn at(completion: Completion, completed_at: Moment) -> Self {
        Self(Arc::new(Inner { completion, completed_at }))
    }

    /// Returns the stored response, byte for byte. Its [`Trailers`] are in its extensions.
    ///
    /// `None` means that the operation was done and its response was not kept: it was over a limit,
    /// was streamed, or did not fit on a full disk. The operation must not run again even then.
    pub fn response(&self) -> Option<&Response<Bytes>> {
        self.0.completion.response.as_ref()
    }

    /// Returns the stored response, to be sent: as a copy only if the record has other clones.
    pub fn into_response(self) -> Option<Response<Bytes>> {
        let inner = Arc::try_unwrap(self.0);
        inner.map_or_else(
            |shared| shared.completion.response.clone(),
            |only| only.completion.response,
        )
    }

    /// Returns the name of the request that ran the operation.
    pub fn request_id(&self) -> &RequestId {
        &self.0.completion.request_id
    }

    /// Returns the content of the request that used the key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.completion.fingerprint
    }

    /// Returns the time at which the record became durable, by the store's clock. The TTL counts
    /// from this time.
    pub fn completed_at(&self) -> SystemTime {
        self.0.completed_at.to_system_time()
    }

    /// Returns the time from which on the record is no longer replayed.
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

/// The trailers of a stored response, in the response's extensions.
///
/// gRPC reports its status in trailers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers(pub HeaderMap);

/// A successful verdict before its commit: a [`Record`] that has no time yet.
///
/// The two differ in that the commit's time turns a TTL into an expiry.
#[derive(Clone)]
pub struct Completion {
    /// The content of the request that used the key.
    pub fingerprint: Fingerprint,
    /// The name of the request that ran the operation.
    pub request_id: RequestId,
    /// The time for which the record is kept, counted from its commit.
    pub ttl: Duration,
    /// The response; `None` if it is not kept.
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

/// Copies what is stored of a response: status, headers, body and trailers. Those who waited for it
/// get this copy, and must not see what its other extensions say to the layers around the handler.
pub(crate) fn to_store(response: &Response<Bytes>) -> Response<Bytes> {
    let mut stored = Response::new(response.body().clone());
    *stored.status_mut() = response.status();
    *stored.headers_mut() = response.headers().clone();
    if let Some(trailers) = response.extensions().get::<Trailers>() {
        stored.extensions_mut().insert(trailers.clone());
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_its_response_away_whether_or_not_others_share_it() {
        let response = Response::builder().header("a", "1").body(Bytes::from("placed"));
        let completion = Completion {
            fingerprint: Fingerprint::from_bytes([9; 32]),
            request_id: RequestId::random(),
            ttl: Duration::from_secs(1),
            response: Some(response.unwrap()),
        };
        let record = Record::at(completion, Moment(0));
        for given in [record.clone().into_response(), record.into_response()] {
            let (head, body) = given.unwrap().into_parts();
            assert_eq!(
                (head.headers.len(), &head.headers["a"], &body[..]),
                (1, &"1".parse().unwrap(), &b"placed"[..])
            );
        }
    }
}
