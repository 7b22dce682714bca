//! The chain of started logs, and the reading of each up to its end.
//!
//! A log is started if any batch in it verifies. Its start entry names its predecessor and that
//! log's end. The newest log ends at the first place where no batch verifies: a later batch that
//! verifies makes this damage, and otherwise it is a torn write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Moment;
use crate::codec::Malformed;
use crate::engine::disk::Disk;
use crate::engine::entry::{self, End, Entry, Parts};
use crate::engine::log::{Batch, Change, Frame, Frozen, Location, Log, PAGE};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::sync::thread;

use super::claims::OpenClaim;
use super::manifest::Manifest;

/// Takes the chain of started logs out of the listed `logs`, reads it, and returns it, oldest
/// first. What is left in `logs` was listed and is not part of the chain.
///
/// # Errors
///
/// [`Error::Corrupt`] if the chain has a gap, does not follow the newest sealed log, or does not
/// verify, and [`Error::Io`] if a log cannot be read.
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
        return Err(Error::corrupt(disk.path(), "no log holds a batch"));
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
            _ => return Err(Error::corrupt(disk.path(), "its logs do not form a chain")),
        }
    }
    jobs.reverse();
    walk_all(jobs, manifest.uuid)
}

/// A log whose batches have been read and indexed, except the last batch of the newest log.
pub(super) struct Walked {
    pub(super) log: Arc<Log>,
    /// The end of its predecessor, if it has one.
    pub(super) start: Option<End>,
    /// The end of the batches that count.
    pub(super) end: End,
    claims: Vec<ClaimEvent>,
    /// The last batch of the newest log. It is repeated in the new log and counts as that one's.
    pub(super) last: Option<Batch>,
    /// The addresses that `last` completes or forgets, by hash.
    ends: HashSet<u128>,
}

impl Walked {
    /// Hands the log on for sealing.
    pub(super) fn into_frozen(self) -> Frozen {
        Frozen::new(self.log, self.end)
    }
}

/// A change to a durable claim, and its position in a log.
pub(super) struct ClaimEvent {
    address: Address,
    offset: u64,
    what: ClaimChange,
}

/// The change that an entry makes to a claim.
enum ClaimChange {
    Open(OpenClaim),
    Checkpoint(Bytes),
    End,
}

/// Returns the predecessor's end that a log names in its first batch.
///
/// # Errors
///
/// [`Error::Corrupt`] if the log does not begin with a start entry.
pub(super) fn start_of(log: &Log) -> Result<Option<End>> {
    let first = first_batch(log)?;
    let start = first.as_ref().and_then(|batch| batch.frames().find_map(|frame| start_in(&frame)));
    start.ok_or_else(|| log.broken("it does not begin with a start entry"))
}

/// Reads a log's first batch, or what is left of it.
fn first_batch(log: &Log) -> Result<Option<Batch>> {
    match log.batch_at(PAGE) {
        Ok(Some(batch)) => Ok(Some(batch)),
        Ok(None) | Err(Error::Io { .. }) => log.remains_at(PAGE, None),
        Err(error) => Err(error),
    }
}

/// Returns the content of a start entry, if the frame is one's.
fn start_in(frame: &Frame<'_>) -> Option<Option<End>> {
    match entry::decode(Parts::of(frame.bytes).ok()?.payload).ok()? {
        Entry::Start(start) if frame.is_whole => Some(start),
        _ => None,
    }
}

/// Returns true if the frame is a start entry's, damaged or not.
pub(super) fn is_start(frame: &Frame<'_>) -> bool {
    frame.hash == Some(0) || start_in(frame).is_some()
}

/// A log, its predecessor's end, and its own end if a successor names it.
type Job = (Arc<Log>, Option<End>, Option<End>);

/// Reads the logs of the chain, each on a thread of its own: most of the time of an opening goes
/// here.
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

