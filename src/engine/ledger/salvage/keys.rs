//! The latest entry of each key, over all files.
//!
//! Logs are read in the order of their batches, and then the rows of segments are compared with
//! them: the later entry is the latest one, and of two at the same time the one of the later batch.
//! A row counts as of the last batch that its segment has taken over.

use std::time::Duration;

use bytes::Bytes;

use crate::address_map::AddressHashMap;
use crate::clock::Moment;
use crate::engine::entry::{self, Entry, Parts};
use crate::engine::log::{Frame, Location};
use crate::engine::segment::Damaged;
use crate::key::{Address, Key, Scope};

use super::super::claims::OpenClaim;
use super::sources::{Batches, Place, Sources};

/// All keys of a store.
pub(super) struct Keys {
    states: AddressHashMap<State>,
    /// The time after which a damaged entry has expired, whatever it was.
    pub(super) longest_ttl: Duration,
}

/// The state of one key.
#[derive(Default)]
struct State {
    latest: Option<Latest>,
    claim: Option<(Address, OpenClaim)>,
}

/// The latest entry of a key.
pub(super) struct Latest {
    /// Scope and key, unless they cannot be read.
    pub(super) name: Option<(Scope, Key)>,
    pub(super) at: Moment,
    /// The sequence of its batch, or of the last one in its segment.
    sequence: u64,
    pub(super) found: Found,
}

/// The place of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// In the log of this generation.
    Log { log: u64, location: Location },
    /// The row with this number in the segment with this one.
    Row { segment: usize, row: usize, large: u32 },
    /// It cannot be read, and has expired by then.
    Damaged { until: Moment },
}

impl Keys {
    /// Reads all files.
    pub(super) fn read(sources: &Sources, batches: &Batches, ttl: Duration) -> Self {
        let longest_ttl = sources.longest_ttl.map_or(ttl, Duration::from_millis).max(ttl);
        let mut keys = Self { states: AddressHashMap::default(), longest_ttl };
        // The rows of a whole segment have the latest entries of its logs.
        for (sequence, place) in batches.iter().filter(|(it, _)| !sources.is_in_segment(*it)) {
            keys.read_batch(sources, sequence, place);
        }
        for number in 0..sources.segments.len() {
            keys.read_segment(sources, number);
        }
        keys
    }

    /// Returns the time of the latest entry.
    pub(super) fn latest_at(&self) -> Moment {
        let latest = self.states.values().filter_map(|state| state.latest.as_ref());
        latest.map(|latest| latest.at).max().unwrap_or_default()
    }

    /// Takes out all claims without a verdict.
    pub(super) fn take_claims(&mut self) -> Vec<(Address, OpenClaim)> {
        self.states.values_mut().filter_map(|state| state.claim.take()).collect()
    }

    /// Returns the latest entries, by the hash of their address, in the order of their names; those
    /// without a name first.
    pub(super) fn into_latest(self) -> Vec<(u128, Latest)> {
        let states = self.states.into_iter();
        let mut latest: Vec<_> =
            states.filter_map(|(hash, state)| Some((hash, state.latest?))).collect();
        latest.sort_unstable_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        latest
    }

    fn read_batch(&mut self, sources: &Sources, sequence: u64, place: Place) {
        let Some(log) = sources.log(place.log) else { return };
        let Some((at, batch)) = log.next_batch(place.offset) else { return };
        // Older claims were carried over, unless they had a verdict.
        let has_claims = sequence > sources.sealed;
        for frame in batch.frames().filter(|_| at == place.offset) {
            let location = Location::of(&frame, at, batch.head.anchor.at);
            let entry = Read { sequence, log: place.log, location, has_claims };
            if self.read_entry(&entry, &frame, &sources.store.uuid).is_none() {
                self.note_damaged(&entry, &frame, &sources.store.uuid);
            }
        }
    }

