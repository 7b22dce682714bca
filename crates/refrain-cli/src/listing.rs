//! The entries of a store, a page at a time.

use std::collections::VecDeque;

use refrain::backend::{Cursor, Past};
use refrain::{Key, Scope, Store};

use crate::entry::Entry;
use crate::failure::{Failure, Result};

/// The interrupted runs that are asked for at a time.
const PAGE: usize = 256;

/// Lists the records of a scope in the order of their keys.
pub(crate) fn records(
    store: &Store,
    scope: Scope,
    after: Option<&Key>,
) -> impl Iterator<Item = Result<Entry>> + use<> {
    entries(scope, store.records(scope, after))
}

/// Lists the records of a scope with their responses.
pub(crate) fn whole_records(
    store: &Store,
    scope: Scope,
) -> impl Iterator<Item = Result<Entry>> + use<> {
    entries(scope, store.records(scope, None).with_responses())
}

fn entries(scope: Scope, records: refrain::Records) -> impl Iterator<Item = Result<Entry>> + use<> {
    records.map(move |line| Ok(Entry::of(scope, line?)))
}

/// Lists the interrupted runs, those of one scope if one is given.
pub(crate) fn interrupted(
    store: &Store,
    scope: Option<Scope>,
) -> impl Iterator<Item = Result<Past>> {
    let mut page = VecDeque::new();
    let mut next = Some(None);
    let all = std::iter::from_fn(move || {
        if let (true, Some(after)) = (page.is_empty(), next.take()) {
            match read(store, after) {
                Ok((pasts, following)) => (page, next) = (pasts, following.map(Some)),
                Err(failure) => return Some(Err(failure)),
            }
        }
        page.pop_front().map(Ok)
    });
    all.filter(move |past| match (past, scope) {
        (Ok(past), Some(scope)) => past.scope == scope,
        _ => true,
    })
}

/// Reads a page, and the place behind it if there may be more.
fn read(store: &Store, after: Option<Cursor>) -> Result<(VecDeque<Past>, Option<Cursor>)> {
    let page = store.interrupted(after, PAGE).wait().map_err(Failure::Store)?;
    let full = page.last().filter(|_| page.len() == PAGE);
    let next = full.map(|past| Cursor { scope: past.scope, key: past.key.clone() });
    Ok((page.into(), next))
}

/// Finds what is known about a key.
pub(crate) fn find(store: &Store, scope: Scope, key: &Key) -> Result<Option<Entry>> {
    match store.get(scope, key).wait() {
        Ok(Some(record)) => {
            let status = record.response().map(|response| response.status());
            return Ok(Some(Entry::Completed { scope, key: key.clone(), record, status }));
        }
        Ok(None) => {}
        Err(error @ refrain::Error::Corrupt { .. }) => {
            return Ok(Some(Entry::Damaged { scope, key: Some(key.clone()), error }));
        }
        Err(error) => return Err(error.into()),
    }
    let mut runs = interrupted(store, Some(scope));
    let run = runs.find(|past| past.as_ref().map_or(true, |past| past.key == *key));
    run.transpose().map(|past| past.map(Entry::Interrupted))
}
