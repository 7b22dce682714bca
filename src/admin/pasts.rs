//! The interrupted runs of a store, a page at a time.

use std::collections::VecDeque;

use crate::Key;
use crate::backend::{Cursor, Past};

use super::refusal::Refusal;
use super::{Admin, PAGE};

impl Admin {
    /// Lists the interrupted runs behind `after`.
    pub(super) fn pasts(
        &self,
        after: Option<Cursor>,
    ) -> impl Iterator<Item = Result<Past, Refusal>> + Send + use<> {
        let store = self.store.clone();
        let mut page = VecDeque::new();
        let mut next = Some(after);
        std::iter::from_fn(move || {
            // The next place is kept until the page is used up.
            if page.is_empty()
                && let Some(after) = next.take()
            {
                match store.interrupted(after, PAGE).wait() {
                    Ok(pasts) => page = VecDeque::from(pasts),
                    Err(error) => return Some(Err(error.into())),
                }
                let full = page.back().filter(|_| page.len() == PAGE);
                next = full.map(|past: &Past| Some(past.cursor()));
            }
            page.pop_front().map(Ok)
        })
    }

    /// Finds the interrupted run of a key.
    pub(super) fn past(&self, at: &Cursor) -> Result<Option<Past>, Refusal> {
        let mut pasts = self.pasts(before(at));
        // Those of other keys are in front of it, or behind.
        let reached = pasts.find(|past| past.as_ref().map_or(true, |past| past.cursor() >= *at));
        Ok(reached.transpose()?.filter(|past| past.cursor() == *at))
    }
}

/// Returns a place shortly in front of a key, if there is a key to name it by.
fn before(at: &Cursor) -> Option<Cursor> {
    let (_, shorter) = at.key.as_str().as_bytes().split_last()?;
    Some(Cursor { scope: at.scope, key: Key::from_stored(shorter)? })
}