    /// Takes in an entry; `None` if it is damaged.
    fn read_entry(&mut self, read: &Read, frame: &Frame<'_>, uuid: &[u8; 16]) -> Option<()> {
        let Read { sequence, log, location, has_claims } = *read;
        let parts = Parts::of(frame.bytes).ok().filter(|_| frame.is_whole)?;
        let decoded = entry::decode(parts.payload).ok()?;
        if matches!(decoded, Entry::Start(_)) {
            return Some(());
        }
        let address = parts.address(uuid).ok()?;
        let state = self.states.entry(address.hash).or_default();
        match decoded {
            Entry::Completion(_) | Entry::Forget(_) => {
                let name = Some((address.scope, address.key));
                let found = Found::Log { log, location };
                let latest = Some(Latest { name, at: location.at, sequence, found });
                *state = State { latest, claim: None };
            }
            Entry::Claim(claim) if has_claims => {
                let mut claim = OpenClaim::read(&claim, sequence, location.at).ok()?;
                if let Some((_, old)) = state.claim.take()
                    && old.first_sequence == claim.first_sequence
                    && claim.attempt > old.attempt
                {
                    // Later attempts keep the first one's checkpoints.
                    claim.checkpoints = old.checkpoints;
                }
                // The copy of a claim shows that an earlier copy was damaged, and nothing else.
                let is_damaged =
                    |latest: &mut Latest| matches!(latest.found, Found::Damaged { .. });
                state.latest.take_if(is_damaged);
                state.claim = Some((address, claim));
            }
            Entry::Checkpoint(data) => {
                if let Some((_, claim)) = &mut state.claim {
                    claim.checkpoints.push(Bytes::copy_from_slice(data));
                }
            }
            Entry::Release => state.claim = None,
            Entry::Claim(_) | Entry::Start(_) => {}
        }
        Some(())
    }

    /// Takes in an entry that is damaged, by the hash in its frame.
    fn note_damaged(&mut self, read: &Read, frame: &Frame<'_>, uuid: &[u8; 16]) {
        let Some(hash) = frame.hash.filter(|hash| *hash != 0) else { return };
        let address = Parts::of(frame.bytes).ok().and_then(|parts| parts.address(uuid).ok());
        // The name may be whole although the entry is not.
        let address = address.filter(|address| address.hash == hash);
        let name = address.map(|address| (address.scope, address.key));
        let (at, sequence) = (read.location.at, read.sequence);
        let found = Found::Damaged { until: at.plus(self.longest_ttl) };
        let latest = Some(Latest { name, at, sequence, found });
        self.states.insert(hash, State { latest, claim: None });
    }

    fn read_segment(&mut self, sources: &Sources, number: usize) {
        let (segment, uuid) = (&sources.segments[number], &sources.store.uuid);
        let sequence = segment.meta.as_ref().map_or(0, |meta| meta.last_sequence);
        for (row, place) in segment.rows.iter().enumerate() {
            let Some(key) = Key::from_stored(&place.key) else { continue };
            let address = Address::new(uuid, Scope::from_bytes(place.scope), key);
            let state = self.states.entry(address.hash).or_default();
            let is_older = |latest: &Latest| latest.is_until(place.at, sequence);
            if state.latest.as_ref().is_none_or(is_older) {
                let found = Found::Row { segment: number, row, large: place.large };
                let name = Some((address.scope, address.key));
                state.latest = Some(Latest { name, at: place.at, sequence, found });
            }
        }
        for Damaged { hash, expires, location, .. } in segment.damaged.iter().flatten() {
            let state = self.states.entry(*hash).or_default();
            // What a log has at that time was read after the entry had been damaged, or is newer.
            let is_older = |latest: &Latest| match latest.found {
                Found::Log { .. } => latest.at < location.at,
                _ => latest.is_until(location.at, sequence),
            };
            if state.latest.as_ref().is_none_or(is_older) {
                let found = Found::Damaged { until: *expires };
                state.latest = Some(Latest { name: None, at: location.at, sequence, found });
            }
        }
    }
}

impl Latest {
    /// Returns true if the entry is not later than one of this time and sequence.
    fn is_until(&self, at: Moment, sequence: u64) -> bool {
        (self.at, self.sequence) <= (at, sequence)
    }
}

/// An entry that is read, and its place.
#[derive(Clone, Copy)]
struct Read {
    sequence: u64,
    log: u64,
    location: Location,
    has_claims: bool,
}
