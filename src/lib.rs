//! Run each request once, and replay its answer to every retry: a crash-safe embedded storage
//! engine for HTTP idempotency. A [`Store`] keeps the response to each pair of API-key hash and
//! idempotency key in a directory. It runs requests that share a key one at a time, and forgets a
//! record 24 hours after it succeeded.
//!
//! ```
//! use bytes::Bytes;
//! use http::Response;
//! use refrain::{Fingerprint, Key, Operation, Outcome, Scope, Store};
//!
//! # fn place_call(body: &str) -> Response<Bytes> { Response::new(Bytes::from(body.to_owned())) }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("idempotency");
//! let store = Store::open(path)?; // Store::builder().ttl(..).log_bytes(..).open(path)
//!
//! let body = r#"{"caller_id": "+14155551234"}"#;
//! let scope = Scope::from_api_key("sk_live_51");
//! let key: Key = "9b8cfa7a-1c2d-4a88-b3c0-1d2e3f4a5b6c".parse()?;
//! let fingerprint = Fingerprint::of(["POST", "/v1/calls", body]);
//! let operation = Operation::new(scope, key, fingerprint).request_id("req_81".parse()?);
//!
//! // In a task: store.begin(&operation).await?
//! match store.begin(&operation).wait()? {
//!     Outcome::Execute(permit) => {
//!         let response = place_call(body); // an early return drops the permit
//!         permit.complete(&response).wait()?; // durable from here on
//!     }
//!     Outcome::Replay(record) => println!("send {:?}", record.response()),
//!     Outcome::Conflict { original, .. } => println!("refuse: {original} used the key"),
//!     Outcome::Interrupted(attempt) => println!("find out what {} did", attempt.request_id()),
//!     Outcome::InFlight { holder } => println!("later: {holder} is running"),
//! }
//! # assert!(matches!(store.begin(&operation).wait()?, Outcome::Replay(_)));
//! # Ok(())
//! # }
//! ```
//!
//! # Words
//!
//! - A [`Scope`] is the owner of keys, a [`Key`] is the client's idempotency key, and a
//!   [`Fingerprint`] is the content of the request that uses the key. A [`RequestId`] names one
//!   request.
//! - An [`Operation`] runs once. To *begin* it is to claim its key; the [`Outcome`] tells the caller
//!   to execute it, to replay a record, or to refuse the request.
//! - A [`Permit`] owns a claimed key. Two verdicts end it: *complete* records a response durably,
//!   and *release* frees the key because nothing happened.
//! - A [`Record`] is a completed key. A key is *interrupted* if it was claimed durably and then the
//!   process died or the permit was dropped; an [`Attempt`] is such a run.
//! - A [`Ticket`] is the outcome of a commit that is under way: a future, with `wait` for threads.
//!
//! # Guarantees
//!
//! - When `complete` returns, the record survives a kill, a crash of the system and a power cut.
//! - A replay is byte for byte what was stored, or an error. Damage is never taken for absence.
//! - Requests that share a key run one at a time, and all that wait get the answer of the one that
//!   succeeded.
//! - With [`durable`](Operation::durable) claims, the next request after a crash in mid-operation is
//!   told that the outcome is unknown. By default the operation runs again.
//! - After a failed write or sync nothing more is acknowledged until a new process opens the store.
//!
//! `docs/guarantees.md` lists them with the tests behind each, and what is not promised. Unix only.
//!
//! # Modules
//!
//! - `server` and `client`, behind the features of those names: the tower layers for HTTP servers
//!   and for HTTP clients.
//! - `admin`, behind the feature of that name: what operators ask a running server for.
//! - [`backend`]: the seam for stores on something else than a directory, with [`codec`] for their
//!   records.
//! - [`disk`]: the seam under the embedded engine, for tests that simulate a file system; [`clock`]
//!   simulates time.
//! - [`error`], [`key`], [`record`] and [`salvage`]: types that are rarely named.
//!
//! `cargo doc --open --all-features` shows them all.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod address_map;
#[cfg(feature = "admin")]
#[cfg_attr(docsrs, doc(cfg(feature = "admin")))]
pub mod admin;
mod attempt;
pub mod backend;
mod begin;
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
pub mod clock;
pub mod codec;
mod cursor;
mod engine;
pub mod error;
mod face;
mod health;
#[cfg(any(feature = "server", feature = "client"))]
mod http;
#[doc(hidden)]
pub mod internals;
pub mod key;
mod listed;
mod observe;
mod operation;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod oracles;
mod permit;
pub mod record;
mod records;
pub mod salvage;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;
mod stats;
mod store;
mod sync;
mod table;
mod ticket;

pub use attempt::Attempt;
pub use begin::{Begin, Outcome};
pub use engine::builder::Builder;
pub use engine::disk;
pub use error::{Error, Result};
pub use health::{Concern, Health};
pub use key::{Fingerprint, Key, RequestId, Scope};
pub use operation::Operation;
pub use permit::Permit;
pub use record::Record;
pub use records::Records;
pub use stats::{Counts, Refusing, Stats};
pub use store::Store;
pub use ticket::Ticket;
