//! Run each request once, and replay its answer to every retry.
//!
//! refrain is an embedded storage engine for HTTP idempotency.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod begin;
mod builder;
pub mod clock;
mod commit;
mod disk;
mod engine;
mod entry;
pub mod error;
pub mod key;
mod ledger;
mod locks;
mod log;
mod operation;
mod permit;
mod reaper;
pub mod record;
mod segment;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;
mod settler;
mod stats;
mod store;
mod ticket;
mod writer;

pub use begin::{Begin, Outcome};
pub use builder::Builder;
pub use error::{Error, Result};
pub use key::{Fingerprint, Key, RequestId, Scope};
pub use operation::Operation;
pub use permit::{Attempt, Permit, Retry};
pub use record::Record;
pub use stats::Stats;
pub use store::Store;
pub use ticket::Ticket;
