//! One write-ahead log: a commit is acknowledged once its batch is durable here.
//!
//! A log is a header page, then batches at page boundaries; `docs/format.md` has the bytes. Every
//! batch carries digests keyed with a key of the log's own, so that neither a response body nor the
//! earlier content of a recycled file can be mistaken for a batch.
//!
//! Invariants:
//! - One batch is in flight at a time: [`Tail::append`] returns after its fdatasync.
//! - A file has its `.log` name only once its header is durable. A `.log` without a valid header is
//!   damage, never a leftover.
//! - The index holds durable entries only.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::disk::{DiskFile, Pool};
use crate::engine::entry::{End, Found, Parts};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, RwLock};

mod addresses;
mod batch;
mod format;
mod format_1;
mod header;
mod index;
mod making;
mod opening;
mod page;
mod remains;
mod scan;
mod tail;

pub(crate) use addresses::Addresses;
pub(crate) use batch::{Batch, BatchBuilder, Frame};
use format::Format;
pub(crate) use header::Identity;
use header::LogHeader;
use index::Index;
pub(crate) use index::{Change, Location, check_of};
pub(crate) use page::{PAGE, PAGE_BYTES};
pub(crate) use tail::{Frozen, Tail};

const MISMATCH: Malformed = Malformed("entry does not match its digest");

/// A log, open for reading; its [`Tail`] appends to it.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) generation: u64,
    pub(crate) name: String,
    /// Allocated bytes, header included.
    pub(crate) size: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: LogHeader,
    /// The header was damaged when the log was opened, and is known from elsewhere.
    is_header_damaged: bool,
    format: Format,
    /// Set if the file held nothing but zeros when it became this log.
    clean: bool,
    /// Set once the log takes no more batches: what lies behind its end may be cut off.
    frozen: AtomicBool,
    /// The end of the durable batches; `None` if there is none that counts.
    end: Mutex<Option<End>>,
    index: RwLock<Index>,
    /// Shared by all logs that are open on the same file, so that their readers are known.
    readers: Arc<()>,
}

impl Log {
    fn of(header: LogHeader, name: String, path: PathBuf, file: Arc<dyn DiskFile>) -> Self {
        let LogHeader { generation, size, .. } = header;
        let (format, end, index) = (Format::of(&header), Mutex::default(), RwLock::default());
        let (readers, is_header_damaged, clean) = (Arc::default(), false, false);
        Self {
            generation,
            name,
            size,
            file,
            path,
            header,
            is_header_damaged,
            format,
            clean,
            frozen: AtomicBool::new(false),
            end,
            index,
            readers,
        }
    }

    /// Returns true if the header was damaged when the log was opened.
    pub(crate) fn is_header_damaged(&self) -> bool {
        self.is_header_damaged
    }

