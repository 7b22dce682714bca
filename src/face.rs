//! A backend with the table of keys in flight in front of it.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, Rules};
use crate::codec::MAX_BODY_BYTES;
use crate::error::{Error, Result};
use crate::observe;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread;
use crate::table::Table;
use crate::ticket::Ticket;

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
        observe::register();
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

    /// Refuses new requests from now on, waits up to `timeout` for those in flight, closes the
    /// backend, and answers with the number of operations that have not ended.
    ///
    /// A thread of its own waits, so that the operations can end on the caller's.
    pub(crate) fn close(self: &Arc<Self>, timeout: Duration) -> Ticket<usize> {
        self.is_closing.store(true, Ordering::Release);
        let (ticket, promise) = Ticket::new();
        let face = Arc::clone(self);
        let closing = move || {
            let closed = face.close_within(timeout);
            // First, so that whoever awaits it and drops the rest finds the directory unlocked.
            drop(face);
            promise.fulfil(closed);
        };
        match thread::Builder::new().name("refrain-close".into()).spawn(closing) {
            Ok(_) => ticket,
            Err(error) => Ticket::ready(Err(Error::unavailable(error))),
        }
    }

    fn close_within(&self, timeout: Duration) -> Result<usize> {
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
