//! A record's payload as bytes, the same in the log, in a segment and in any database.
//!
//! ```text
//! | format (1) | kind (1) | fingerprint, request id, TTL, response (bincode) |
//! ```
//!
//! Decoding never panics and never allocates more than a bound set by the length of its input;
//! trailing bytes are an error. A payload has no checksum: its keeper adds one.

use std::time::{Duration, SystemTime};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Encode};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::clock::millis;
use crate::key::{Fingerprint, RequestId};
use crate::record::{Completion, Record, Trailers};

/// The largest response body that any store accepts, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// The largest entry: a body, its headers, and the fields around them.
pub(crate) const MAX_ENTRY_BYTES: usize = MAX_BODY_BYTES + 256 * 1024;
pub(crate) const FORMAT: u8 = 1;
/// The decoder's own bound. Headers cost it the size of two slices each, hence the factor.
pub(crate) const CONFIG: Configuration<LittleEndian, Varint, Limit<{ 2 * MAX_ENTRY_BYTES }>> =
    bincode::config::standard().with_limit();

/// The kind of payload that is a completion: its number among the entries of a log.
const COMPLETION: u8 = 2;

/// Encodes a completion as a payload, for the `value` column of a database or for a file.
///
/// The bytes are those of format 1, and stay readable by later versions of this crate. A body is
/// copied once.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// use bytes::Bytes;
/// use refrain::backend::Completion;
/// use refrain::{Fingerprint, codec};
///
/// let response = Some(http::Response::new(Bytes::from("done")));
/// let (fingerprint, request_id) = (Fingerprint::of(["POST"]), "req_81".parse()?);
/// let completion =
///     Completion { fingerprint, request_id, ttl: Duration::from_secs(60), response };
/// let payload = Bytes::from(codec::encode(&completion));
///
/// let record = codec::decode(&payload, UNIX_EPOCH)?;
/// assert_eq!(record.response().map(|response| &response.body()[..]), Some(&b"done"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode(completion: &Completion) -> Vec<u8> {
    let stored = Stored::new(completion);
    let mut payload = Vec::with_capacity(128 + stored.size_hint());
    payload.extend_from_slice(&[FORMAT, COMPLETION]);
    bincode::encode_into_std_write(stored, &mut payload, CONFIG)
        .expect("a vector takes every completion within the limits");
    payload
}

/// Decodes a payload into the record that was completed at this time.
///
/// The body of the response shares the payload's memory. A payload has no checksum, so verify the
/// bytes before you decode them.
///
/// # Errors
///
/// [`Malformed`] if the bytes are not what [`encode`] returns.
pub fn decode(payload: &Bytes, completed_at: SystemTime) -> Result<Record, Malformed> {
    Ok(Record::new(decode_completion(payload)?, completed_at))
}

/// Decodes a payload into the completion that was encoded, for backends that keep the time of its
/// end.
///
/// # Errors
///
/// As for [`decode`].
pub fn decode_completion(payload: &Bytes) -> Result<Completion, Malformed> {
    let content = match &payload[..] {
        [FORMAT, COMPLETION, content @ ..] => content,
        [FORMAT, _, ..] => return Err(Malformed("payload is not a completion")),
        _ => return Err(Malformed("payload has an unknown format")),
    };
    if content.len() > MAX_ENTRY_BYTES {
        return Err(Malformed("payload is too long"));
    }
    match bincode::borrow_decode_from_slice::<Stored<'_>, _>(content, CONFIG) {
        Ok((stored, used)) if used == content.len() => stored.restore(payload),
        Ok(_) => Err(Malformed("payload has trailing bytes")),
        Err(_) => Err(Malformed("payload cannot be decoded")),
    }
}

/// The reason why bytes are not a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

/// The room for the headers that are added to most replays: the mark, the request id, and the length.
/// Without it, a map grows once for each.
const MARKS: usize = 3;

/// A completion in the shape of its bytes.
#[derive(Debug, Clone, PartialEq, Encode, BorrowDecode)]
pub(crate) struct Stored<'a> {
    fingerprint: [u8; 32],
    request_id: &'a str,
    ttl_ms: u64,
    response: Option<StoredResponse<'a>>,
}

#[derive(Debug, Clone, PartialEq, Encode, BorrowDecode)]
struct StoredResponse<'a> {
    status: u16,
    headers: Vec<(&'a str, &'a [u8])>,
    body: &'a [u8],
    trailers: Option<Vec<(&'a str, &'a [u8])>>,
}

