//! P11 and P14 on the ledger alone, without threads.

use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::rotation::start;
use super::size::CARRY_BYTES;
use super::*;
use crate::clock::{SimulatedClock, millis};
use crate::engine::disk::MemoryDisk;
use crate::engine::entry::{Claim, Encoded, Entry};
use crate::engine::log::{BatchBuilder, PAGE};
use crate::key::{Fingerprint, Scope};
use crate::record::Completion;

mod backup;
mod killed;
mod listing;
mod merging;
mod notes;
mod opening;
mod preparation;
mod segments;

const MIB: u64 = 1024 * 1024;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Bench {
    disk: Arc<MemoryDisk>,
    clock: SimulatedClock,
    /// The size of all logs, unless `first_log_bytes` is set.
    log_bytes: u64,
    first_log_bytes: Option<u64>,
}

impl Default for Bench {
    fn default() -> Self {
        let log_bytes = 256 * 1024;
        Self {
            disk: Arc::default(),
            clock: SimulatedClock::new(),
            log_bytes,
            first_log_bytes: None,
        }
    }
}

impl Bench {
    fn try_open(&self) -> Result<Opened> {
        self.open_on(Arc::clone(&self.disk) as Arc<dyn Disk>)
    }

    fn open_on(&self, disk: Arc<dyn Disk>) -> Result<Opened> {
        open(disk, self.settings())
    }

    fn settings(&self) -> Settings {
        Settings {
            clock: Arc::new(self.clock.clone()),
            ttl: DAY,
            log_bytes: self.log_bytes,
            first_log_bytes: self.first_log_bytes.unwrap_or(self.log_bytes),
            max_open_claims: 1000,
            max_open_claims_per_scope: 1000,
            trusted_downtime: DAY,
            zero_recycled: false,
        }
    }

    fn open(&self) -> Opened {
        self.try_open().unwrap()
    }
}

impl Opened {
    fn address(&self, name: &str) -> Address {
        Address::new(&self.ledger.uuid, Scope::new("s"), name.parse().unwrap())
    }

    /// Commits a record.
    fn put(&mut self, name: &str, body: Vec<u8>) {
        self.put_for(name, body, DAY);
    }

    fn put_for(&mut self, name: &str, body: Vec<u8>, ttl: Duration) {
        self.put_at(&self.address(name), body, ttl);
    }

    fn put_at(&mut self, address: &Address, body: Vec<u8>, ttl: Duration) {
        self.try_put_at(address, body, ttl).unwrap();
    }

    fn try_put_at(&mut self, address: &Address, body: Vec<u8>, ttl: Duration) -> Result<()> {
        let completion = Completion {
            fingerprint: Fingerprint::of(["x"]),
            request_id: "req_81".parse().unwrap(),
            ttl,
            response: Some(Response::new(Bytes::from(body))),
        };
        let mut batch = BatchBuilder::new();
        batch.push(&Encoded::completion(&self.ledger.digests, address, &completion));
        if batch.span() > self.tail.room() {
            self.ledger.prepare_at_once(batch.span()).unwrap();
            self.rotate_for(batch.span());
        }
        let offset = self.tail.append(&mut batch, self.ledger.timeline.anchor())?;
        let log = &self.tail.log;
        let batch = log.batch_at(offset).unwrap().unwrap();
        chain::enter(log, offset, &batch, &mut Vec::new(), self.ledger.uuid).unwrap();
        self.ledger.measure(&self.tail);
        Ok(())
    }

    fn fill(&mut self) {
        self.fill_with(30_000);
    }

    /// Fills the active log with records of this size.
    fn fill_with(&mut self, bytes: usize) {
        while self.tail.room() > bytes as u64 + 2 * PAGE {
            let name = format!("key-{}-{}", self.tail.log.generation, self.tail.end);
            self.put(&name, vec![7; bytes]);
        }
    }

    fn prepare(&mut self) {
        self.ledger.prepare(&mut self.retired).unwrap();
    }

    /// Returns whether a new key would be let in at once.
    fn admits(&self) -> bool {
        matches!(self.ledger.space.admit(Scope::new("s"), 1), Ok(Admission::Granted(_)))
    }

    /// Freezes the active log for its age.
    fn rotate(&mut self) {
        self.prepare();
        self.rotate_for(0);
    }

    /// Freezes the active log, because so many bytes do not fit, or for its age.
    fn rotate_for(&mut self, asked: u64) {
        let frozen = self.ledger.rotate(&mut self.tail, &mut BatchBuilder::new(), asked).unwrap();
        self.frozen.push(frozen.expect("a next log is prepared"));
    }

