//! The chain of started logs: which they are, what they hold, and where each ends.
//!
//! A log's start entry names its predecessor, and where that ends. The newest log ends where nothing
//! verifies; a batch that verifies behind that place tells damage from a torn write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::disk::Disk;
use crate::engine::entry::{self, End, Entry, Parts};
use crate::engine::log::{Batch, Change, Frozen, Location, Log, PAGE};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::sync::thread;

use super::claims::OpenClaim;
use super::manifest::Manifest;

/// Takes the chain of started logs out of those that are listed, and reads them.
pub(super) fn read(
    disk: &dyn Disk,
    manifest: &Manifest,
    logs: &mut BTreeMap<u64, Arc<Log>>,
) -> Result<Vec<Walked>> {
    let mut newest = None;
    for log in logs.values().rev() {
        if log.is_started()? {
            newest = Some(log.generation);
            break;
        }
    }
    let Some(mut generation) = newest else {
        return Err(Error::corrupt(disk.path(), "none of its logs holds a batch"));
    };
    let mut jobs = Vec::new();
    let mut until = None;
    loop {
        let log = logs.remove(&generation).ok_or_else(|| {
            let reason = format!("log {generation:016x} is missing from the chain");
            Error::corrupt(disk.path(), reason)
        })?;
        let start = start_of(&log)?;
        jobs.push((log, start, until));
        until = start;
        match start {
            Some(end) if Some(end.generation) == manifest.sealed.map(|end| end.generation) => {
                if start != manifest.sealed {
                    let reason = "the oldest log does not follow the newest sealed one";
                    return Err(Error::corrupt(disk.path(), reason));
                }
                break;
            }
            Some(end) if end.generation < generation => generation = end.generation,
            None if manifest.sealed.is_none() => break,
            _ => return Err(Error::corrupt(disk.path(), "its logs make no chain")),
        }
    }
    jobs.reverse();
    walk_all(jobs, manifest.uuid)
}

/// A log whose batches have been read, except the newest log's last.
pub(super) struct Walked {
    pub(super) log: Arc<Log>,
    pub(super) start: Option<End>,
    pub(super) end: End,
    claims: Vec<ClaimEvent>,
    /// The newest log's last batch, which is repeated and counts for the new log.
    pub(super) last: Option<Batch>,
    /// The addresses that it completes or forgets.
    ends: HashSet<u128>,
}

impl Walked {
    pub(super) fn into_frozen(self) -> Frozen {
        Frozen { log: self.log, end: self.end }
    }
}

/// Something about a durable claim, where it stands in a log.
pub(super) struct ClaimEvent {
    address: Address,
    offset: u64,
    what: ClaimChange,
}

enum ClaimChange {
    Open(OpenClaim),
    Checkpoint(Bytes),
    End,
}

/// The predecessor that a log names in its first batch.
fn start_of(log: &Log) -> Result<Option<End>> {
    let start = log.batch_at(PAGE)?.as_ref().and_then(start_of_batch);
    start.ok_or_else(|| log.broken("it does not begin with a start entry"))
}

/// The start entry of a batch that is its log's first.
pub(super) fn start_of_batch(batch: &Batch) -> Option<Option<End>> {
    let frame = batch.frames().next()?;
    match entry::decode(Parts::of(frame.bytes).ok()?.payload).ok()? {
        Entry::Start(start) => Some(start),
        _ => None,
    }
}

type Job = (Arc<Log>, Option<End>, Option<End>);

/// Reads the logs of the chain, on all cores: this is most of what opening costs.
fn walk_all(jobs: Vec<Job>, uuid: [u8; 16]) -> Result<Vec<Walked>> {
    thread::scope(|scope| {
        let walks: Vec<_> = jobs
            .into_iter()
            .map(|(log, start, until)| {
                let path = log.name.clone();
                thread::Builder::new()
                    .name("refrain-recovery".into())
                    .spawn_scoped(scope, move || walk(log, start, until, uuid))
                    .map_err(|error| Error::io("start a thread to read", path, error))
            })
            .collect();
        walks.into_iter().map(|walk| walk?.join().expect("reading a log does not panic")).collect()
    })
}

