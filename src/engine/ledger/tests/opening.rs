//! P5, P7 and P12: the log with which an opening begins, and what becomes of the one before.

use super::killed::{Killed, used};
use super::*;
use crate::engine::disk::RESERVE_BYTES;

impl Opened {
    /// Commits the entries of an open claim, each in a batch of its own: a first attempt, a
    /// checkpoint, and a second attempt.
    fn claim_twice(&mut self, name: &str) -> Address {
        let (address, past) = (self.address(name), self.tail.sequence + 1);
        let attempt = |number| {
            Entry::Claim(Claim {
                fingerprint: *Fingerprint::of(["x"]).as_bytes(),
                request_id: "req_81",
                ttl_ms: millis(DAY),
                attempt: number,
                first_sequence: (number > 1).then_some(past),
                claimed_at: None,
            })
        };
        for entry in [attempt(1), Entry::Checkpoint(b"half-way"), attempt(2)] {
            let mut batch = BatchBuilder::new();
            batch.push(&Encoded::new(&self.ledger.digests, Some(&address), &entry));
            self.tail.append(&mut batch, self.ledger.timeline.anchor()).unwrap();
        }
        address
    }

    /// Expects what [`claim_twice`](Self::claim_twice) has left.
    fn expect_claimed_twice(&self, address: &Address) {
        let claims = self.ledger.claims.lock();
        let claim = claims.get(address).expect("the claim is open");
        assert_eq!((claim.attempt, claim.checkpoints.len()), (2, 1));
    }
}

impl Bench {
    /// Opens the store on a disk that has so many free pages.
    fn try_open_with(&self, pages: u64) -> Result<Opened> {
        self.try_open_in(used(&self.disk) + pages * PAGE)
    }

    /// Opens the store on a disk of so many bytes.
    fn try_open_in(&self, space: u64) -> Result<Opened> {
        let disk = Arc::clone(&self.disk);
        self.open_on(Arc::new(Killed { disk, space, ..Killed::new(usize::MAX, 0) }))
    }

    /// Opens the store on a disk that has room for a log of a few pages only.
    fn open_full(&self) -> Opened {
        self.try_open_with(RESERVE_BYTES / PAGE + 4).unwrap()
    }
}

#[test]
fn the_log_of_a_creation_is_replaced_by_the_first_that_is_used() {
    let bench = Bench::default();
    let mut opened = bench.open();
    opened.put("a", vec![1]);
    let Opened { ledger, tail, frozen, .. } = opened;
    assert!(frozen.is_empty(), "{frozen:?}");
    assert_eq!(ledger.manifest.lock().logs, [tail.log.generation]);
    assert_eq!(chain::start_of(&tail.log).unwrap(), None, "it follows none");
    // This log holds more than the repeated batch, so the new log follows it.
    let opened = bench.open();
    let before_last = opened.frozen[0].end;
    assert_eq!((before_last.generation, opened.frozen.len()), (tail.log.generation, 1));
    assert_eq!(chain::start_of(&opened.tail.log).unwrap(), Some(before_last));
}

/// A log that could not be listed for want of space is such a file, and a new log under its name
/// could be mixed up with it.
#[test]
fn p12_a_new_log_takes_no_name_that_a_file_has() {
    let bench = Bench::default();
    let Opened { ledger, .. } = bench.open();
    let taken = ledger.manifest.lock().next_generation + 3;
    let unlisted = Log::create(&*bench.disk, taken, ledger.identity(), bench.log_bytes).unwrap();
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
    let Opened { tail, ledger, .. } = opened;
    tail.log.file.set_len(PAGE).and_then(|()| tail.log.file.set_len(tail.log.size)).unwrap();
    let mut batch = BatchBuilder::new();
    start(&ledger.digests, &mut batch, None);
    Tail::new(tail.log, 0)
        .append(&mut batch, Timeline::start(Arc::new(bench.clock.clone())).anchor())
        .unwrap();
    let refused = bench.try_open().map(drop);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
}

/// An opening that was killed before it carried the claims over left their checkpoints in an older log
/// alone, which was then sealed.
#[test]
fn p7_a_log_that_is_replaced_has_the_checkpoints_of_its_claims_or_they_are_carried() {
    let bench = Bench::default();
    let address = bench.open().claim_twice("k");
    let repeated = bench.open();
    // It was killed before the claims were written.
    let end = PAGE + repeated.tail.log.batch_at(PAGE).unwrap().unwrap().span();
    assert!(end < repeated.tail.end, "the claims are carried");
    let zeros = vec![0; usize::try_from(repeated.tail.end - end).unwrap()];
    repeated.tail.log.file.write_at(&zeros, end).unwrap();
    let mut replaced = bench.open();
    bench.clock.advance(HOUR);
    assert_eq!(replaced.seal(), 1);
    bench.open().expect_claimed_twice(&address);
}

/// The checkpoint and the second attempt may be in different logs.
#[test]
fn p7_logs_that_alone_have_the_claims_are_not_sealed() {
    let bench = Bench::default();
    let mut opened = bench.open();
    opened.put_for("older", vec![1; 70_000], HOUR);
    opened.rotate();
    let address = opened.claim_twice("k");
    // So that the log is too long to be repeated whole.
    opened.put_for("long", vec![1; 70_000], HOUR);
    opened.put_for("last", vec![1], HOUR);
    for due in [1, 0, 0] {
        let mut full = bench.open_full();
        full.expect_claimed_twice(&address);
        // Nothing is left in the logs but the claim, and sealing them needs no space.
        bench.clock.advance(HOUR);
        assert!(full.ledger.holds_claims());
        assert_eq!((full.seal(), full.seal()), (due, 0), "{:?}", full.frozen);
    }
    // With space they are carried.
    let mut opened = bench.open();
    assert!(!opened.ledger.holds_claims());
    assert!(opened.seal() > 0);
    bench.open().expect_claimed_twice(&address);
}

