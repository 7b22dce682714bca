//! The latest entries that the logs have, for a range of addresses: as many as fit the memory that a
//! list may take.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::codec::Malformed;
use crate::engine::entry::{self, Entry, Found, Parts, RawAddress};
use crate::engine::log::{Batch, Frame, Location, Log, PAGE};
use crate::error::{Error, Result};
use crate::key::Address;

/// The bytes of the entries of logs that are in memory at a time. Tests have few entries.
const WINDOW_BYTES: usize = if cfg!(test) { 1024 } else { 4 * 1024 * 1024 };
/// The bytes that an entry takes besides its key, roughly.
const ENTRY_BYTES: usize = 128;

/// The latest entries of the logs in a range of addresses.
#[derive(Debug)]
pub(super) struct Window {
    /// Logs with the ends that they had, oldest first.
    logs: Vec<(Arc<Log>, u64)>,
    /// The scope that is listed; `None` for all.
    scope: Option<[u8; 32]>,
    entries: BTreeMap<RawAddress, InLog>,
    bytes: usize,
    /// Addresses up to this one are not listed.
    after: RawAddress,
    /// Addresses from this one on are not in the window; `None` if all are.
    end: Option<RawAddress>,
    /// Damaged entries whose address cannot be read, by its hash.
    nameless: HashMap<u128, (usize, Location)>,
}

/// The latest entry of a key in the logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct InLog {
    log: usize,
    location: Location,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Record,
    Forgotten,
    Damaged,
}

impl Window {
    /// Creates an empty window over logs with their ends, oldest first, for the addresses behind
    /// `after`, of one scope or of all.
    pub(super) fn new(
        logs: Vec<(Arc<Log>, u64)>,
        scope: Option<[u8; 32]>,
        after: RawAddress,
    ) -> Self {
        Self {
            logs,
            scope,
            entries: BTreeMap::new(),
            bytes: 0,
            after,
            end: None,
            nameless: HashMap::new(),
        }
    }

    /// Reads the logs, and collects the first addresses from where the last window ended.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is unknown which keys a batch had, and [`Error::Io`].
    pub(super) fn load(&mut self, uuid: &[u8; 16]) -> Result<()> {
        let from = self.end.take();
        self.bytes = 0;
        self.nameless.clear();
        for number in 0..self.logs.len() {
            let (log, end) = (Arc::clone(&self.logs[number].0), self.logs[number].1);
            let (mut offset, mut sequence) = (PAGE, None);
            while offset < end {
                let batch = batch_at(&log, offset, sequence)?;
                for frame in batch.frames() {
                    let location = Location::of(&frame, offset, batch.head.anchor.at);
                    let entry = InLog { log: number, location, kind: Kind::Damaged };
                    let read = self.enter(&frame, entry, uuid, from.as_ref());
                    read.map_err(|error| log.damaged(location, error))?;
                }
                sequence = Some(batch.head.sequence + 1);
                offset += batch.span();
            }
        }
        Ok(())
    }

    /// Takes in an entry, if it says something about a record.
    fn enter(
        &mut self,
        frame: &Frame<'_>,
        mut entry: InLog,
        uuid: &[u8; 16],
        from: Option<&RawAddress>,
    ) -> Result<(), Malformed> {
        if !frame.is_whole {
            let Some(hash) = frame.hash.filter(|hash| *hash != 0) else { return Ok(()) };
            match Parts::of(frame.bytes) {
                Ok(parts) if parts.hash128(uuid) == hash => self.insert(&parts, entry, from),
                _ => drop(self.nameless.insert(hash, (entry.log, entry.location))),
            }
            return Ok(());
        }
        let parts = Parts::of(frame.bytes)?;
        let is_listed = self.scope.is_none_or(|scope| *parts.scope == scope);
        let is_awaited = frame.hash.is_some_and(|hash| self.nameless.contains_key(&hash));
        if !is_listed && !is_awaited {
            return Ok(());
        }
        entry.kind = match entry::decode(parts.payload)? {
            Entry::Completion(_) => Kind::Record,
            Entry::Forget(_) => Kind::Forgotten,
            _ => return Ok(()),
        };
        if let Some(hash) = frame.hash {
            self.nameless.remove(&hash);
        }
        self.insert(&parts, entry, from);
        Ok(())
    }