/// Reads a log up to where it ends: where its successor says, or where nothing verifies.
fn walk(log: Arc<Log>, start: Option<End>, until: Option<End>, uuid: [u8; 16]) -> Result<Walked> {
    let mut sequence = start.map_or(0, |start| start.sequence);
    let mut offset = PAGE;
    let mut claims = Vec::new();
    let mut last: Option<(u64, Batch)> = None;
    loop {
        if until.is_some_and(|end| offset >= end.offset) {
            break;
        }
        let Some(batch) = log.batch_at(offset)? else { break };
        if batch.head.sequence != sequence + 1 {
            return Err(log.broken("its batches are not dense"));
        }
        sequence += 1;
        let length = u64::from(batch.head.length).next_multiple_of(PAGE);
        if let Some((at, batch)) = last.replace((offset, batch)) {
            enter(&log, at, &batch, &mut claims, uuid)?;
        }
        offset += length;
    }
    let end = End { generation: log.generation, offset, sequence };
    if let Some(until) = until {
        if end != until {
            return Err(log.broken("it does not end where its successor says"));
        }
        if let Some((at, batch)) = last.take() {
            enter(&log, at, &batch, &mut claims, uuid)?;
        }
        log.set_end(end);
        return Ok(Walked { log, start, claims, end, last: None, ends: HashSet::new() });
    }
    if log.has_batch_from(offset + PAGE)? {
        return Err(log.batch_is_damaged(offset));
    }
    let Some((at, batch)) = last else { return Err(log.broken("it holds no batch")) };
    // The last batch counts for the new log, and this one ends before it.
    let ends =
        read_batch(&log, at, &batch, &mut claims, uuid)?.iter().map(|change| change.hash).collect();
    let end = End { generation: log.generation, offset: at, sequence: sequence - 1 };
    log.set_end(end);
    Ok(Walked { log, start, claims, end, last: Some(batch), ends })
}

/// Enters a batch into its log's index.
pub(super) fn enter(
    log: &Log,
    offset: u64,
    batch: &Batch,
    claims: &mut Vec<ClaimEvent>,
    uuid: [u8; 16],
) -> Result<()> {
    let changes = read_batch(log, offset, batch, claims, uuid)?;
    log.publish(&changes);
    Ok(())
}

/// Reads a batch: what it changes in the index, and what it says about claims.
fn read_batch(
    log: &Log,
    offset: u64,
    batch: &Batch,
    claims: &mut Vec<ClaimEvent>,
    uuid: [u8; 16],
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for frame in batch.frames() {
        let location = Location::of(&frame, offset, batch.head.anchor.at);
        let mut read = || -> std::result::Result<(), Malformed> {
            let parts = Parts::of(frame.bytes)?;
            let what = match entry::decode(parts.payload)? {
                Entry::Start(_) => return Ok(()),
                Entry::Completion(_) => {
                    let hash = parts.hash128(&uuid);
                    changes.push(Change { hash, location, hides_until: None });
                    return Ok(());
                }
                Entry::Forget(until) => {
                    let (hash, hides_until) = (parts.hash128(&uuid), Some(Moment(until)));
                    changes.push(Change { hash, location, hides_until });
                    return Ok(());
                }
                Entry::Claim(claim) => {
                    let at = batch.head.anchor.at;
                    ClaimChange::Open(OpenClaim::read(&claim, batch.head.sequence, at)?)
                }
                Entry::Checkpoint(data) => ClaimChange::Checkpoint(Bytes::copy_from_slice(data)),
                Entry::Release => ClaimChange::End,
            };
            let address = parts.address(&uuid)?;
            claims.push(ClaimEvent { address, offset: location.offset, what });
            Ok(())
        };
        read().map_err(|error| log.damaged(location, error))?;
    }
    Ok(changes)
}

/// The claims that no verdict in the chain has ended.
pub(super) fn open_claims(chain: &[Walked]) -> Vec<(Address, OpenClaim)> {
    let mut open: HashMap<&Address, (OpenClaim, usize, u64)> = HashMap::new();
    for (position, walked) in chain.iter().enumerate() {
        for event in &walked.claims {
            match &event.what {
                ClaimChange::Open(claim) => {
                    let checkpoints = match open.remove(&event.address) {
                        // Later attempts, and copies in newer logs, keep the first one's sequence.
                        Some((old, ..)) if is_later_attempt(claim, &old) => old.checkpoints,
                        _ => Vec::new(),
                    };
                    let claim = OpenClaim { checkpoints, ..claim.clone() };
                    open.insert(&event.address, (claim, position, event.offset));
                }
                ClaimChange::Checkpoint(data) => {
                    if let Some((claim, ..)) = open.get_mut(&event.address) {
                        claim.checkpoints.push(data.clone());
                    }
                }
                ClaimChange::End => drop(open.remove(&event.address)),
            }
        }
    }
    // Completions are not events, since there are so many; the indexes know the newest of each.
    open.retain(|address, (_, position, offset)| {
        let ended_in = |log: &Log| log.location(address.hash);
        let ended_here = ended_in(&chain[*position].log).is_some_and(|end| end.offset > *offset);
        let ended_later = chain[*position + 1..].iter().any(|w| ended_in(&w.log).is_some());
        let ended_last = chain.iter().any(|walked| walked.ends.contains(&address.hash));
        !ended_here && !ended_later && !ended_last
    });
    open.into_iter().map(|(address, (claim, ..))| (address.clone(), claim)).collect()
}

/// Whether a claim continues another in the same log or is its copy in a newer one. A copy brings
/// its checkpoints along.
fn is_later_attempt(claim: &OpenClaim, old: &OpenClaim) -> bool {
    claim.first_sequence == old.first_sequence && claim.attempt > old.attempt
}
