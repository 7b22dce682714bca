//! P2, P5, P11: logs begin small, and grow.

use crate::engine::ledger::size::{size_for, usable};

use super::*;

const MIB: u64 = 1024 * 1024;

impl Opened {
    fn sizes(&self) -> (u64, u64) {
        (self.tail.log.size(), self.ledger.next.lock().as_ref().unwrap().size())
    }

    /// Does what the reaper and the writer do where the load comes slowly.
    fn fill_ahead(&mut self) {
        while self.tail.end + 12 * PAGE < self.ledger.settings.log_bytes {
            self.put(&format!("ahead-{}", self.tail.end), vec![7; 30_000]);
            self.ledger.grow().unwrap();
            if self.tail.room() < self.tail.log.size() / 4 {
                self.extend();
            }
        }
    }
}

#[test]
fn logs_are_small_without_load_and_grow_with_it() {
    let bench = Bench { log_bytes: 8 * MIB, ..Bench::default() };
    let mut opened = bench.open();
    opened.prepare();
    opened.put("first", vec![1]);
    assert_eq!(opened.sizes(), (MIB, MIB));
    opened.fill_ahead();
    assert_eq!(opened.sizes(), (8 * MIB, 8 * MIB), "the next one was made larger ahead of need");
    opened.rotate();
    opened.prepare();
    assert_eq!(opened.sizes(), (8 * MIB, 8 * MIB));
    // One more was prepared under the load.
    for next in [MIB, MIB] {
        opened.put("alone", vec![1]);
        opened.rotate();
        opened.prepare();
        assert_eq!(opened.sizes().1, next);
    }
    assert_eq!(opened.sizes(), (MIB, MIB), "the load has ended");
}

#[test]
fn a_log_that_was_too_small_is_followed_by_larger_ones() {
    let bench = Bench { log_bytes: 64 * MIB, ..Bench::default() };
    let mut opened = bench.open();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        opened.prepare();
        while opened.tail.room() > 8 * PAGE {
            opened.put(&format!("key-{}", opened.tail.end), vec![7; 30_000]);
        }
        opened.rotate();
        sizes.push(opened.tail.log.size() / MIB);
    }
    opened.prepare();
    // The one after the next is prepared under the load that the latest one saw.
    assert_eq!(sizes, [1, 2, 2, 4]);
}

/// The whole limit of operations in flight may come at once to a store that is idle.
#[test]
fn p11_the_next_log_grows_with_what_is_reserved_in_it() {
    let bench = Bench { log_bytes: 64 * MIB, ..Bench::default() };
    let mut opened = bench.open();
    opened.prepare();
    let permits: Vec<_> = (0..4096).map(|_| opened.ledger.reserve(0).unwrap()).collect();
    let bytes: u64 = permits.iter().map(Reservation::bytes).sum();
    assert!(usable(opened.sizes().1) >= bytes);
    // Each finds its page there, whatever happens meanwhile.
    opened.rotate();
    assert!(opened.tail.room() >= bytes, "{} are left", opened.tail.room());
    opened.prepare();
    opened.rotate();
    assert!(opened.tail.room() >= bytes, "{} are left", opened.tail.room());
}

#[test]
fn p11_a_log_that_is_too_small_for_what_is_reserved_does_not_become_the_active_one() {
    let bench = Bench { log_bytes: 64 * MIB, ..Bench::default() };
    let mut opened = bench.open();
    opened.tail.log.allocate(16 * MIB).unwrap();
    opened.tail.log.set_size(16 * MIB);
    opened.ledger.measure(&opened.tail);
    assert!(!opened.ledger.has_next());
    let permits: Vec<_> = (0..1000).map(|_| opened.ledger.reserve(0).unwrap()).collect();
    let small = Log::create(&*bench.disk, 1000, opened.ledger.identity(), MIB).unwrap();
    *opened.ledger.next.lock() = Some(Arc::new(small));
    opened.ledger.offer_next().wake();
    let rotated = opened.ledger.rotate(&mut opened.tail, &mut BatchBuilder::new()).unwrap();
    assert!(rotated.is_none(), "1000 pages are reserved, and it has 256");
    drop(permits);
    opened.rotate();
}

#[test]
fn p2_all_is_found_again_in_a_log_that_has_grown() {
    let bench = Bench::default();
    let mut opened = bench.open();
    opened.prepare();
    let names: Vec<_> = (0..40).map(|n| format!("key-{n}")).collect();
    for name in &names {
        opened.put(name, vec![7; 3000]);
    }
    assert!(opened.tail.log.recorded() > 32 * 1024);
    opened.ledger.verify().unwrap();
    let reopened = bench.open();
    for name in &names {
        assert!(reopened.ledger.find(&reopened.address(name)).unwrap().is_some(), "{name}");
    }
}

/// There is none for a moment after each rotation.
#[test]
fn p11_the_active_log_grows_with_what_is_reserved_while_there_is_no_next_one() {
    let bench = Bench { log_bytes: 64 * MIB, ..Bench::default() };
    let mut opened = bench.open();
    let permits: Vec<_> = (0..4096).map(|_| opened.ledger.reserve(0).unwrap()).collect();
    let bytes: u64 = permits.iter().map(Reservation::bytes).sum();
    opened.extend();
    assert!(opened.tail.room() >= bytes, "{} are left", opened.tail.room());
    opened.ledger.measure(&opened.tail);
    drop(permits);
    while opened.ledger.reserve(0).map(std::mem::forget).is_ok() {}
    let reserved = opened.ledger.space.needed();
    assert!(opened.tail.log.size() <= 64 * MIB);
    opened.extend();
    assert!(opened.tail.room() >= reserved, "{reserved} are reserved");
}

/// Otherwise a log that was cut at a page would be one that ends there.
#[test]
fn p5_a_log_that_has_grown_and_was_cut_is_damage() {
    let names: Vec<_> = (0..40).map(|n| format!("key-{n}")).collect();
    let mut refused = 0;
    for pages in 8.. {
        let bench = Bench::default();
        let mut opened = bench.open();
        for name in &names {
            opened.put(name, vec![7; 3000]);
        }
        let (file, end) = (Arc::clone(&opened.tail.log.file), opened.tail.end);
        let whole = opened.tail.log.size();
        if pages * PAGE > whole {
            break;
        }
        drop(opened);
        file.set_len(pages * PAGE).unwrap();
        match bench.try_open() {
            Ok(reopened) => {
                assert!(pages * PAGE >= end, "{pages} pages, and the last batch ends at {end}");
                for name in &names {
                    assert!(reopened.ledger.find(&reopened.address(name)).unwrap().is_some());
                }
            }
            Err(Error::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("{pages} pages: {other:?}"),
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn p7_claims_that_no_small_log_could_hold_are_carried() {
    let bench = Bench { log_bytes: 64 * MIB, ..Bench::default() };
    let mut opened = bench.open();
    for n in 0..900 {
        let claim = OpenClaim::first(
            Fingerprint::of(["x"]),
            "r".repeat(128).parse().unwrap(),
            DAY,
            opened.ledger.timeline.now(),
        );
        let address = opened.address(&format!("{n:0>255}"));
        opened.ledger.claims.lock().insert(address, claim);
    }
    opened.rotate();
    assert!(opened.tail.log.size() >= size_for(900 * 1024));
    let reopened = bench.open();
    assert_eq!(reopened.ledger.claims.lock().len(), 900);
    assert!(reopened.tail.room() >= PAGE);
}
