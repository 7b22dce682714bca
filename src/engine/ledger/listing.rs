//! The live records of one scope or of all, in the order of scopes and keys.
//!
//! ```text
//!  logs that are not sealed ──one pass──► window: the next keys, at most 4 MiB of them ─┐
//!  segments, each in the order of keys ──64 rows at a time──────────────────────────────┴─► lines
//! ```
//!
//! Invariants:
//! - Of each key the latest entry counts, and hides all older ones whatever it is.
//! - What is damaged is listed, or ends the list with an error. It is never left out.
//! - The memory does not grow with the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use http::StatusCode;

use crate::backend::Detail;
use crate::cursor::Cursor;
use crate::engine::disk::Disk;
use crate::engine::entry::{Found, RawAddress};
use crate::engine::segment::{OwnedRow, Segment};
use crate::error::{Error, Result};
use crate::key::{Address, Key, Scope};
use crate::listed::Listed;
use crate::record::{Completion, Record};

use super::{Ledger, Snapshot};

mod window;

use window::{InLog, Window};

/// The rows of each segment that are read at a time.
const ROWS_AT_A_TIME: usize = if cfg!(test) { 3 } else { 64 };
/// The bytes of responses after which a page ends.
const PAGE_BYTES: usize = 1024 * 1024;

/// A list under way.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Keeps the files, and has their filters.
    snapshot: Arc<Snapshot>,
    detail: Detail,
    window: Window,
    /// Newest first.
    segments: Vec<Rows>,
    /// The scope that is listed; `None` for all.
    scope: Option<[u8; 32]>,
    /// Addresses up to this one are not listed.
    after: RawAddress,
    /// Addresses whose latest entry in a segment was damaged when it was sealed, with the number of
    /// the segment.
    damaged: BTreeMap<RawAddress, usize>,
    /// Lines that come first.
    first: VecDeque<Listed>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was read. The list starts with damaged records without a key, unless it goes on
    /// behind another one.
    New {
        is_continued: bool,
    },
    Reading,
    /// It ends, with this error if there is one.
    Ending(Option<Error>),
}

/// The rows of a segment.
#[derive(Debug)]
struct Rows {
    segment: Arc<Segment>,
    ahead: VecDeque<OwnedRow>,
    /// The address of the last row that was read.
    after: RawAddress,
    is_done: bool,
}

/// The file that has the latest entry of a key.
enum Latest {
    InLog(InLog),
    /// The number of the segment.
    Row(usize, OwnedRow),
    Damaged(usize),
}

impl Ledger {
    /// Starts a list of the records behind a place, of one scope or of all, as they are now.
    pub(crate) fn list(
        &self,
        scope: Option<Scope>,
        after: Option<Cursor>,
        detail: Detail,
    ) -> Listing {
        let snapshot = self.snapshot();
        let is_continued = after.is_some();
        let scope = scope.map(|scope| *scope.as_bytes());
        // No key is empty, so the first one of a scope is behind this.
        let first = (scope.unwrap_or_default(), Vec::new());
        let after = after.map(|Cursor { scope, key }| (*scope.as_bytes(), key.as_bytes().to_vec()));
        let after = after.map_or(first.clone(), |after| after.max(first));
        let logs = snapshot.logs.iter().rev().map(|log| (Arc::clone(log), log.written()));
        let rows = |segment: &Arc<Segment>| Rows {
            segment: Arc::clone(segment),
            ahead: VecDeque::new(),
            after: after.clone(),
            is_done: false,
        };
        Listing {
            detail,
            window: Window::new(logs.collect(), scope, after.clone()),
            segments: snapshot.segments.iter().map(rows).collect(),
            scope,
            damaged: BTreeMap::new(),
            first: VecDeque::new(),
            state: State::New { is_continued },
            after,
            snapshot,
        }
    }
}

