//! The latest entries of frozen logs, on their way into a segment.
//!
//! Entries are read in the order of their offsets, and sorted by their addresses. A damaged entry is
//! known by the hash of its address, and goes into the segment as what it is.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bytes::Bytes;

use crate::address_map::AddressHashMap;
use crate::clock::Moment;
use crate::codec::{Malformed, Stored};
use crate::engine::entry::{self, Entry, Parts};
use crate::engine::log::{Addresses, Frozen, Location};
use crate::engine::segment::{Damaged, Item, Kept, MAX_INLINE_BYTES, Sealed};
use crate::error::{Error, Result};

use super::values::{Keeper, LargeBytes};

/// The entries whose addresses are read between two pauses.
const ENTRIES_AT_A_TIME: usize = 8192;

/// The logs that are read, and the rules for what is read.
pub(super) struct Reading<'a> {
    pub(super) logs: &'a [Frozen],
    /// The moment by which an entry must not have expired.
    pub(super) now: Moment,
    /// The longest TTL that a damaged entry can have.
    pub(super) longest_ttl: Duration,
    /// The bytes that have gone into the segment since this was last taken.
    pub(super) sealed: Cell<u64>,
}

/// The latest entry of each address, in the order of the logs and of the offsets in each.
pub(super) struct Latest(Vec<Found>);

/// An indexed entry: the hash of its address, the number of its log, and its location there.
#[derive(Clone, Copy)]
struct Found {
    hash: u128,
    log: usize,
    location: Location,
}

/// An entry with its address, to sort by.
pub(super) struct Place {
    scope: [u8; 32],
    key: Vec<u8>,
    found: Found,
    /// A larger entry has been read, and this is what came of it: nothing if it has expired.
    large: Option<Option<Item>>,
}

impl Latest {
    /// Collects the latest entries of these logs.
    pub(super) fn of(logs: &[Frozen]) -> Self {
        let mut newest = AddressHashMap::default();
        for (log, frozen) in logs.iter().enumerate() {
            let found = |(hash, location)| (hash, Found { hash, log, location });
            newest.extend(frozen.log.locations().map(found));
        }
        let mut newest: Vec<Found> = newest.into_values().collect();
        newest.sort_unstable_by_key(|found| (found.log, found.location.offset));
        Self(newest)
    }

    /// Returns the bytes of the larger entries.
    pub(super) fn large_bytes(&self) -> LargeBytes {
        let large = self.0.iter().filter(|found| found.is_large());
        large.fold(LargeBytes::default(), |sum, found| LargeBytes {
            entries: sum.entries + 1,
            bytes: sum.bytes + u64::from(found.location.length),
        })
    }

    /// Reads the address of each entry, and all of the larger ones, which `keeper` keeps. Returns
    /// them in the order of their addresses.
    pub(super) fn sorted(
        self,
        reading: &Reading<'_>,
        keeper: &RefCell<Keeper>,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Place>> {
        let logs = reading.logs.iter();
        let mut addresses: Vec<_> =
            logs.map(|frozen| Addresses::of(&frozen.log, frozen.end)).collect();
        let mut places = Vec::with_capacity(self.0.len());
        let mut since_pause = 0;
        for found in self.0 {
            if since_pause >= ENTRIES_AT_A_TIME {
                pace()?;
                since_pause = 0;
            }
            // A pause counts bytes too: a large entry takes as long as many small ones.
            since_pause += 1 + found.location.length as usize / 256;
            // An address that cannot be read is that of a damaged entry, which has no row.
            let (scope, key) = addresses[found.log].read(found.location).unwrap_or_default();
            let large = found.is_large().then(|| found.item(reading, keeper)).transpose()?;
            places.push(Place { scope, key, found, large });
        }
        places.sort_unstable_by(|a, b| (a.scope, &a.key).cmp(&(b.scope, &b.key)));
        Ok(places)
    }
}

impl Place {
    /// Returns what goes into the segment, unless the entry has expired.
    pub(super) fn item(
        self,
        reading: &Reading<'_>,
        keeper: &RefCell<Keeper>,
    ) -> Result<Option<Item>> {
        let length = u64::from(self.found.location.length);
        reading.sealed.set(reading.sealed.get() + length);
        match self.large {
            Some(item) => Ok(item),
            None => self.found.item(reading, keeper),
        }
    }
}

impl Found {
    /// Returns true if the entry is too large for a row, whatever its address.
    fn is_large(&self) -> bool {
        self.location.length as usize > MAX_INLINE_BYTES + Parts::MAX_ADDRESS_BYTES
    }