    /// Makes an entry the latest of its address, if that is in the window.
    fn insert(&mut self, parts: &Parts<'_>, entry: InLog, from: Option<&RawAddress>) {
        let address = (parts.scope, parts.key);
        let is_behind = address > borrowed(&self.after)
            && from.is_none_or(|from| address >= borrowed(from))
            && self.scope.is_none_or(|scope| *parts.scope == scope);
        let is_before = self.end.as_ref().is_none_or(|end| address < borrowed(end));
        if !is_behind || !is_before {
            return;
        }
        if self.entries.insert(parts.raw_address(), entry).is_none() {
            self.bytes += parts.key.len() + ENTRY_BYTES;
        }
        // At least one stays, so that the next window gets further.
        while self.bytes > WINDOW_BYTES && self.entries.len() > 1 {
            let Some((last, _)) = self.entries.pop_last() else { break };
            self.bytes -= last.1.len() + ENTRY_BYTES;
            self.end = Some(last);
        }
    }

    /// Returns true if all entries were taken, and the next ones have to be loaded.
    pub(super) fn is_used_up(&self) -> bool {
        self.entries.is_empty() && self.end.is_some()
    }

    /// Returns the first address.
    pub(super) fn first(&self) -> Option<&RawAddress> {
        self.entries.first_key_value().map(|(address, _)| address)
    }

    /// Takes out the entry of an address.
    pub(super) fn take(&mut self, address: &RawAddress) -> Option<InLog> {
        self.entries.remove(address)
    }

    /// Returns the errors of the damaged entries whose addresses cannot be read.
    pub(super) fn nameless(&self) -> impl Iterator<Item = Error> {
        self.nameless.values().map(|(log, location)| misread(&self.logs[*log].0, *location))
    }

    /// Checks that no such entry belongs to this address.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if one does.
    pub(super) fn expect_undamaged(&self, address: &Address) -> Result<()> {
        match self.nameless.get(&address.hash) {
            Some((log, location)) => Err(misread(&self.logs[*log].0, *location)),
            None => Ok(()),
        }
    }

    /// Reads the entry of an address.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is damaged, and [`Error::Io`].
    pub(super) fn read(&self, entry: &InLog, address: &Address) -> Result<Found> {
        let (log, location) = (&self.logs[entry.log].0, entry.location);
        match entry.kind {
            Kind::Forgotten => return Ok(Found::Forgotten),
            Kind::Damaged => return Err(misread(log, location)),
            Kind::Record => {}
        }
        let bytes = log.read_entry(location)?;
        let found = Parts::of(&bytes).and_then(|parts| match parts.is_at(address) {
            true => Found::decode(&bytes.slice_ref(parts.payload), location.at),
            false => Err(Malformed("entry is under another address")),
        });
        found.map_err(|error| log.damaged(location, error))
    }
}

fn borrowed((scope, key): &RawAddress) -> (&[u8; 32], &[u8]) {
    (scope, key)
}

/// Reads a batch, or what is left of it.
///
/// # Errors
///
/// [`Error::Corrupt`] if too little is left to tell which keys it had, and [`Error::Io`].
fn batch_at(log: &Log, offset: u64, sequence: Option<u64>) -> Result<Batch> {
    match log.batch_at(offset) {
        Ok(Some(batch)) => return Ok(batch),
        Err(error) if !matches!(error, Error::Io { .. }) => return Err(error),
        _ => {}
    }
    log.remains_at(offset, sequence)?.ok_or_else(|| log.batch_is_damaged(offset))
}

/// The error for an entry of a log that does not match its digest.
fn misread(log: &Log, location: Location) -> Error {
    log.damaged(location, Malformed("a record is damaged"))
}
