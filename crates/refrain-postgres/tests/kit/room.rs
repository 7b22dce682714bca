//! A schema of a test's own on the shared server.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::{Fingerprint, Operation, Outcome, Permit, Scope, Store};
use refrain_postgres::{Builder, Postgres};
use tokio_postgres::Client;
use tokio_postgres::types::FromSqlOwned;

use super::server::{Server, connect, runtime};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Short, so that what waits for a lock is noticed soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// The longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Room {
    pub(crate) schema: String,
    ttl: Duration,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self::with_ttl(DAY)
    }

    pub(crate) fn with_ttl(ttl: Duration) -> Self {
        let room = Self::empty(ttl);
        runtime().block_on(room.builder().migrate(&address())).unwrap();
        room
    }

    /// A schema that is not there yet.
    pub(crate) fn empty(ttl: Duration) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self { schema: format!("room_{}", NEXT.fetch_add(1, Ordering::Relaxed)), ttl }
    }

    pub(crate) fn builder(&self) -> Builder {
        Postgres::builder()
            .schema(&self.schema)
            .ttl(self.ttl)
            .patience(PATIENCE)
            .connections(8)
            .max_response_bytes(64 * 1024)
    }

    /// The store as a node of this name has it.
    pub(crate) fn open(&self, node: &str) -> Store {
        runtime().block_on(self.builder().node(node).connect(&address())).unwrap()
    }

    /// A statement with the schema's name in the place of `SCHEMA`.
    pub(crate) fn sql(&self, text: &str) -> String {
        text.replace("SCHEMA", &self.schema)
    }

    /// Runs statements beside the stores.
    pub(crate) fn run(&self, statements: &str) {
        Server::shared().run(&self.sql(statements));
    }

    /// Asks for one value beside the stores.
    pub(crate) fn ask<T: FromSqlOwned>(&self, question: &str) -> T {
        let client = client();
        runtime().block_on(client.query_one(&self.sql(question), &[])).unwrap().get(0)
    }
}

pub(crate) fn address() -> String {
    Server::shared().address()
}

/// A connection of the test's own.
pub(crate) fn client() -> Client {
    runtime().block_on(connect(Server::shared().port)).unwrap()
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..LIMIT.as_millis() / PAUSE.as_millis() {
        if holds() {
            return;
        }
        runtime().block_on(async { tokio::time::sleep(PAUSE).await });
    }
    panic!("it never came that {what}");
}

pub(crate) fn scope() -> Scope {
    Scope::from_api_key("sk_live_51")
}

pub(crate) fn operation(name: &str) -> Operation {
    Operation::new(scope(), name.parse().unwrap(), Fingerprint::of(["POST", "/transfer", name]))
        .request_id(format!("req_{name}").parse().unwrap())
}

pub(crate) fn response(body: &str) -> Response<Bytes> {
    Response::builder()
        .status(201)
        .header("x-kind", "transfer")
        .body(body.to_owned().into())
        .unwrap()
}

pub(crate) fn execute(store: &Store, operation: &Operation) -> Permit {
    match store.begin(operation).wait_timeout(LIMIT).unwrap() {
        Outcome::Execute(permit) => permit,
        other => panic!("not to be executed: {other:?}"),
    }
}

/// The body that is replayed.
pub(crate) fn replayed(store: &Store, operation: &Operation) -> String {
    match store.begin(operation).wait_timeout(LIMIT).unwrap() {
        Outcome::Replay(record) => body(record.response().expect("the response was kept")),
        other => panic!("not replayed: {other:?}"),
    }
}

pub(crate) fn body(response: &Response<Bytes>) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}
