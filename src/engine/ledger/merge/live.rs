//! The live entries of several segments, and the places where their bytes go.
//!
//! Of each address the newest row counts. A larger record stays in its log or is copied into a new
//! one; a damaged entry stays where it is, should the disk give it back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::entry::{self, Entry, Parts};
use crate::engine::ledger::sieve::Sieve;
use crate::engine::ledger::values::Keeper;
use crate::engine::segment::{
    Content, Cursor, Damaged, Item, Kept, MAX_INLINE_BYTES, OwnedRow, Sealed, Segment,
};
use crate::error::{Error, Result};
use crate::key::Address;

use super::rewriting::Rewriting;

/// The rows that are merged between two pauses.
const ROWS_AT_A_TIME: usize = 512;
/// The bytes of a larger record that take as long to copy as one row.
const BYTES_OF_A_ROW: usize = 2048;

/// The live entries of several segments, in the order of their addresses.
pub(super) struct Live<'a, P> {
    /// Newest first, each with its next row.
    heads: Vec<(Cursor, Option<OwnedRow>)>,
    run: &'a [Arc<Segment>],
    sieve: Option<&'a Sieve<'a>>,
    /// The number of each segment's first log among the sources.
    firsts: &'a [usize],
    keeper: &'a RefCell<Keeper>,
    /// The damaged addresses by their hash, with the number of their segment.
    damaged: HashMap<u128, (usize, Damaged)>,
    uuid: [u8; 16],
    now: Moment,
    pace: &'a RefCell<P>,
    since_pause: usize,
}

impl<'a, P: FnMut() -> Result<()>> Live<'a, P> {
    /// Goes to the first row of each segment.
    pub(super) fn open(
        rewriting: &'a Rewriting<'a>,
        firsts: &'a [usize],
        keeper: &'a RefCell<Keeper>,
        uuid: [u8; 16],
        pace: &'a RefCell<P>,
    ) -> Result<Self> {
        let Rewriting { run, now, sieve, .. } = *rewriting;
        let head = |segment| {
            let mut cursor = Cursor::open(segment)?;
            let row = cursor.next()?;
            Ok((cursor, row))
        };
        let heads = run.iter().map(head).collect::<Result<_>>()?;
        let mut damaged = HashMap::new();
        for (at, segment) in run.iter().enumerate().rev() {
            damaged.extend(segment.damaged().iter().map(|found| (found.hash, (at, *found))));
        }
        Ok(Self { heads, run, sieve, firsts, keeper, damaged, uuid, now, pace, since_pause: 0 })
    }