    /// Allocates all blocks of the log again: a sparse copy has not all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn allocate(&self) -> Result<()> {
        let allocated = self.file.allocate(self.size);
        allocated.map_err(|error| Error::io("allocate", &self.path, error))
    }

    /// Returns the length of the file.
    fn length(&self) -> Result<u64> {
        self.file.len().map_err(|error| Error::io("measure", &self.path, error))
    }

    /// Reads the header and every batch up to the end, and checks that they verify and that every
    /// indexed entry is among them.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first thing that does not verify, and [`Error::Io`].
    pub(crate) fn verify(&self) -> Result<()> {
        let mut indexed: HashMap<_, _> =
            self.locations().map(|(_, place)| (place.offset, place.check)).collect();
        // Read after the index, so that every entry in `indexed` lies before this end.
        let end = *self.end.lock();
        self.verify_header()?;
        let Some(end) = end else { return Ok(()) };
        let (mut offset, mut sequence) = (PAGE, None);
        while offset < end.offset {
            let batch = self.batch_at(offset)?;
            let is_intact = |batch: &Batch| self.format.is_intact(batch);
            let batch = batch.filter(is_intact).ok_or_else(|| self.batch_is_damaged(offset))?;
            if sequence.is_some_and(|sequence| batch.head.sequence != sequence + 1) {
                return Err(self.broken("its batches are not dense"));
            }
            for frame in batch.frames() {
                let place = Location::of(&frame, offset, batch.head.anchor.at);
                if !frame.is_whole {
                    return Err(self.damaged(place, MISMATCH));
                }
                if indexed.get(&place.offset) == Some(&place.check) {
                    indexed.remove(&place.offset);
                }
            }
            sequence = Some(batch.head.sequence);
            offset += batch.span();
        }
        // A log that is kept for its records may hold none any more.
        if (offset, sequence.unwrap_or_default()) != (end.offset, end.sequence) {
            return Err(self.broken("its last batch is not the one that was written last"));
        }
        if indexed.is_empty() { Ok(()) } else { Err(self.broken("an indexed entry is missing")) }
    }

    /// Checks that the file has the header that it was opened with, and is as long as it was.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if not, and [`Error::Io`].
    pub(crate) fn verify_header(&self) -> Result<()> {
        let length = self.length()?;
        // Looked at after the length: a log is frozen before it is cut.
        let needed = if self.frozen.load(Ordering::Acquire) { self.written() } else { self.size };
        if length < needed {
            return Err(self.broken("it is cut short"));
        }
        if self.is_header_damaged {
            return Err(self.broken("its header is damaged, and its content is not"));
        }
        let mut page = [0; PAGE_BYTES];
        self.read(&mut page, 0)?;
        if page == self.header.encode() {
            Ok(())
        } else {
            Err(self.broken("its header is not the one that it was opened with"))
        }
    }

    /// Returns the latest record or forget of an address in this log.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the entry is damaged, and [`Error::Io`] if it cannot be read.
    pub(crate) fn find(&self, address: &Address) -> Result<Option<Found>> {
        let location = self.index.read().entries.get(&address.hash).copied();
        let Some(location) = location else { return Ok(None) };
        let bytes = self.read_entry(location)?;
        let found = Parts::of(&bytes).and_then(|parts| {
            if !parts.is_at(address) {
                return Err(Malformed("entry is under another address"));
            }
            Found::decode(&bytes.slice_ref(parts.payload), location.at)
        });
        found.map(Some).map_err(|error| self.damaged(location, error))
    }

    /// Reads an entry and verifies that it is the indexed one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is not, and [`Error::Io`] if it cannot be read.
    pub(crate) fn read_entry(&self, location: Location) -> Result<Bytes> {
        let mut bytes = vec![0; location.length as usize];
        self.read(&mut bytes, location.offset)?;
        if check_of(&self.format.digest(&bytes)) == location.check {
            Ok(bytes.into())
        } else {
            Err(self.damaged(location, MISMATCH))
        }
    }

    /// Returns true if the log has the format that is written.
    pub(crate) fn is_current(&self) -> bool {
        self.header.entries.is_some()
    }

    /// Returns true if it is known that nothing but zeros lies behind the end of the log. A
    /// recycled log has the bytes of an older one there.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean
    }

    /// Returns this log without its index, to be kept for the records in it.
    pub(crate) fn values(&self, pool: &Arc<Pool>, end: End) -> Self {
        let (name, path) = (self.name.clone(), self.path.clone());
        let log = Self::of(self.header, name, path, Arc::clone(&self.file));
        let (readers, is_header_damaged) = (Arc::clone(&self.readers), self.is_header_damaged);
        Self { readers, is_header_damaged, ..log }.into_values(pool, end)
    }

    /// Returns true if the file is also that of another log, as of one that was frozen and is in an
    /// old snapshot while its records are kept.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.readers) > 1
    }

    /// A log that takes no more batches: what lies behind its end may be cut off.
    fn into_values(mut self, pool: &Arc<Pool>, end: End) -> Self {
        self.file = pool.adopt(&self.name, self.file);
        self.size = end.offset;
        self.set_end(end);
        self
    }

    /// Returns the offset of the end of the durable batches, or 0 if there are none that count.
    pub(crate) fn written(&self) -> u64 {
        self.end.lock().map_or(0, |end| end.offset)
    }

    /// Notes that the log takes no more batches.
    fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    /// Records that everything before this end is durable.
    pub(crate) fn set_end(&self, end: End) {
        *self.end.lock() = Some(end);
    }

    /// Returns true if more than half of the log has been written, so that recycling saves time.
    pub(crate) fn is_mostly_written(&self) -> bool {
        self.written() > self.size / 2
    }

    /// Enters durable entries into the index, oldest first. Lookups find them from then on.
    pub(crate) fn publish(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        self.index.write().enter(changes);
    }

    /// Returns all indexed entries, by the hash of their address, in no order.
    pub(crate) fn locations(&self) -> impl Iterator<Item = (u128, Location)> {
        let index = self.index.read();
        let locations: Vec<_> = index.entries.iter().map(|(h, place)| (*h, *place)).collect();
        locations.into_iter()
    }

    /// Returns the location of the latest entry of an address.
    pub(crate) fn location(&self, hash: u128) -> Option<Location> {
        self.index.read().entries.get(&hash).copied()
    }

    /// Returns the time of the first indexed entry.
    pub(crate) fn first_at(&self) -> Option<Moment> {
        self.index.read().first_at
    }

    /// Returns the moment until which this log's forgets hide older records of an address.
    pub(crate) fn forgotten_until(&self, hash: u128) -> Option<Moment> {
        self.index.read().forgets.get(&hash).copied()
    }

    /// Returns the number of indexed addresses.
    pub(crate) fn len(&self) -> usize {
        self.index.read().entries.len()
    }

    /// The error for an entry that does not verify.
    pub(crate) fn damaged(&self, location: Location, Malformed(reason): Malformed) -> Error {
        Error::corrupt(&self.path, format!("{reason}, at byte {}", location.offset))
    }

    /// The error for a batch that does not verify.
    pub(crate) fn batch_is_damaged(&self, offset: u64) -> Error {
        self.broken(&format!("a batch is damaged at byte {offset}"))
    }

    /// The error for a batch of which too little is left to tell which keys it had.
    pub(crate) fn batch_is_lost(&self, offset: u64) -> Error {
        let reason = format!("a batch at byte {offset} cannot be read, nor which keys it had");
        self.broken(&reason).or_salvage("the keys in it")
    }

    /// The error for a log that does not verify.
    pub(crate) fn broken(&self, reason: &str) -> Error {
        Error::corrupt(&self.path, reason)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupt(&self.path, "it is cut short"),
            io::ErrorKind::InvalidData => Error::corrupt(&self.path, error.to_string()),
            _ => Error::io("read", &self.path, error),
        })
    }
}

/// Returns the name of the log of a generation.
pub(crate) fn log_name(generation: u64) -> String {
    format!("{generation:016x}.log")
}

fn temporary_name(generation: u64) -> String {
    format!("{generation:016x}.log.tmp")
}