    /// Seals, and returns the number of logs that were due.
    fn seal(&mut self) -> usize {
        let sealed = self.ledger.seal(&self.frozen, || Ok(())).unwrap();
        self.retired.extend(self.ledger.retire(self.frozen.drain(..sealed)));
        sealed
    }
}

#[test]
fn p14_new_keys_wait_while_full_logs_wait_for_sealing_and_operations_in_flight_go_on() {
    let mut opened = Bench::default().open();
    let mut admits = Vec::new();
    for _ in 0..8 {
        opened.prepare();
        assert!(opened.ledger.space.has_next(), "admitted operations complete in it");
        admits.push(opened.admits());
        opened.fill();
        opened.rotate();
    }
    assert_eq!(admits, [true, true, true, true, false, false, false, false]);
    // It is not enough that a log is sealed in part, or that sealing has failed.
    while !opened.admits() {
        assert!(opened.ledger.seal(&opened.frozen, || Err(Error::stopped())).is_err());
        assert!(!opened.admits());
        assert_eq!(opened.seal(), 1);
    }
    assert_eq!(opened.frozen.len(), 3);
}

#[test]
fn p14_logs_that_are_hardly_written_in_are_bounded_too() {
    let mut opened = Bench::default().open();
    while opened.ledger.may_freeze_early() {
        opened.put(&format!("key-{}", opened.tail.log.generation), vec![1]);
        opened.rotate();
    }
    // The active one, and six that wait.
    assert_eq!(opened.ledger.snapshot().logs.len(), 7);
}

#[test]
fn what_is_full_or_old_or_has_company_is_sealed() {
    let bench = Bench::default();
    let mut opened = bench.open();
    for company in [0, 0, 3] {
        opened.put("small", vec![1]);
        opened.rotate();
        assert_eq!(opened.seal(), company);
    }
    opened.put("old", vec![1]);
    opened.rotate();
    bench.clock.advance(HOUR - MS);
    assert_eq!(opened.seal(), 0);
    bench.clock.advance(MS);
    assert_eq!(opened.seal(), 1);
    opened.put("half", vec![1; 150_000]);
    opened.rotate();
    assert_eq!(opened.seal(), 1);
    // Never more than a full log at a time.
    for _ in 0..2 {
        opened.fill();
        opened.rotate();
    }
    assert_eq!((opened.seal(), opened.seal(), opened.seal()), (1, 1, 0));
    assert_eq!(opened.ledger.snapshot().segments.len(), 5);
}

#[test]
fn segments_say_which_batches_they_hold_and_none_is_missing_between_them() {
    let bench = Bench::default();
    let mut opened = bench.open();
    let (mut sequence, mut generation) = (0, 0);
    for n in 0..4 {
        for m in 0..=n {
            opened.put(&format!("key-{n}-{m}"), vec![1]);
        }
        opened.rotate();
        bench.clock.advance(HOUR);
        let end = opened.frozen[0].end;
        assert_eq!(opened.seal(), 1);
        let meta = opened.ledger.snapshot().segments[0].meta.clone();
        assert_eq!((meta.first_sequence, meta.last_sequence), (sequence + 1, end.sequence));
        assert!(meta.first_generation > generation);
        assert_eq!((meta.generation, meta.records), (end.generation, n + 1));
        (sequence, generation) = (meta.last_sequence, meta.generation);
    }
}

/// Writing is faster in blocks that were written before.
#[test]
fn full_logs_take_turns_in_three_files() {
    let bench = Bench::default();
    let mut opened = bench.open();
    let mut files = Vec::new();
    for _ in 0..9 {
        // Larger ones would stay in their log.
        opened.fill_with(100);
        opened.rotate();
        // In the order of the reaper.
        opened.prepare();
        assert_eq!(opened.seal(), 1);
        opened.ledger.free(&mut opened.retired, || Ok(())).unwrap();
        files.push(opened.tail.log.file.identity());
    }
    assert_eq!(files[..3], files[3..6]);
    assert_eq!(files[..3], files[6..]);
}

