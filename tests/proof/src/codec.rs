//! P3, P14: bytes that are no record are refused, and a record survives the codec exactly.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use refrain::backend::Completion;
use refrain::internals::{decode_record, encode_record};
use refrain::{Fingerprint, Key, Scope};

use crate::chance::Chance;
use crate::trial::{self, Failure};

/// Executions of a trial.
const EXECUTIONS: u64 = 100_000;
/// Executions between two records that are encoded anew.
const FRESH: u64 = 64;

/// Decodes many damaged records. What decodes is encoded and decoded again.
///
/// # Errors
///
/// If a record came out otherwise than it went in.
pub fn explore(seed: u64) -> Result<u64, Failure> {
    trial::run(|| format!("codec --seed {seed}"), || exercise(seed).map(|()| EXECUTIONS))
}

fn exercise(seed: u64) -> Result<(), String> {
    let mut chance = Chance::new(seed);
    let mut whole = Vec::new();
    for execution in 0..EXECUTIONS {
        if execution % FRESH == 0 {
            whole = fresh(&mut chance)?;
            continue;
        }
        let mut bytes = whole.clone();
        damage(&mut bytes, &mut chance);
        if let Some(record) = decode_record(&bytes.into())
            && let Some(response) = record.response()
        {
            let kept = record.expires_at().duration_since(record.completed_at());
            let kept = kept.map_err(|_| "it expires before it is completed".to_owned())?;
            survives("key", kept, response)?;
        }
    }
    Ok(())
}

/// A record of a random response, encoded.
fn fresh(chance: &mut Chance) -> Result<Vec<u8>, String> {
    let mut body = vec![0; chance.below(200)];
    body.fill_with(|| chance.draw().to_le_bytes()[0]);
    let mut response = Response::new(Bytes::from(body));
    let status = u16::try_from(100 + chance.below(900)).unwrap_or(200);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    for n in 0..chance.below(4) {
        let name = HeaderName::try_from(format!("x-{}", chance.below(3)));
        let value = HeaderValue::try_from(format!("value {n} {}", chance.draw()));
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().append(name, value);
        }
    }
    let key = format!("key-{}", chance.draw());
    survives(&key, Duration::from_millis(chance.draw() >> 16), &response)
}

/// Encodes and decodes, and encodes to the same bytes again.
fn survives(key: &str, kept: Duration, response: &Response<Bytes>) -> Result<Vec<u8>, String> {
    let key: Key = key.parse().expect("letters, digits and a dash");
    let scope = Scope::new("codec");
    let bytes = encode_record(scope, &key, &completion(kept, response));
    let record = decode_record(&bytes.clone().into());
    let record = record.ok_or_else(|| format!("it does not decode: {bytes:02x?}"))?;
    let stored = record.response().ok_or("its response is gone")?;
    let same = stored.status() == response.status()
        && stored.headers() == response.headers()
        && stored.body() == response.body()
        && encode_record(scope, &key, &completion(kept, stored)) == bytes;
    if same { Ok(bytes) } else { Err(format!("it came out otherwise: {bytes:02x?}")) }
}

fn completion(ttl: Duration, response: &Response<Bytes>) -> Completion {
    Completion {
        fingerprint: Fingerprint::from_bytes([9; 32]),
        request_id: "req_81".parse().expect("letters, digits and an underscore"),
        ttl,
        response: Some(response.clone()),
    }
}

fn damage(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(3) {
        let at = chance.below(bytes.len());
        match chance.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, chance.draw().to_le_bytes()[0]),
            2 => bytes.extend_from_within(at..),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << chance.below(8);
                }
            }
        }
    }
}
