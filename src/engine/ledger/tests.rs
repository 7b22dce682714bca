//! P5, P7, P11 and P14 on the ledger alone, without threads.

use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::*;
use crate::clock::SimulatedClock;
use crate::engine::disk::MemoryDisk;
use crate::key::{Fingerprint, Scope};
use crate::record::Completion;

mod growth;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Bench {
    disk: Arc<MemoryDisk>,
    clock: SimulatedClock,
    log_bytes: u64,
}

impl Default for Bench {
    fn default() -> Self {
        Self { disk: Arc::default(), clock: SimulatedClock::new(), log_bytes: 256 * 1024 }
    }
}

impl Bench {
    fn try_open(&self) -> Result<Opened> {
        let settings = Settings {
            clock: Arc::new(self.clock.clone()),
            ttl: DAY,
            log_bytes: self.log_bytes,
            max_open_claims: 1000,
            max_open_claims_per_scope: 1000,
            trusted_downtime: DAY,
            zero_recycled: false,
        };
        open(Arc::clone(&self.disk) as Arc<dyn Disk>, settings)
    }

    fn open(&self) -> Opened {
        self.try_open().unwrap()
    }
}

impl Opened {
    fn address(&self, name: &str) -> Address {
        Address::new(&self.ledger.uuid, Scope::new("s"), name.parse().unwrap())
    }

    /// Commits a record, in a log that grows if it must.
    fn put(&mut self, name: &str, body: Vec<u8>) {
        let completion = Completion {
            fingerprint: Fingerprint::of(["x"]),
            request_id: "req_81".parse().unwrap(),
            ttl: DAY,
            response: Some(Response::new(Bytes::from(body))),
        };
        let mut batch = BatchBuilder::new();
        batch.push(&Encoded::completion(&self.address(name), &completion));
        if batch.len() > self.tail.room() {
            self.ledger.grow_active(&self.tail, batch.len()).unwrap();
            self.extend();
        }
        let offset = self.tail.append(&mut batch, self.ledger.timeline.anchor()).unwrap();
        let log = &self.tail.log;
        let batch = log.batch_at(offset).unwrap().unwrap();
        chain::enter(log, offset, &batch, &mut Vec::new(), self.ledger.uuid).unwrap();
        self.ledger.measure(&self.tail);
    }

    /// Makes use of what the active log has grown by.
    fn extend(&mut self) {
        let anchor = self.ledger.timeline.anchor();
        self.tail.extend(&mut BatchBuilder::new(), anchor).unwrap();
    }

    /// Fills the active log up to `log_bytes`.
    fn fill(&mut self) {
        while self.tail.end + 12 * PAGE < self.ledger.settings.log_bytes {
            let name = format!("key-{}-{}", self.tail.log.generation, self.tail.end);
            self.put(&name, vec![7; 30_000]);
        }
    }

    fn prepare(&mut self) {
        self.ledger.prepare(&mut self.retired).unwrap();
    }

    /// Freezes the active log.
    fn rotate(&mut self) {
        self.prepare();
        let frozen = self.ledger.rotate(&mut self.tail, &mut BatchBuilder::new()).unwrap();
        self.frozen.push(frozen.expect("a next log is prepared"));
    }

    /// Seals, and returns the number of logs that were due.
    fn seal(&mut self) -> usize {
        let sealed = self.ledger.seal(&self.frozen, || Ok(())).unwrap();
        self.retired.extend(self.frozen.drain(..sealed).map(|frozen| Retired::Log(frozen.log)));
        sealed
    }
}

#[test]
fn the_log_of_a_creation_is_replaced_by_the_first_that_is_used() {
    let bench = Bench::default();
    let Opened { ledger, tail, frozen, .. } = bench.open();
    assert!(frozen.is_empty(), "{frozen:?}");
    assert_eq!(ledger.manifest.lock().logs, [tail.log.generation]);
    let first = tail.log.batch_at(PAGE).unwrap().unwrap();
    assert_eq!(chain::start_of_batch(&first), Some(None), "it follows none");
    // This log holds more than the repeated batch, so the new log follows it.
    let opened = bench.open();
    let before_last = opened.frozen[0].end;
    assert_eq!((before_last.generation, opened.frozen.len()), (tail.log.generation, 1));
    let first = opened.tail.log.batch_at(PAGE).unwrap().unwrap();
    assert_eq!(chain::start_of_batch(&first), Some(Some(before_last)));
}

