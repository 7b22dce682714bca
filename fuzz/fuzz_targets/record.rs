//! The codec: any bytes are a record or are refused, and every record survives encoding exactly.

#![no_main]

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use refrain::backend::Completion;
use refrain::internals::{decode_record, encode_record};
use refrain::record::Trailers;
use refrain::{Fingerprint, Key, Record, Scope};

/// The fields of a record. Fields outside their grammar are left out.
#[derive(Arbitrary)]
struct Fields<'a> {
    key: &'a [u8],
    ttl_ms: u64,
    status: u16,
    headers: Vec<(&'a [u8], &'a [u8])>,
    trailers: Option<Vec<(&'a [u8], &'a [u8])>>,
    body: &'a [u8],
}

fuzz_target!(|input: &[u8]| {
    if let Some(record) = decode_record(&Bytes::copy_from_slice(input)) {
        let Some(response) = record.response() else { return };
        return survives(&"key".parse().unwrap(), ttl(&record), response);
    }
    let Ok(fields) = Fields::arbitrary_take_rest(Unstructured::new(input)) else { return };
    let Ok(key) = Key::from_header(fields.key) else { return };
    survives(&key, Duration::from_millis(fields.ttl_ms), &response(&fields));
});

/// Encodes and decodes, and encodes to the same bytes again.
fn survives(key: &Key, kept_for: Duration, response: &Response<Bytes>) {
    let scope = Scope::new("fuzz");
    let bytes = encode_record(scope, key, &completion(kept_for, response));
    let record = decode_record(&bytes.clone().into()).expect("it was encoded");
    let stored = record.response().expect("it had one");
    assert_eq!(ttl(&record), kept_for);
    assert_eq!(stored.status(), response.status());
    assert_eq!(stored.headers(), response.headers());
    assert_eq!(stored.body(), response.body());
    assert_eq!(stored.extensions().get::<Trailers>(), response.extensions().get());
    assert_eq!(encode_record(scope, key, &completion(kept_for, stored)), bytes);
}

fn completion(ttl: Duration, response: &Response<Bytes>) -> Completion {
    Completion {
        fingerprint: Fingerprint::from_bytes([9; 32]),
        request_id: "req_81".parse().expect("it is within the grammar"),
        ttl,
        response: Some(response.clone()),
    }
}

fn ttl(record: &Record) -> Duration {
    record.expires_at().duration_since(record.completed_at()).expect("it expires later")
}

fn response(fields: &Fields<'_>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(fields.body));
    *response.status_mut() = StatusCode::from_u16(fields.status).unwrap_or_default();
    *response.headers_mut() = map(&fields.headers);
    if let Some(trailers) = &fields.trailers {
        response.extensions_mut().insert(Trailers(map(trailers)));
    }
    response
}

fn map(pairs: &[(&[u8], &[u8])]) -> HeaderMap {
    let pairs = pairs.iter().filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    let mut map = HeaderMap::new();
    for (name, value) in pairs.take(Record::MAX_HEADERS) {
        map.append(name, value);
    }
    map
}
