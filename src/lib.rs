//! refrain

pub mod clock;
mod disk;
mod entry;
mod error;
mod key;
mod locks;
mod log;
mod record;
mod segment;
mod ticket;

pub use error::{Error, Limit, Result};
pub use key::{Fingerprint, InvalidKey, InvalidRequestId, Key, RequestId, Scope};
pub use record::{Record, Trailers};
