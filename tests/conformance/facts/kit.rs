//! The tools that the facts build with. Nothing here asserts.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::{Attempt, Fingerprint, Key, Operation, Outcome, Permit, Record, Scope, Store};

pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn durable(name: &str) -> Operation {
    operation(name).durable()
}

pub(crate) fn scope() -> Scope {
    Scope::from_api_key("sk_live_51")
}

pub(crate) fn key(name: &str) -> Key {
    name.parse().unwrap()
}

pub(crate) fn operation(name: &str) -> Operation {
    Operation::new(scope(), key(name), Fingerprint::of(["POST", "/v1/calls", name]))
        .request_id(format!("req_{name}").parse().unwrap())
}

pub(crate) fn response(body: &str) -> Response<Bytes> {
    Response::builder().status(201).header("x-kind", "call").body(body.to_owned().into()).unwrap()
}

pub(crate) fn begin(store: &Store, operation: &Operation) -> Outcome {
    store.begin(operation).wait().unwrap()
}

pub(crate) fn execute(store: &Store, operation: &Operation) -> Permit {
    match begin(store, operation) {
        Outcome::Execute(permit) => permit,
        other => panic!("not to be executed: {other:?}"),
    }
}

pub(crate) fn interrupted(store: &Store, operation: &Operation) -> Attempt {
    match begin(store, operation) {
        Outcome::Interrupted(attempt) => attempt,
        other => panic!("not interrupted: {other:?}"),
    }
}

/// Drops a permit or an attempt, and waits until the store has noticed: a backend that is asked
/// over a network gives the key up in the background.
pub(crate) fn give_up<T>(store: &Store, permit: T) {
    let before = store.stats().in_flight;
    drop(permit);
    while store.stats().in_flight >= before {
        std::thread::yield_now();
    }
}

/// Runs an operation whose answer is its own name.
pub(crate) fn run(store: &Store, name: &str) -> Record {
    execute(store, &operation(name)).complete(&response(name)).wait().unwrap()
}

/// The body that is replayed, or nothing if the operation would be executed.
pub(crate) fn replayed(store: &Store, name: &str) -> Option<String> {
    match begin(store, &operation(name)) {
        Outcome::Replay(record) => {
            let body = record.response().expect("the response was kept").body().clone();
            Some(String::from_utf8(body.to_vec()).unwrap())
        }
        Outcome::Execute(_) => None,
        other => panic!("neither replayed nor executed: {other:?}"),
    }
}