/// Reads a log up to `until`, or in the newest log up to the first position where no batch
/// verifies.
///
/// # Errors
///
/// [`Error::Corrupt`] if the batches have a gap, if the log does not end at `until`, or if too little
/// is left of a batch; and [`Error::Io`].
fn walk(log: Arc<Log>, start: Option<End>, until: Option<End>, uuid: [u8; 16]) -> Result<Walked> {
    let mut sequence = start.map_or(0, |start| start.sequence);
    let mut offset = PAGE;
    let mut claims = Vec::new();
    let mut last: Option<(u64, Batch)> = None;
    loop {
        if until.is_some_and(|end| offset >= end.offset) {
            break;
        }
        let Some(batch) = batch_of(&log, offset, sequence + 1, until.is_some())? else { break };
        if batch.head.sequence != sequence + 1 {
            return Err(log.broken("its batches are not dense"));
        }
        sequence += 1;
        let length = batch.span();
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
    let Some((at, batch)) = last else { return Err(log.broken("it holds no batch")) };
    // The last batch is the new log's, and this log ends before it.
    let ends =
        read_batch(&log, at, &batch, &mut claims, uuid)?.iter().map(|change| change.hash).collect();
    let end = End { generation: log.generation, offset: at, sequence: sequence - 1 };
    log.set_end(end);
    Ok(Walked { log, start, claims, end, last: Some(batch), ends })
}

/// Reads the batch at `offset`, whole or damaged; `None` if none verifies there, or if it may be a
/// torn write. Where other batches follow, a batch was acknowledged: what does not verify in it is
/// damage, and costs the keys that it belongs to.
///
/// # Errors
///
/// [`Error::Corrupt`] if others follow and too little is left of it to tell which keys it had, and
/// [`Error::Io`].
fn batch_of(log: &Log, offset: u64, sequence: u64, is_followed: bool) -> Result<Option<Batch>> {
    let found = match log.batch_at(offset) {
        Ok(Some(batch)) if batch.is_whole() => return Ok(Some(batch)),
        Err(error) if !matches!(error, Error::Io { .. }) => return Err(error),
        found => found,
    };
    // From the next page on, whatever the head says: it may be a copy of another one's.
    if !is_followed && !log.has_batch_from(offset + PAGE)? {
        return found.map(|_| None);
    }
    match log.remains_at(offset, Some(sequence))? {
        Some(batch) => Ok(Some(batch)),
        None => Err(log.batch_is_lost(offset)),
    }
}

/// Enters a batch into its log's index, and appends its changes to claims to `claims`.
///
/// # Errors
///
/// [`Error::Corrupt`] if an entry cannot be decoded.
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

/// Returns the changes of a batch to the index, and appends its changes to claims to `claims`.
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
        if !frame.is_whole {
            // The index leads to it, so that its key is damaged and not absent.
            let hash = frame.hash.filter(|_| !is_start(&frame));
            changes.extend(hash.map(|hash| Change { hash, location, hides_until: None }));
            continue;
        }
        let mut read = || -> Result<(), Malformed> {
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

/// A claim without a verdict, as the chain has it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) address: Address,
    pub(super) claim: OpenClaim,
    /// The generation of the oldest log that a part of it was read from.
    pub(super) oldest: u64,
    /// The position of the claim in the chain, and in its log.
    place: (usize, u64),
}

/// Returns the claims without a verdict in the chain, expired or not.
pub(super) fn open_claims(chain: &[Walked]) -> Vec<Found> {
    let mut open: HashMap<&Address, Found> = HashMap::new();
    for (position, walked) in chain.iter().enumerate() {
        for event in &walked.claims {
            match &event.what {
                ClaimChange::Open(claim) => {
                    let mut found = Found {
                        address: event.address.clone(),
                        claim: claim.clone(),
                        oldest: walked.log.generation,
                        place: (position, event.offset),
                    };
                    // Later attempts keep the first one's sequence, and its checkpoints.
                    let earlier = open.remove(&event.address);
                    if let Some(earlier) = earlier.filter(|old| is_later_attempt(claim, &old.claim))
                        && !earlier.claim.checkpoints.is_empty()
                    {
                        found.claim.checkpoints = earlier.claim.checkpoints;
                        found.oldest = earlier.oldest;
                    }
                    open.insert(&event.address, found);
                }
                ClaimChange::Checkpoint(data) => {
                    if let Some(found) = open.get_mut(&event.address) {
                        found.claim.checkpoints.push(data.clone());
                    }
                }
                ClaimChange::End => drop(open.remove(&event.address)),
            }
        }
    }
    // Completions are too many to be kept as events; the indexes have the latest of each address.
    open.retain(|address, Found { place: (position, offset), .. }| {
        let ended_in = |log: &Log| log.location(address.hash);
        let ended_here = ended_in(&chain[*position].log).is_some_and(|end| end.offset > *offset);
        let ended_later = chain[*position + 1..].iter().any(|w| ended_in(&w.log).is_some());
        let ended_last = chain.iter().any(|walked| walked.ends.contains(&address.hash));
        !ended_here && !ended_later && !ended_last
    });
    open.into_values().collect()
}

/// Returns true if a claim is a later attempt of the same run, and so keeps the checkpoints. A copy
/// in a newer log has the same attempt number, and is followed by copies of its checkpoints.
fn is_later_attempt(claim: &OpenClaim, old: &OpenClaim) -> bool {
    claim.first_sequence == old.first_sequence && claim.attempt > old.attempt
}