/// Sealing copies none of them.
#[test]
fn a_log_of_larger_records_stays_until_they_expire_and_is_then_used_again() {
    let bench = Bench::default();
    let mut opened = bench.open();
    opened.prepare();
    opened.retired.clear();
    opened.fill_with(6_000);
    let (acknowledged, file) = (Arc::clone(&opened.tail.log), opened.tail.log.file.identity());
    opened.rotate();
    assert_eq!(opened.seal(), 1);
    assert!(opened.retired.is_empty(), "{:?}", opened.retired);
    let segment = Arc::clone(&opened.ledger.snapshot().segments[0]);
    let values = &segment.values[0];
    assert_eq!((values.file.identity(), values.len()), (file, 0));
    let names: Vec<_> =
        acknowledged.locations().map(|(_, place)| acknowledged.read_entry(place)).collect();
    assert!(names.len() >= 7);
    opened.ledger.verify().unwrap();
    drop(segment);
    // Also for a new process.
    let mut opened = bench.open();
    let segment = Arc::clone(&opened.ledger.snapshot().segments[0]);
    assert_eq!(segment.values[0].file.identity(), file);
    opened.ledger.verify().unwrap();
    drop(segment);
    bench.clock.advance(DAY);
    assert_eq!(opened.ledger.drop_expired(&mut opened.retired).unwrap(), 1);
    opened.ledger.free(&mut opened.retired, || Ok(())).unwrap();
    opened.prepare();
    assert_eq!(opened.ledger.next.lock().as_ref().unwrap().file.identity(), file);
}

/// Most of each page is padding where few requests come at a time.
#[test]
fn larger_records_of_a_log_that_is_mostly_padding_are_copied_close_together() {
    let mut opened = Bench::default().open();
    opened.prepare();
    opened.retired.clear();
    opened.fill_with(1_000);
    let records = opened.tail.log.len();
    opened.rotate();
    let full = opened.frozen[0].end.offset;
    assert_eq!(opened.seal(), 1);
    let snapshot = opened.ledger.snapshot();
    let segment = &snapshot.segments[0];
    assert_eq!(segment.meta.records, records as u64);
    let copy = segment.meta.values[0];
    assert!(copy.offset < full / 2, "{} of {full} bytes", copy.offset);
    assert_eq!(segment.values[0].file.len().unwrap(), copy.offset);
    opened.ledger.verify().unwrap();
    assert_eq!(opened.retired.len(), 1, "the log itself is free");
}

/// Removing a large file at once would delay the commits beside it.
#[test]
fn a_file_that_is_dropped_gives_its_blocks_back_a_piece_at_a_time() {
    let bench = Bench { log_bytes: 20 * 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    opened.put("a", vec![1]);
    opened.rotate();
    // The log is not needed as the next one.
    opened.prepare();
    bench.clock.advance(HOUR);
    opened.retired.clear();
    assert_eq!(opened.seal(), 1);
    let (file, name) = match &opened.retired[..] {
        [Retired::Log(log)] => (Arc::clone(&log.file), log.name.clone()),
        other => panic!("{other:?}"),
    };
    let mut lengths = Vec::new();
    let pace = || {
        lengths.push(file.len().unwrap() / 1024 / 1024);
        Ok(())
    };
    opened.ledger.free(&mut opened.retired, pace).unwrap();
    assert_eq!(lengths, [12, 4, 0]);
    assert!(opened.retired.is_empty());
    assert!(!bench.disk.names().unwrap().contains(&name));
}

/// Together the claims are longer than a batch may be.
#[test]
fn p7_claims_that_no_batch_could_hold_are_carried_in_several() {
    let bench = Bench::default();
    let mut opened = bench.open();
    let claim = OpenClaim {
        checkpoints: vec![vec![7; 16 * 1024].into(); 16],
        ..OpenClaim::first(
            Fingerprint::of(["x"]),
            "req_81".parse().unwrap(),
            DAY,
            opened.ledger.timeline.now(),
        )
    };
    for n in 0..10 {
        let address = opened.address(&format!("key-{n}"));
        opened.ledger.claims.lock().insert(address, claim.clone());
    }
    opened.rotate();
    let (log, mut offset, mut spans) = (&opened.tail.log, PAGE, Vec::new());
    while let Some(batch) = log.batch_at(offset).unwrap() {
        assert!(u64::from(batch.head.length) < 2 * CARRY_BYTES, "{}", batch.head.length);
        offset += batch.span();
        spans.push(batch.span());
    }
    // A MiB each, and a short one for the next opening to repeat.
    assert_eq!((spans.len(), spans.last()), (5, Some(&PAGE)), "{spans:?}");
    let reopened = bench.open();
    assert_eq!(reopened.ledger.claims.lock().len(), 10);
    for n in 0..10 {
        let carried = reopened.ledger.open_claim(&reopened.address(&format!("key-{n}"))).unwrap();
        assert_eq!(carried.checkpoints, claim.checkpoints);
    }
}