impl Listing {
    /// Reads the next lines: at most `max`, and none after the last one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is unknown which keys were in a part of a file, and [`Error::Io`].
    /// The lines before are returned first.
    pub(crate) fn next(&mut self, ledger: &Ledger, max: usize) -> Result<Vec<Listed>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < max && bytes < PAGE_BYTES {
            let line = match &mut self.state {
                State::Ending(error) => match error.take() {
                    Some(error) if lines.is_empty() => return Err(error),
                    error => {
                        self.state = State::Ending(error);
                        break;
                    }
                },
                State::New { is_continued } => {
                    let is_continued = *is_continued;
                    self.state = State::Reading;
                    self.start(ledger, is_continued).map(|()| None)
                }
                State::Reading => match self.first.pop_front() {
                    Some(line) => Ok(Some(line)),
                    None => self.line(ledger),
                },
            };
            match line {
                Ok(line) => {
                    bytes += line.as_ref().map_or(0, body_bytes);
                    lines.extend(line);
                }
                Err(error) => self.state = State::Ending(Some(error)),
            }
        }
        Ok(lines)
    }

    /// Reads the logs, and finds out what is damaged.
    fn start(&mut self, ledger: &Ledger, is_continued: bool) -> Result<()> {
        self.window.load(&ledger.uuid)?;
        let now = ledger.timeline.now();
        let mut nameless = Vec::new();
        for (number, rows) in self.segments.iter().enumerate() {
            if rows.segment.has_lost_damaged() {
                nameless.push(is_damaged(&rows.segment));
            }
            let damaged = rows.segment.damaged().iter();
            for damaged in damaged.filter(|damaged| damaged.expires > now) {
                match rows.segment.address_of(damaged) {
                    Some(address) if self.scope.is_some_and(|scope| scope != address.0) => {}
                    Some(address) if address <= self.after => {}
                    Some(address) => drop(self.damaged.entry(address).or_insert(number)),
                    None => nameless.push(is_damaged(&rows.segment)),
                }
            }
        }
        if !is_continued {
            let lines = self.window.nameless().chain(nameless);
            self.first.extend(lines.map(|error| Listed::Damaged { at: None, error }));
        }
        Ok(())
    }

    /// Reads the next line, or nothing if the next key has no live record.
    fn line(&mut self, ledger: &Ledger) -> Result<Option<Listed>> {
        let Some(((scope, key), latest)) = self.take_first(ledger)? else {
            self.state = State::Ending(None);
            return Ok(None);
        };
        let malformed = || Error::corrupt(ledger.disk.path(), "a key is outside the grammar");
        let key = Key::from_stored(&key).ok_or_else(malformed)?;
        let address = Address::new(&ledger.uuid, Scope::from_bytes(scope), key);
        match self.found(ledger, &address, &latest) {
            Ok((Found::Record(record), _)) if record.expiry() <= ledger.timeline.now() => Ok(None),
            Ok((Found::Record(record), status)) => Ok(Some(self.show(address, record, status))),
            Ok((Found::Forgotten, _)) => Ok(None),
            Ok((Found::Damaged { until }, _)) if until <= ledger.timeline.now() => Ok(None),
            Ok((Found::Damaged { .. }, _)) => {
                let error = Error::corrupt(ledger.disk.path(), "the record of a key is damaged");
                Ok(Some(damaged_at(address, error)))
            }
            Err(error @ Error::Corrupt { .. }) => Ok(Some(damaged_at(address, error))),
            Err(error) => Err(error),
        }
    }

    /// Takes the first address of all files, with its latest entry.
    fn take_first(&mut self, ledger: &Ledger) -> Result<Option<(RawAddress, Latest)>> {
        if self.window.is_used_up() {
            self.window.load(&ledger.uuid)?;
        }
        for rows in &mut self.segments {
            rows.read_ahead(ledger, self.scope)?;
        }
        let in_window = self.window.first();
        let in_rows = self.segments.iter().filter_map(|rows| rows.ahead.front());
        let in_rows = in_rows.map(|row| &row.address);
        let damaged = self.damaged.first_key_value().map(|(address, _)| address);
        let first = in_window.into_iter().chain(in_rows).chain(damaged).min().cloned();
        let Some(address) = first else { return Ok(None) };
        let mut latest = self.damaged.remove(&address).map(Latest::Damaged);
        for (number, rows) in self.segments.iter_mut().enumerate().rev() {
            if rows.ahead.front().is_some_and(|row| row.address == address)
                && let Some(row) = rows.ahead.pop_front()
                && !matches!(latest, Some(Latest::Damaged(newer)) if newer < number)
            {
                latest = Some(Latest::Row(number, row));
            }
        }
        let in_log = self.window.take(&address).map(Latest::InLog);
        Ok(in_log.or(latest).map(|latest| (address, latest)))
    }

    /// Reads an entry, with the status of its response where that is not read.
    fn found(
        &self,
        ledger: &Ledger,
        address: &Address,
        latest: &Latest,
    ) -> Result<(Found, Option<u16>)> {
        self.window.expect_undamaged(address)?;
        let number = match latest {
            Latest::InLog(entry) => {
                return self.window.read(entry, address).map(|found| (found, None));
            }
            Latest::Row(number, _) | Latest::Damaged(number) => *number,
        };
        // A damaged entry whose key could not be read hides what is older.
        if let Some(newer) = self.damaged_before(ledger, number, address) {
            return self.look_up(ledger, newer, address);
        }
        let segment = &self.segments[number].segment;
        if let Latest::Row(_, row) = latest {
            let read = match self.detail {
                Detail::Summaries => segment.summary(row)?,
                Detail::Responses => segment.record(row)?,
            };
            if let Some(found) = read {
                return Ok(found);
            }
        }
        self.look_up(ledger, segment, address)
    }

    /// Returns the newest of the segments in front of a number whose entry of an address is damaged,
    /// or may be. As for a lookup, those that are ruled out by their filters have none, even where the
    /// list of damaged keys is lost.
    fn damaged_before(
        &self,
        ledger: &Ledger,
        number: usize,
        address: &Address,
    ) -> Option<&Arc<Segment>> {
        let now = ledger.timeline.now();
        let newer = self.segments[..number].iter().map(|rows| &rows.segment);
        let mut newer = newer.filter(|segment| segment.has_damaged(address, now)).peekable();
        newer.peek()?;
        let asked = self.snapshot.segments.that_may_hold(address);
        newer.find(|segment| asked.iter().any(|may_hold| Arc::ptr_eq(may_hold, segment)))
    }

    /// Reads the whole entry of an address in a segment that has one.
    fn look_up(
        &self,
        ledger: &Ledger,
        segment: &Segment,
        address: &Address,
    ) -> Result<(Found, Option<u16>)> {
        match segment.find(&ledger.handles, address)? {
            Some(Found::Damaged { until }) if until > ledger.timeline.now() => {
                Err(is_damaged(segment))
            }
            Some(found) => Ok((found, None)),
            None => Err(segment.broken("a row is missing")),
        }
    }

    fn show(&self, address: Address, record: Record, status: Option<u16>) -> Listed {
        let status = match status {
            Some(status) => StatusCode::from_u16(status).ok(),
            None => record.response().map(http::Response::status),
        };
        let record = match self.detail {
            Detail::Responses => record,
            Detail::Summaries => bare(&record),
        };
        Listed::Record { scope: address.scope, key: address.key, record, status }
    }
}