    /// Returns what goes into the segment for the next address, or `None` after the last one.
    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        loop {
            self.since_pause += 1;
            if self.since_pause >= ROWS_AT_A_TIME {
                self.since_pause = 0;
                self.pace.borrow_mut()()?;
            }
            let Some((segment, row)) = self.take_first()? else { return self.next_damaged() };
            if let Some(item) = self.item(segment, &row)? {
                return Ok(Some(item));
            }
        }
    }

    /// Takes the newest row of the first address, and passes over the older ones.
    fn take_first(&mut self) -> Result<Option<(usize, OwnedRow)>> {
        let heads = self.heads.iter().enumerate();
        let rows = heads.filter_map(|(at, (_, row))| row.as_ref().map(|row| (row, at)));
        let newest = rows.min_by(|(a, _), (b, _)| a.cmp_address(b)).map(|(_, at)| at);
        let Some(newest) = newest else { return Ok(None) };
        let (cursor, head) = &mut self.heads[newest];
        let Some(taken) = std::mem::replace(head, cursor.next()?) else { return Ok(None) };
        for (cursor, head) in &mut self.heads[newest + 1..] {
            if head.as_ref().is_some_and(|row| row.cmp_address(&taken).is_eq()) {
                *head = cursor.next()?;
            }
        }
        Ok(Some((newest, taken)))
    }

    /// Returns what becomes of a row, unless it has expired or is hidden by a damaged entry.
    fn item(&mut self, segment: usize, row: &OwnedRow) -> Result<Option<Item>> {
        let malformed = |error| self.run[segment].malformed(error);
        let address = row.address(&self.uuid).map_err(malformed)?;
        let value = row.value().map_err(malformed)?;
        match self.damaged.get(&address.hash) {
            Some((newer, _)) if *newer < segment => return Ok(None),
            Some(_) => drop(self.damaged.remove(&address.hash)),
            None => {}
        }
        let is_dead = |sieve: &Sieve<'_>| sieve.is_dead(&address, &value);
        if value.expires <= self.now || self.sieve.map_or(Ok(false), is_dead)? {
            return Ok(None);
        }
        let (at, expires, hash) = (value.at, value.expires, address.hash);
        let kept = match value.content {
            Content::Inline(payload) if !is_large(row, payload) => {
                Kept::Inline(Bytes::copy_from_slice(payload))
            }
            Content::Inline(payload) => self.keep_new(segment, row, &address, at, payload)?,
            Content::InLog { log: number, location, status, bare } => {
                let source = self.firsts[segment] + usize::from(number);
                let (log, location) = if self.keeper.borrow().copies(source) {
                    match read(|| self.run[segment].entry_in_log(number, location, row)) {
                        Ok(bytes) => {
                            // A pause counts bytes too.
                            self.since_pause += bytes.len() / BYTES_OF_A_ROW;
                            self.keeper.borrow_mut().keep(source, hash, location, &bytes)?
                        }
                        Err(error) => {
                            let damaged = Damaged { hash, expires, log: number, location };
                            return self.leave(segment, damaged, error).map(Some);
                        }
                    }
                } else {
                    (self.keeper.borrow_mut().stay(source), location)
                };
                Kept::InLog { log, location, status, bare: Bytes::copy_from_slice(bare) }
            }
        };
        Ok(Some(Item::Sealed(Sealed { address, at, kept, expires })))
    }

    /// Copies a larger record out of a row of format 1.
    fn keep_new(
        &self,
        segment: usize,
        row: &OwnedRow,
        address: &Address,
        at: Moment,
        payload: &[u8],
    ) -> Result<Kept> {
        let malformed = |error| self.run[segment].malformed(error);
        let Entry::Completion(stored) = entry::decode(payload).map_err(malformed)? else {
            return Err(malformed(Malformed("a larger entry is no record")));
        };
        let entry = row.entry(payload);
        let (log, location) = self.keeper.borrow_mut().keep_new(address.hash, at, &entry)?;
        let (status, bare) = (stored.status(), stored.encode_bare().into());
        Ok(Kept::InLog { log, location, status, bare })
    }

    /// Takes over a damaged address that no newer row has replaced.
    fn next_damaged(&mut self) -> Result<Option<Item>> {
        while let Some(hash) = self.damaged.keys().next().copied() {
            let Some((segment, damaged)) = self.damaged.remove(&hash) else { continue };
            if damaged.expires <= self.now {
                continue;
            }
            let item = match self.sieve {
                Some(sieve) => self.mend(segment, damaged, sieve)?,
                None => Some(self.stay(segment, damaged)),
            };
            if item.is_some() {
                return Ok(item);
            }
        }
        Ok(None)
    }

    /// Leaves an entry that cannot be read in its log. Where that log must go, nothing remains but
    /// the fact that the entry is damaged.
    ///
    /// # Errors
    ///
    /// The error of reading it, where the log must go and the disk may still give the entry back.
    fn leave(&self, segment: usize, damaged: Damaged, error: Error) -> Result<Item> {
        match error {
            Error::Corrupt { .. } if self.sieve.is_some() => {
                Ok(Item::Damaged(damaged.without_bytes()))
            }
            Error::Corrupt { .. } | Error::Io { .. } if self.sieve.is_none() => {
                Ok(self.stay(segment, damaged))
            }
            error => Err(error),
        }
    }

    /// Leaves a damaged entry in its log.
    fn stay(&self, segment: usize, damaged: Damaged) -> Item {
        if damaged.is_gone() {
            return Item::Damaged(damaged);
        }
        let source = self.firsts[segment] + usize::from(damaged.log);
        let log = self.keeper.borrow_mut().stay(source);
        Item::Damaged(Damaged { log, ..damaged })
    }

    /// Copies a damaged entry that the disk has given back, unless it is dead.
    fn mend(&self, segment: usize, damaged: Damaged, sieve: &Sieve<'_>) -> Result<Option<Item>> {
        let bytes = match read(|| self.run[segment].damaged_entry(&damaged)) {
            Ok(bytes) => bytes,
            Err(_) if sieve.is_hidden(&damaged)? => return Ok(None),
            Err(error) => return self.leave(segment, damaged, error).map(Some),
        };
        if sieve.is_dead_again(&damaged, &bytes)? {
            return Ok(None);
        }
        let source = self.firsts[segment] + usize::from(damaged.log);
        let mut keeper = self.keeper.borrow_mut();
        let (log, location) = keeper.keep(source, damaged.hash, damaged.location, &bytes)?;
        Ok(Some(Item::Damaged(Damaged { log, location, ..damaged })))
    }
}

/// Reads an entry, and once more if that fails: where its log must go this is for good, and a read may
/// fail on the way from a disk that has all of it.
fn read(entry: impl Fn() -> Result<Bytes>) -> Result<Bytes> {
    entry().or_else(|_| entry())
}

/// Returns true if an entry is too large for a row. Rows of format 1 have such entries.
fn is_large(row: &OwnedRow, payload: &[u8]) -> bool {
    row.entry_bytes(payload) > MAX_INLINE_BYTES + Parts::MAX_ADDRESS_BYTES
}
