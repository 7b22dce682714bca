//! Run each request once, and replay its answer to every retry.
//!
//! refrain is an embedded storage engine for HTTP idempotency.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod begin;
mod builder;
pub mod clock;
mod disk;
mod engine;
mod entry;
mod error;
mod key;
mod ledger;
mod locks;
mod log;
mod operation;
mod permit;
mod reaper;
mod record;
mod segment;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;
mod stats;
mod store;
mod ticket;
mod writer;

pub use begin::{Begin, Outcome};
pub use builder::Builder;
pub use error::{Error, Limit, Result};
pub use key::{Fingerprint, InvalidKey, InvalidRequestId, Key, RequestId, Scope};
pub use operation::Operation;
pub use permit::{Attempt, Permit, Retry};
pub use record::{Record, Trailers};
pub use stats::Stats;
pub use store::Store;
pub use ticket::Ticket;
