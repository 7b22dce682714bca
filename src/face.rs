//! A backend with the table of keys in flight in front of it.

use std::sync::Arc;

use crate::backend::Backend;
use crate::table::Table;

/// The two halves of a store, shared by its handles and by the requests that wait.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) table: Arc<Table>,
    pub(crate) backend: Box<dyn Backend>,
}