impl<'a> Stored<'a> {
    pub(crate) fn new(completion: &'a Completion) -> Self {
        Self {
            fingerprint: *completion.fingerprint.as_bytes(),
            request_id: completion.request_id.as_str(),
            ttl_ms: millis(completion.ttl),
            response: completion.response.as_ref().map(|response| StoredResponse {
                status: response.status().as_u16(),
                headers: pairs(response.headers()),
                body: response.body(),
                trailers: response.extensions().get().map(|Trailers(map)| pairs(map)),
            }),
        }
    }

    /// The bytes that the response takes, roughly.
    pub(crate) fn size_hint(&self) -> usize {
        let Some(response) = &self.response else { return 0 };
        let headers = response.headers.iter().chain(response.trailers.iter().flatten());
        response.body.len() + headers.map(|(n, v)| n.len() + v.len() + 4).sum::<usize>()
    }

    /// Encodes the payload without its response.
    pub(crate) fn encode_bare(&self) -> Vec<u8> {
        let Self { fingerprint, request_id, ttl_ms, .. } = *self;
        let bare = Self { fingerprint, request_id, ttl_ms, response: None };
        let mut payload = vec![FORMAT, COMPLETION];
        bincode::encode_into_std_write(bare, &mut payload, CONFIG)
            .expect("a vector takes every completion within the limits");
        payload
    }

    /// Returns the status of the response, or 0 if it was not kept.
    pub(crate) fn status(&self) -> u16 {
        self.response.as_ref().map_or(0, |response| response.status)
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    #[inline]
    pub(crate) fn restore(&self, payload: &Bytes) -> Result<Completion, Malformed> {
        Ok(Completion {
            fingerprint: Fingerprint::from_bytes(self.fingerprint),
            request_id: request_id(self.request_id)?,
            ttl: self.ttl(),
            response: self.response.as_ref().map(|stored| stored.restore(payload)).transpose()?,
        })
    }
}

impl StoredResponse<'_> {
    fn restore(&self, payload: &Bytes) -> Result<Response<Bytes>, Malformed> {
        let mut response = Response::new(payload.slice_ref(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status)
            .map_err(|_| Malformed("status is outside the grammar"))?;
        *response.headers_mut() = headers(&self.headers, payload)?;
        if let Some(trailers) = &self.trailers {
            response.extensions_mut().insert(Trailers(headers(trailers, payload)?));
        }
        Ok(response)
    }
}

fn pairs(map: &HeaderMap) -> Vec<(&str, &[u8])> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

fn headers(pairs: &[(&str, &[u8])], payload: &Bytes) -> Result<HeaderMap, Malformed> {
    if pairs.len() > Record::MAX_HEADERS {
        return Err(Malformed("too many headers"));
    }
    let mut map = HeaderMap::with_capacity(pairs.len() + MARKS);
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Malformed("header name is outside the grammar"))?;
        let value = HeaderValue::from_maybe_shared(payload.slice_ref(value))
            .map_err(|_| Malformed("header value is outside the grammar"))?;
        map.append(name, value);
    }
    Ok(map)
}

pub(crate) fn request_id(text: &str) -> Result<RequestId, Malformed> {
    text.parse().map_err(|_| Malformed("request id is outside the grammar"))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn completion() -> Completion {
        Completion {
            fingerprint: Fingerprint::from_bytes([9; 32]),
            request_id: "req_81".parse().unwrap(),
            ttl: Duration::from_secs(86_400),
            response: Some(Response::builder().status(201).body(Bytes::from("{}")).unwrap()),
        }
    }

    /// Payloads are on users' disks and in their databases: these bytes never change.
    #[test]
    fn golden_payload_of_format_1() {
        let payload = encode(&completion());
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let nines = "09".repeat(32);
        assert_eq!(hex, format!("0102{nines}067265715f3831fc005c260501c900027b7d00"));
    }

    #[test]
    fn a_payload_survives_and_a_changed_one_is_refused_or_differs() {
        let payload = Bytes::from(encode(&completion()));
        let record = decode(&payload, UNIX_EPOCH).unwrap();
        assert_eq!(record.response().unwrap().status(), 201);
        assert_eq!(record.expires_at(), UNIX_EPOCH + Duration::from_secs(86_400));
        for length in 0..payload.len() {
            assert!(decode(&payload.slice(..length), UNIX_EPOCH).is_err(), "{length} bytes");
        }
        let longer = Bytes::from([&payload[..], b"\0"].concat());
        assert_eq!(decode(&longer, UNIX_EPOCH).unwrap_err().0, "payload has trailing bytes");
        for kind in [0, 1, 3, 4, 5] {
            let other = Bytes::from([&[FORMAT, kind], &payload[2..]].concat());
            assert_eq!(decode(&other, UNIX_EPOCH).unwrap_err().0, "payload is not a completion");
        }
    }
}