impl Rows {
    /// Reads the next rows if there are none ahead.
    fn read_ahead(&mut self, ledger: &Ledger, scope: Option<[u8; 32]>) -> Result<()> {
        if !self.ahead.is_empty() || self.is_done {
            return Ok(());
        }
        let handles = &ledger.handles;
        let rows = self.segment.rows_behind(handles, &self.after, scope, ROWS_AT_A_TIME)?;
        self.is_done = rows.len() < ROWS_AT_A_TIME;
        if let Some(last) = rows.last() {
            self.after.clone_from(&last.address);
        }
        self.ahead = rows.into();
        Ok(())
    }
}

/// Returns the line of a record that cannot be read.
fn damaged_at(Address { scope, key, .. }: Address, error: Error) -> Listed {
    Listed::Damaged { at: Some(Cursor { scope, key }), error }
}

/// The error for an entry that could not be read when its segment was made.
fn is_damaged(segment: &Segment) -> Error {
    segment.broken("the record of a key is damaged")
}

/// Returns the record without its response.
fn bare(record: &Record) -> Record {
    if record.response().is_none() {
        return record.clone();
    }
    let ttl = record.expires_at().duration_since(record.completed_at()).unwrap_or_default();
    let (fingerprint, request_id) = (record.fingerprint(), record.request_id().clone());
    let completion = Completion { fingerprint, request_id, ttl, response: None };
    Record::new(completion, record.completed_at())
}

/// Returns the bytes of the body that a line has.
fn body_bytes(line: &Listed) -> usize {
    let Listed::Record { record, .. } = line else { return 0 };
    record.response().map_or(0, |response| response.body().len())
}
