//! One entry of the log, as bytes.
//!
//! ```text
//! | scope (32) | key length (1) | key | format (1) | content (bincode) |
//! |<------------ address ------------>|<------- payload ------------>|
//! ```
//!
//! The digest of an entry covers all of it. A segment keeps the payload alone, because its rows
//! carry the address in their key. Decoding never panics and never allocates more than a
//! bound set by the length of its input; trailing bytes are an error.

use bincode::{BorrowDecode, Decode, Encode};
use bytes::Bytes;

use crate::clock::Moment;
use crate::codec::{CONFIG, FORMAT, MAX_ENTRY_BYTES, Malformed, Stored};
use crate::engine::digest::{Digest, DigestKey};
use crate::key::{Address, Key, Scope};
use crate::record::{Completion, Record};

/// The largest entry without a response, in bytes, whatever its key.
pub(crate) const MAX_BARE_ENTRY_BYTES: usize = 1024;

/// A statement about an address.
#[derive(Debug, Clone, PartialEq, Encode, BorrowDecode)]
pub(crate) enum Entry<'a> {
    /// The first entry of every log, under no address: the log that this one follows.
    Start(Option<End>),
    /// The key is in flight, durably.
    Claim(Claim<'a>),
    /// The key has a record.
    Completion(Stored<'a>),
    /// The claim ended without a result.
    Release,
    /// A recovery point of the claim.
    Checkpoint(&'a [u8]),
    /// The record is gone, and older ones stay hidden until this moment of engine time.
    Forget(u64),
}

/// The last batch of a log that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct End {
    pub(crate) generation: u64,
    /// The offset of the batch that would follow.
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
}

/// The content of a claim: the run of an operation.
#[derive(Debug, Clone, PartialEq, Encode, BorrowDecode)]
pub(crate) struct Claim<'a> {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) request_id: &'a str,
    pub(crate) ttl_ms: u64,
    /// Counts from 1.
    pub(crate) attempt: u32,
    /// The batch of the first attempt, if that is not this entry's.
    pub(crate) first_sequence: Option<u64>,
    /// The time at which this attempt began, if that is not this batch's.
    pub(crate) claimed_at: Option<u64>,
}

/// An entry's bytes with what their frame says, made on the caller's thread.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    /// The hash of the address, or 0 if there is none.
    pub(crate) hash: u128,
}

impl Encoded {
    /// Encodes an entry under an address; a start entry has none.
    pub(crate) fn new(key: &DigestKey, address: Option<&Address>, entry: &Entry<'_>) -> Self {
        let mut bytes = Vec::with_capacity(128 + entry.size_hint());
        match address {
            Some(address) => write_address(address, &mut bytes),
            None => bytes.extend_from_slice(&[0; 33]),
        }
        bytes.push(FORMAT);
        bincode::encode_into_std_write(entry, &mut bytes, CONFIG)
            .expect("a vector takes every entry within the limits");
        let digest = key.digest(&[&bytes]);
        Self { bytes, digest, hash: address.map_or(0, |address| address.hash) }
    }

    /// Encodes the completion of an operation.
    pub(crate) fn completion(key: &DigestKey, address: &Address, completion: &Completion) -> Self {
        Self::new(key, Some(address), &Entry::Completion(Stored::new(completion)))
    }
}

/// Returns the bytes of an entry under an address, with this payload.
pub(crate) fn join(address: &Address, payload: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(Parts::MAX_ADDRESS_BYTES + payload.len());
    write_address(address, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes.into()
}

fn write_address(Address { scope, key, .. }: &Address, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(scope.as_bytes());
    bytes.push(u8::try_from(key.as_bytes().len()).expect("keys are at most 255 bytes"));
    bytes.extend_from_slice(key.as_bytes());
}

/// The bytes of a scope and of a key, in the order of listings.
pub(crate) type RawAddress = ([u8; 32], Vec<u8>);

/// An entry taken apart, its payload still encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) scope: &'a [u8; 32],
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Parts<'a> {
    /// The largest address in an entry, in bytes.
    pub(crate) const MAX_ADDRESS_BYTES: usize = 32 + 1 + Key::MAX_LEN;

    /// Takes an entry apart.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is shorter than its address.
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (scope, rest) = bytes.split_first_chunk().ok_or(Malformed("entry has no scope"))?;
        let (&length, rest) = rest.split_first().ok_or(Malformed("entry has no key length"))?;
        let (key, payload) =
            rest.split_at_checked(usize::from(length)).ok_or(Malformed("entry has no key"))?;
        Ok(Self { scope, key, payload })
    }

    /// Returns true if the entry is under this address.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        self.is_under(address.scope.as_bytes(), address.key.as_bytes())
    }

    /// Returns true if the entry is under this scope and key.
    pub(crate) fn is_under(&self, scope: &[u8; 32], key: &[u8]) -> bool {
        self.scope == scope && self.key == key
    }

    /// Returns the address of the entry; `seed` is the store's uuid.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the key is outside the grammar.
    pub(crate) fn address(&self, seed: &[u8; 16]) -> Result<Address, Malformed> {
        Ok(Address::new(seed, Scope::from_bytes(*self.scope), self.key()?))
    }

    /// Returns the address of the entry, whose hash is known from an index.
    pub(crate) fn address_hashed(&self, hash: u128) -> Result<Address, Malformed> {
        Ok(Address { scope: Scope::from_bytes(*self.scope), key: self.key()?, hash })
    }

    /// Returns the hash of the address, seeded with the store's uuid.
    pub(crate) fn hash128(&self, seed: &[u8; 16]) -> u128 {
        Address::hash_of(seed, self.scope, self.key)
    }

    /// Returns scope and key without checking them.
    pub(crate) fn raw_address(&self) -> RawAddress {
        (*self.scope, self.key.to_vec())
    }

    fn key(&self) -> Result<Key, Malformed> {
        Key::from_stored(self.key).ok_or(Malformed("key is outside the grammar"))
    }
}