/// A log that is too long to be repeated whole, with a claim in it.
fn claimed_in_a_long_log(bench: &Bench) -> Address {
    let mut opened = bench.open();
    let address = opened.claim_twice("k");
    opened.put_for("long", vec![1; 70_000], HOUR);
    opened.put_for("last", vec![1], HOUR);
    address
}

/// Its checkpoints are in the log that is held, and its TTL begins anew.
#[test]
fn p7_a_later_attempt_of_a_claim_that_was_not_carried_keeps_the_checkpoints() {
    let bench = Bench::default();
    let address = claimed_in_a_long_log(&bench);
    let mut full = bench.open_full();
    let first_sequence = full.ledger.open_claim(&address).unwrap().first_sequence;
    bench.clock.advance(DAY - HOUR);
    let claim = Claim {
        fingerprint: *Fingerprint::of(["x"]).as_bytes(),
        request_id: "req_82",
        ttl_ms: millis(DAY),
        attempt: 3,
        first_sequence: Some(first_sequence),
        claimed_at: None,
    };
    let mut batch = BatchBuilder::new();
    batch.push(&Encoded::new(&full.ledger.digests, Some(&address), &Entry::Claim(claim.clone())));
    let anchor = full.ledger.timeline.anchor();
    full.tail.append(&mut batch, anchor).unwrap();
    let claim = OpenClaim::read(&claim, full.tail.sequence, anchor.at).unwrap();
    full.ledger.claims.lock().insert(address.clone(), claim);
    // What the opening has found would have expired.
    bench.clock.advance(2 * HOUR);
    full.ledger.expire_claims();
    assert_eq!(full.seal(), 0);
    let again = bench.open();
    let claim = again.ledger.open_claim(&address).expect("it is open");
    assert_eq!((claim.attempt, claim.checkpoints.len()), (3, 1));
}

#[test]
fn logs_are_held_for_no_longer_than_their_claims_are_open() {
    for expires in [false, true] {
        let bench = Bench::default();
        let address = claimed_in_a_long_log(&bench);
        let mut full = bench.open_full();
        bench.clock.advance(HOUR);
        assert!(full.ledger.holds_claims());
        if expires {
            bench.clock.advance(DAY);
        } else {
            full.ledger.claims.lock().remove(&address);
        }
        assert!(!full.ledger.holds_claims());
        assert!(full.seal() > 0);
    }
}

/// A log that was repeated whole took the page of `MANIFEST`.
#[test]
fn p12_an_opening_that_has_its_least_room_has_enough_with_more() {
    for reboots in [false, true] {
        for pages in 6..40 {
            let bench = Bench::default();
            let mut opened = bench.open();
            (0..12).for_each(|n| opened.put(&format!("key-{n}"), vec![1]));
            for old in &opened.retired {
                bench.disk.remove(old.name()).unwrap();
            }
            drop(opened);
            if reboots {
                bench.clock.reboot(HOUR);
            }
            let opened = bench.try_open_with(pages);
            assert!(opened.is_ok(), "with {pages} pages, {reboots}: {:?}", opened.map(drop));
        }
    }
}

/// The second opening needed as much again, and the store did not open for as long as its records lived.
#[test]
fn p12_a_long_batch_is_repeated_once() {
    let bench = Bench::default();
    let mut opened = bench.open();
    opened.put("long", vec![1; 80_000]);
    opened.put("last", vec![1; 150_000]);
    drop(opened);
    let space = used(&bench.disk) + RESERVE_BYTES;
    for restart in 0..10 {
        let opened = bench.try_open_in(space);
        let opened = opened.unwrap_or_else(|error| panic!("at restart {restart}: {error:?}"));
        assert!(opened.ledger.find(&opened.address("last")).unwrap().is_some());
    }
}

/// An opening leaves out empty batches at the end of a log, and their sequences are used again. In the
/// log that it replaced they filled the place of a batch that was lost.
#[test]
fn p5_a_salvage_misses_a_lost_batch_though_a_replaced_log_has_its_sequence() {
    let bench = Bench::default();
    let mut opened = bench.open();
    opened.put("a", vec![1]);
    for _ in 0..5 {
        opened.tail.append(&mut BatchBuilder::new(), opened.ledger.timeline.anchor()).unwrap();
    }
    let replaced = Arc::clone(&opened.tail.log);
    drop(opened);
    let mut opened = bench.try_open_with(RESERVE_BYTES / PAGE + 20).unwrap();
    let lost = opened.tail.end;
    opened.put("lost", vec![1]);
    opened.put("kept", vec![1]);
    opened.tail.log.file.write_at(&[0; 4096], lost).unwrap();
    bench.disk.remove(MANIFEST).unwrap();
    assert!(bench.disk.names().unwrap().contains(&replaced.name), "it is a leftover");
    let disk = Arc::clone(&bench.disk) as Arc<dyn Disk>;
    let report = salvage(disk, Arc::new(MemoryDisk::default()), &bench.settings()).unwrap();
    let said = report.to_string();
    assert!(said.contains("1 batch cannot be read"), "{said}");
}