    /// Reads and verifies the entry, and returns what goes into the segment: nothing if the entry
    /// has expired.
    fn item(&self, reading: &Reading<'_>, keeper: &RefCell<Keeper>) -> Result<Option<Item>> {
        let log = &reading.logs[self.log].log;
        let sealed = log.read_entry(self.location).and_then(|bytes| {
            let sealed = self.seal(reading, &bytes);
            Ok((sealed.map_err(|error| log.damaged(self.location, error))?, bytes))
        });
        match sealed {
            Ok((sealed, _)) if sealed.expires <= reading.now => Ok(None),
            Ok((sealed, bytes)) => self.keep(sealed, &bytes, keeper).map(Some),
            // It may be read another time, and until then the others must not wait for it.
            Err(Error::Corrupt { .. } | Error::Io { .. }) => Ok(self.damaged(reading, keeper)),
            Err(error) => Err(error),
        }
    }

    /// Has a larger entry kept.
    fn keep(&self, mut sealed: Sealed, bytes: &Bytes, keeper: &RefCell<Keeper>) -> Result<Item> {
        if let Kept::InLog { log, location, .. } = &mut sealed.kept {
            (*log, *location) = keeper.borrow_mut().keep(self.log, self.hash, *location, bytes)?;
        }
        Ok(Item::Sealed(sealed))
    }

    /// Returns an entry that cannot be read as what it is, unless it has expired.
    fn damaged(&self, reading: &Reading<'_>, keeper: &RefCell<Keeper>) -> Option<Item> {
        let (hash, expires) = (self.hash, self.longest(reading));
        let log = || keeper.borrow_mut().stay(self.log);
        let damaged = || Damaged { hash, expires, log: log(), location: self.location };
        (expires > reading.now).then(damaged).map(Item::Damaged)
    }

    /// Returns the moment at which the entry has expired, whatever it says.
    fn longest(&self, reading: &Reading<'_>) -> Moment {
        self.location.at.plus(reading.longest_ttl)
    }

    /// Decodes the entry, and sets its expiry no earlier than that of what it hides.
    fn seal(&self, reading: &Reading<'_>, bytes: &Bytes) -> Result<Sealed, Malformed> {
        let parts = Parts::of(bytes)?;
        let at = self.location.at;
        let payload = bytes.slice_ref(parts.payload);
        let (expires, kept) = match entry::decode(parts.payload)? {
            Entry::Completion(stored) => (at.plus(stored.ttl()), self.kept(&stored, payload)),
            Entry::Forget(until) => (Moment(until), Kept::Inline(payload)),
            _ => return Err(Malformed("entry is neither a completion nor a forget")),
        };
        // A record that came after a forget must go on hiding the older records.
        let hides = reading.logs.iter().filter_map(|frozen| frozen.log.forgotten_until(self.hash));
        let expires = expires.max(hides.max().unwrap_or_default());
        Ok(Sealed { address: parts.address_hashed(self.hash)?, at, kept, expires })
    }

    fn kept(&self, stored: &Stored<'_>, payload: Bytes) -> Kept {
        if !self.is_large() {
            return Kept::Inline(payload);
        }
        Kept::InLog {
            log: 0,
            location: self.location,
            status: stored.status(),
            bare: stored.encode_bare().into(),
        }
    }
}