/// Decodes the payload of an entry.
///
/// # Errors
///
/// [`Malformed`] if the format is unknown, a length does not fit, or bytes are left over.
pub(crate) fn decode(payload: &[u8]) -> Result<Entry<'_>, Malformed> {
    let (&format, content) = payload.split_first().ok_or(Malformed("entry has no format"))?;
    if format != FORMAT {
        return Err(Malformed("entry has an unknown format"));
    }
    if content.len() > MAX_ENTRY_BYTES {
        return Err(Malformed("entry is too long"));
    }
    match bincode::borrow_decode_from_slice(content, CONFIG) {
        Ok((entry, used)) if used == content.len() => Ok(entry),
        Ok(_) => Err(Malformed("entry has trailing bytes")),
        Err(_) => Err(Malformed("entry cannot be decoded")),
    }
}

/// The latest entry on an address in one file.
#[derive(Debug)]
pub(crate) enum Found {
    Record(Record),
    Forgotten,
    /// It cannot be read, and has expired at this moment, whatever it was.
    Damaged {
        until: Moment,
    },
}

impl Found {
    /// Decodes the payload of an indexed entry. A record shares the payload's memory.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the payload is neither that of a completion nor that of a forget.
    pub(crate) fn decode(payload: &Bytes, at: Moment) -> Result<Self, Malformed> {
        match decode(payload)? {
            Entry::Completion(stored) => Ok(Self::Record(Record::at(stored.restore(payload)?, at))),
            Entry::Forget(_) => Ok(Self::Forgotten),
            _ => Err(Malformed("entry is neither a completion nor a forget")),
        }
    }
}

/// Encodes the entry of a completion, in no particular store.
pub fn encode_record(scope: Scope, key: &Key, completion: &Completion) -> Vec<u8> {
    let address = Address::new(&[0; 16], scope, key.clone());
    Encoded::completion(&DigestKey::from_bytes([0; 32]), &address, completion).bytes
}

/// Decodes an entry as a lookup does, or returns `None` if it is malformed or no record.
///
/// The record shares the memory of `bytes`, and was completed at the Unix epoch.
pub fn decode_record(bytes: &Bytes) -> Option<Record> {
    let parts = Parts::of(bytes).ok()?;
    match Found::decode(&bytes.slice_ref(parts.payload), Moment(0)).ok()? {
        Found::Record(record) => Some(record),
        Found::Forgotten | Found::Damaged { .. } => None,
    }
}

