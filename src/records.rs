//! A list of records: [`Records`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::backend::{Cursor, Detail, Listing};
use crate::error::Result;
use crate::face::Face;
use crate::key::Scope;
use crate::listed::Listed;
use crate::ticket::Ticket;

/// The records that an iterator reads at a time.
const PAGE: usize = 256;

/// Live records in the order of the bytes of their scopes and keys, from
/// [`Store::records`](crate::Store::records) and [`Store::all_records`](crate::Store::all_records).
///
/// It is an iterator for threads; tasks ask for a [`next_page`](Self::next_page). All of it is read
/// from the files as they were when it was made, so it is one moment of the store, less what has
/// expired since. Space that is freed meanwhile is given back once it is dropped.
///
/// After an error it ends. To go on behind a part that cannot be read, ask again with a later key.
///
/// ```
/// use bytes::Bytes;
/// use refrain::backend::Listed;
/// use refrain::{Fingerprint, Key, Operation, Outcome, Scope, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::builder().open_in_memory()?;
/// let scope = Scope::from_api_key("sk_live_51");
/// for key in ["b", "a", "c"] {
///     let operation = Operation::new(scope, key.parse()?, Fingerprint::of(["POST", key]));
///     let Outcome::Execute(permit) = store.begin(&operation).wait()? else { unreachable!() };
///     permit.complete(&http::Response::new(Bytes::from(key))).wait()?;
/// }
/// let after: Key = "a".parse()?;
/// let mut keys = Vec::new();
/// for listed in store.records(scope, Some(&after)) {
///     match listed? {
///         Listed::Record { key, .. } => keys.push(key.as_str().to_owned()),
///         Listed::Damaged { error, .. } => return Err(error.into()),
///     }
/// }
/// assert_eq!(keys, ["b", "c"]);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until it is asked for a line"]
pub struct Records {
    face: Arc<Face>,
    scope: Option<Scope>,
    after: Option<Cursor>,
    detail: Detail,
    listing: Option<Box<dyn Listing>>,
    /// The lines that an iterator has read ahead.
    page: VecDeque<Listed>,
    has_ended: bool,
}

impl Records {
    pub(crate) fn new(face: Arc<Face>, scope: Option<Scope>, after: Option<Cursor>) -> Self {
        let mut records = Self {
            face,
            scope,
            after,
            detail: Detail::Summaries,
            listing: None,
            page: VecDeque::new(),
            has_ended: false,
        };
        records.open();
        records
    }

    /// Lists the records with their responses, from the first one on; the moment that is listed is
    /// that of this call.
    pub fn with_responses(mut self) -> Self {
        self.detail = Detail::Responses;
        self.page.clear();
        self.has_ended = false;
        self.open();
        self
    }

    fn open(&mut self) {
        let (scope, after) = (self.scope, self.after.clone());
        self.listing = Some(self.face.backend.records(scope, after, self.detail));
    }

    /// Reads the next lines: at most `max`, and none after the last one. Fewer say nothing: a page
    /// of responses is cut at about a megabyte.
    ///
    /// The embedded engine reads on this thread, and the ticket is ready.
    ///
    /// # Errors
    ///
    /// Those of [`Store::records`](crate::Store::records).
    pub fn next_page(&mut self, max: usize) -> Ticket<Vec<Listed>> {
        if !self.page.is_empty() {
            let count = max.min(self.page.len());
            return Ticket::ready(Ok(self.page.drain(..count).collect()));
        }
        match (self.face.check(), &mut self.listing) {
            (Err(error), _) => Ticket::ready(Err(error)),
            (Ok(()), Some(listing)) if max > 0 => listing.next(max),
            _ => Ticket::ready(Ok(Vec::new())),
        }
    }
}

impl Iterator for Records {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Result<Listed>> {
        if self.page.is_empty() && !self.has_ended {
            match self.next_page(PAGE).wait() {
                Ok(page) => self.page = page.into(),
                Err(error) => {
                    self.end();
                    return Some(Err(error));
                }
            }
            if self.page.is_empty() {
                self.end();
            }
        }
        self.page.pop_front().map(Ok)
    }
}

impl Records {
    /// Lets go of the files.
    fn end(&mut self) {
        self.has_ended = true;
        self.listing = None;
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("scope", &self.scope).finish_non_exhaustive()
    }
}
