//! A backend with the table of keys in flight in front of it.

use std::sync::Arc;

use crate::backend::{Backend, Rules};
use crate::codec::MAX_BODY_BYTES;
use crate::table::Table;

/// The two halves of a store, shared by its handles and by the requests that wait.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) table: Arc<Table>,
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) rules: Rules,
}

impl Face {
    pub(crate) fn new(backend: impl Backend) -> Self {
        let Rules { ttl, max_response_bytes } = backend.rules();
        // A longer one would be encoded, and never decoded.
        let max_response_bytes = max_response_bytes.min(MAX_BODY_BYTES);
        Self {
            table: Arc::clone(backend.table()),
            backend: Box::new(backend),
            rules: Rules { ttl, max_response_bytes },
        }
    }
}
