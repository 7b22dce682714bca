//! A backend with the table of keys in flight in front of it.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, Rules};
use crate::codec::MAX_BODY_BYTES;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::table::Table;

/// The longest time that a backend may take to close, once nothing is in flight.
const BACKEND_WITHIN: Duration = Duration::from_secs(60);

/// The two halves of a store, shared by its handles and by the requests that wait.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) table: Arc<Table>,
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) rules: Rules,
    is_closing: AtomicBool,
}

impl Face {
    /// Joins a backend and the table in front of it.
    pub(crate) fn new(table: Arc<Table>, backend: impl Backend) -> Self {
        let Rules { ttl, max_response_bytes } = backend.rules();
        // A longer one would be encoded, and never decoded.
        let max_response_bytes = max_response_bytes.min(MAX_BODY_BYTES);
        let rules = Rules { ttl, max_response_bytes };
        Self { table, backend: Box::new(backend), rules, is_closing: AtomicBool::new(false) }
    }

    /// Fails if the store takes no more work.
    pub(crate) fn check(&self) -> Result<()> {
        self.backend.check()?;
        if self.is_closing.load(Ordering::Acquire) { Err(Error::stopped()) } else { Ok(()) }
    }

    /// Refuses new requests, waits up to `timeout` for those in flight, closes the backend, and
    /// returns the number of operations that have not ended.
    pub(crate) fn close(&self, timeout: Duration) -> Result<usize> {
        self.is_closing.store(true, Ordering::Release);
        let left = self.table.close(timeout, &Error::stopped());
        match self.backend.close().wait_timeout(BACKEND_WITHIN) {
            Ok(closed) => closed.map(|()| left),
            Err(_) => Err(Error::unavailable("the backend does not close")),
        }
    }

    /// Closes as the last handle is dropped, without waiting.
    pub(crate) fn abandon(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.table.stop(&Error::stopped());
        drop(self.backend.close());
    }
}
