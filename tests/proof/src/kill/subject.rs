//! The store that is killed: its settings, and what is run in it. Parent and child make the same.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use refrain::clock::SimulatedClock;
use refrain::{Builder, Fingerprint, Operation, Outcome, Record, Scope, Store};

use crate::chance::Chance;

use super::words::Sight;

/// The time by which a tick moves the clock.
pub(super) const TICK: Duration = Duration::from_secs(6 * 60 * 60);
/// The time that records live: a few ticks, so that a child of some rounds sees them expire.
pub(super) const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The size of a log: small, so that kills come during rotation and sealing too.
const LOG_BYTES: u64 = 256 * 1024;
const MAX_RESPONSE_BYTES: usize = 32 * 1024;

/// The settings, at a time that is counted in milliseconds from the clock's start.
pub(super) fn builder(now: u64) -> (Builder, SimulatedClock) {
    let clock = SimulatedClock::new();
    clock.advance(Duration::from_millis(now));
    let builder = Store::builder()
        .log_bytes(LOG_BYTES)
        .max_response_bytes(MAX_RESPONSE_BYTES)
        .ttl(TTL)
        .clock(clock.clone());
    (builder, clock)
}

/// Asks for a key, which is named `SCOPE/KEY`.
pub(super) fn operation(name: &str, request: &str) -> Operation {
    let (scope, key) = name.split_once('/').expect("a key is named with its scope");
    let key = key.parse().expect("the names are keys");
    Operation::new(Scope::new(scope), key, Fingerprint::of([name]))
        .request_id(request.parse().expect("the names are request ids"))
}

/// The answer to a request. Its body is of any size, over the limit too.
pub(super) fn response(request: &str) -> Response<Bytes> {
    let seed = request.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31) ^ u64::from(byte));
    let mut chance = Chance::new(seed);
    let length = match chance.below(32) {
        0 => 0,
        1 => MAX_RESPONSE_BYTES + 1,
        2 => chance.below(MAX_RESPONSE_BYTES),
        _ => chance.below(3000),
    };
    let mut body = Vec::with_capacity(length + 8);
    while body.len() < length {
        body.extend_from_slice(&chance.below(usize::MAX).to_le_bytes());
    }
    body.truncate(length);
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::CREATED;
    let name = request.parse().expect("a request id is a header's value");
    response.headers_mut().insert("x-request-id", name);
    response
}

/// Returns true if the response to a request is within the store's limit.
pub(super) fn fits(request: &str) -> bool {
    response(request).body().len() <= MAX_RESPONSE_BYTES
}

impl Sight {
    /// The sight that an outcome gives.
    pub(super) fn of(outcome: &Outcome) -> Result<Self, String> {
        match outcome {
            Outcome::Execute(_) => Ok(Self::Free),
            Outcome::Replay(record) => Self::of_record(record),
            Outcome::Interrupted(attempt) => Ok(Self::Interrupted {
                request: attempt.request_id().to_string(),
                attempt: attempt.number(),
                checkpoints: attempt
                    .checkpoints()
                    .iter()
                    .map(|data| String::from_utf8_lossy(data).into_owned())
                    .collect(),
            }),
            other => Err(format!("one fingerprint and one thread for each key, and {other:?}")),
        }
    }

    /// The sight that a record gives. The record's response must be the one that answered the
    /// request.
    pub(super) fn of_record(record: &Record) -> Result<Self, String> {
        let request = record.request_id().to_string();
        let Some(stored) = record.response() else {
            return Ok(Self::Done { request, kept: false });
        };
        let answered = response(&request);
        let same = stored.status() == answered.status()
            && stored.headers() == answered.headers()
            && stored.body() == answered.body();
        if same {
            Ok(Self::Done { request, kept: true })
        } else {
            Err(format!("what {request} replays is not what it was answered with: {stored:?}"))
        }
    }
}