impl Entry<'_> {
    fn size_hint(&self) -> usize {
        match self {
            Entry::Completion(stored) => stored.size_hint(),
            Entry::Checkpoint(data) => data.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::{HeaderName, HeaderValue};
    use http::{HeaderMap, Response};

    use super::*;
    use crate::codec::{self, MAX_BODY_BYTES};
    use crate::key::Fingerprint;
    use crate::record::{Trailers, fits};

    const KEY: DigestKey = DigestKey::from_bytes([0; 32]);

    fn address() -> Address {
        Address::new(&[0; 16], Scope::from_bytes([7; 32]), "key-1".parse().unwrap())
    }

    fn completion() -> Completion {
        let mut response = Response::builder()
            .status(201)
            .header("content-type", "application/json")
            .header("set-cookie", "a=1")
            .header("set-cookie", HeaderValue::from_bytes(b"b=\xff").unwrap())
            .body(Bytes::from_static(b"{\"id\":1}"))
            .unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        response.extensions_mut().insert(Trailers(trailers));
        Completion {
            fingerprint: Fingerprint::from_bytes([9; 32]),
            request_id: "req_81".parse().unwrap(),
            ttl: Duration::from_secs(86_400),
            response: Some(response),
        }
    }

    fn payload(encoded: &Encoded) -> Bytes {
        Bytes::copy_from_slice(Parts::of(&encoded.bytes).unwrap().payload)
    }

    #[test]
    fn a_completion_survives_encoding_exactly() {
        let encoded = Encoded::completion(&KEY, &address(), &completion());
        assert!(Parts::of(&encoded.bytes).unwrap().is_at(&address()));
        let Ok(Found::Record(record)) = Found::decode(&payload(&encoded), Moment(5)) else {
            panic!("it is a record");
        };
        let (stored, original) = (record.response().unwrap(), completion().response.unwrap());
        assert_eq!(stored.status(), original.status());
        assert_eq!(stored.headers(), original.headers());
        assert_eq!(
            stored.headers().iter().collect::<Vec<_>>(),
            original.headers().iter().collect::<Vec<_>>()
        );
        assert_eq!(stored.body(), original.body());
        assert_eq!(stored.extensions().get::<Trailers>(), original.extensions().get::<Trailers>());
        assert_eq!(record.request_id().as_str(), "req_81");
        assert_eq!(record.expiry(), Moment(86_400_005));
    }

    /// Format 1 is on users' disks: these bytes never change.
    #[test]
    fn golden_bytes_of_format_1() {
        let id = "req_81";
        let claim = |first_sequence, claimed_at| {
            Entry::Claim(Claim {
                fingerprint: [9; 32],
                request_id: id,
                ttl_ms: 86_400_000,
                attempt: 2,
                first_sequence,
                claimed_at,
            })
        };
        let nines = "09".repeat(32);
        let end = End { generation: 6, offset: 8192, sequence: 300 };
        let stored = completion();
        for (entry, golden) in [
            (Entry::Start(None), "010000".into()),
            (Entry::Start(Some(end)), "01000106fb0020fb2c01".into()),
            (claim(None, None), format!("0101{nines}067265715f3831fc005c2605020000")),
            (
                claim(Some(300), Some(1000)),
                format!("0101{nines}067265715f3831fc005c26050201fb2c0101fbe803"),
            ),
            (
                Entry::Completion(Stored::new(&stored)),
                format!(
                    "0102{nines}067265715f3831fc005c260501c9030c636f6e74656e742d74797065\
                     106170706c69636174696f6e2f6a736f6e0a7365742d636f6f6b696503613d310a7365742d\
                     636f6f6b696503623dff087b226964223a317d01010b677270632d7374617475730130"
                ),
            ),
            (Entry::Release, "0103".into()),
            (Entry::Checkpoint(b"paid"), "01040470616964".into()),
            (Entry::Forget(1000), "0105fbe803".into()),
        ] {
            let encoded = Encoded::new(&KEY, Some(&address()), &entry);
            let hex: String = encoded.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, format!("{}056b65792d31{golden}", "07".repeat(32)), "{entry:?}");
            assert_eq!(decode(Parts::of(&encoded.bytes).unwrap().payload), Ok(entry));
        }
    }

    #[test]
    fn p14_lengths_that_lie_are_refused_without_allocating() {
        for claimed in [0xfc_u8, 0xfd] {
            let mut content = vec![FORMAT, 4, claimed];
            content.extend([0xff; 8]);
            assert_eq!(decode(&content), Err(Malformed("entry cannot be decoded")));
        }
    }

    #[test]
    fn truncated_and_extended_entries_are_refused() {
        let encoded = Encoded::completion(&KEY, &address(), &completion());
        let whole = payload(&encoded);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        let longer = [&whole[..], b"\0"].concat();
        assert_eq!(decode(&longer), Err(Malformed("entry has trailing bytes")));
    }

    #[test]
    fn the_payload_of_a_completion_is_the_codecs() {
        let encoded = Encoded::completion(&KEY, &address(), &completion());
        assert_eq!(payload(&encoded), codec::encode(&completion()));
    }

    #[test]
    fn the_largest_response_fits_an_entry() {
        let mut response = Response::new(Bytes::from(vec![7; MAX_BODY_BYTES]));
        let value = vec![b'x'; Record::MAX_HEADER_BYTES / Record::MAX_HEADERS - "x-000".len()];
        for n in 0..Record::MAX_HEADERS {
            let name: HeaderName = format!("x-{n:03}").parse().unwrap();
            response.headers_mut().insert(name, HeaderValue::from_bytes(&value).unwrap());
        }
        assert!(fits(&response, MAX_BODY_BYTES));
        let completion = Completion { response: Some(response), ..completion() };
        let encoded = Encoded::completion(&KEY, &address(), &completion);
        assert!(encoded.bytes.len() <= MAX_ENTRY_BYTES, "{}", encoded.bytes.len());
        let Ok(Found::Record(record)) = Found::decode(&payload(&encoded), Moment(5)) else {
            panic!("it is a record");
        };
        assert_eq!(record.response().unwrap().headers().len(), Record::MAX_HEADERS);
    }

    #[test]
    fn the_longest_names_fit_a_bare_entry() {
        let address = Address { key: "k".repeat(255).parse().unwrap(), ..address() };
        let completion = Completion {
            request_id: "r".repeat(128).parse().unwrap(),
            ttl: Duration::MAX,
            response: None,
            ..completion()
        };
        let encoded = Encoded::completion(&KEY, &address, &completion);
        assert!(encoded.bytes.len() <= MAX_BARE_ENTRY_BYTES, "{}", encoded.bytes.len());
    }
}