/// A log that could not be listed for want of space is such a file, and a new log under its name
/// could be mixed up with it.
#[test]
fn p12_a_new_log_takes_no_name_that_a_file_has() {
    let bench = Bench::default();
    let Opened { ledger, .. } = bench.open();
    let taken = ledger.manifest.lock().next_generation + 3;
    let unlisted = Log::create(&*bench.disk, taken, ledger.uuid, bench.log_bytes).unwrap();
    let opened = bench.open();
    assert_eq!(opened.tail.log.generation, taken + 1);
    assert!(!bench.disk.names().unwrap().contains(&unlisted.name), "it is a leftover");
}

/// A copy of the store that was used by itself from an early moment on has such logs, and they
/// verify.
#[test]
fn p5_a_log_that_follows_none_is_damage_where_older_ones_were_sealed() {
    let bench = Bench::default();
    let mut opened = bench.open();
    opened.put("a", vec![1]);
    opened.rotate();
    bench.clock.advance(HOUR);
    assert_eq!(opened.seal(), 1);
    let Opened { tail, .. } = opened;
    tail.log.file.set_len(PAGE).and_then(|()| tail.log.file.set_len(tail.log.size())).unwrap();
    let mut batch = BatchBuilder::new();
    batch.push(&Encoded::new(None, &Entry::Start(None)));
    Tail::new(tail.log, 0)
        .append(&mut batch, Timeline::start(Arc::new(bench.clock.clone())).anchor())
        .unwrap();
    let refused = bench.try_open().map(drop);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

#[test]
fn p11_p14_full_logs_that_wait_for_sealing_keep_new_keys_out_and_are_bounded() {
    let mut opened = Bench::default().open();
    let mut admits = Vec::new();
    opened.prepare();
    while opened.ledger.has_next() {
        admits.push(opened.ledger.space.reserve(0).is_ok());
        opened.fill();
        opened.rotate();
        opened.prepare();
    }
    // Admitted operations complete in the last two.
    assert_eq!(admits, [true, true, true, false, false]);
    while opened.ledger.space.reserve(0).is_err() {
        assert_eq!(opened.seal(), 1);
        opened.prepare();
    }
    assert_eq!(opened.frozen.len(), 2);
}

#[test]
fn p14_logs_that_are_hardly_written_in_are_bounded_too() {
    let mut opened = Bench::default().open();
    opened.prepare();
    while opened.ledger.has_next() {
        opened.put(&format!("key-{}", opened.tail.log.generation), vec![1]);
        opened.rotate();
        opened.prepare();
    }
    // Two logs in use, and five that wait.
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
        let meta = opened.ledger.snapshot().segments[0].meta;
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
        opened.fill();
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

/// Removing a large file at once would delay the commits beside it.
#[test]
fn a_file_that_is_dropped_gives_its_blocks_back_a_piece_at_a_time() {
    let bench = Bench { log_bytes: 20 * 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    opened.put("a", vec![1]);
    opened.tail.log.allocate(bench.log_bytes).unwrap();
    opened.tail.log.set_size(bench.log_bytes);
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
    let (log, mut offset, mut batches) = (&opened.tail.log, PAGE, 0);
    while let Some(batch) = log.batch_at(offset).unwrap() {
        assert!(u64::from(batch.head.length) < 2 * CARRY_BYTES, "{}", batch.head.length);
        offset += u64::from(batch.head.length).next_multiple_of(PAGE);
        batches += 1;
    }
    assert_eq!(batches, 4, "a MiB each");
    let reopened = bench.open();
    assert_eq!(reopened.ledger.claims.lock().len(), 10);
    for n in 0..10 {
        let carried = reopened.ledger.open_claim(&reopened.address(&format!("key-{n}"))).unwrap();
        assert_eq!(carried.checkpoints, claim.checkpoints);
    }
}
