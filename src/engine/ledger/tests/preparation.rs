//! P7, P11: logs begin small, and larger ones follow under load.

use crate::engine::ledger::size::{size_for, usable};

use super::killed::Killed;
use super::*;

impl Opened {
    /// The sizes of the active log and of the next one.
    fn sizes(&self) -> (u64, u64) {
        (self.tail.log.size, self.ledger.next.lock().as_ref().unwrap().size)
    }
}

/// A store whose logs begin with a mebibyte, and have up to so many.
fn bench(mib: u64) -> Bench {
    Bench { log_bytes: mib * MIB, first_log_bytes: Some(MIB), ..Bench::default() }
}

#[test]
fn a_log_that_was_filled_is_followed_by_larger_ones_until_the_load_ends() {
    let bench = bench(8);
    let mut opened = bench.open();
    opened.prepare();
    opened.put("first", vec![1]);
    assert_eq!(opened.sizes(), (MIB, MIB));
    let mut sizes = Vec::new();
    for n in 0..1000 {
        let before = opened.tail.log.generation;
        opened.put(&format!("key-{n}"), vec![7; 30_000]);
        opened.prepare();
        if opened.tail.log.generation != before {
            sizes.push(opened.tail.log.size / MIB);
        }
    }
    assert_eq!(sizes[..6], [1, 2, 4, 8, 8, 8], "{sizes:?}");
    // Two more were prepared under the load.
    for _ in 0..3 {
        opened.put("alone", vec![1]);
        opened.rotate();
        opened.prepare();
    }
    assert_eq!(opened.sizes(), (MIB, MIB), "the load has ended");
}

#[test]
fn a_batch_that_no_small_log_holds_gets_a_larger_one() {
    let bench = bench(64);
    let mut opened = bench.open();
    opened.prepare();
    opened.put("large", vec![7; 5 << 20]);
    assert_eq!(opened.tail.log.size, 8 * MIB);
    assert!(opened.ledger.find(&opened.address("large")).unwrap().is_some());
}

/// The whole limit of operations in flight may come at once to a store that is idle.
#[test]
fn p11_a_larger_log_takes_the_place_of_the_next_one_for_what_is_reserved() {
    let bench = bench(64);
    let mut opened = bench.open();
    opened.prepare();
    let reserve = |_| {
        let ledger = &opened.ledger;
        if ledger.space.is_short(PAGE) {
            ledger.prepare_at_once(PAGE).unwrap();
        }
        ledger.space.reserve(0).unwrap()
    };
    let rooms: Vec<_> = (0..4096).map(reserve).collect();
    let bytes: u64 = rooms.iter().map(Reservation::bytes).sum();
    assert!(usable(opened.sizes().1) >= bytes);
    let (active, next) = (opened.tail.log.generation, opened.ledger.next.lock().clone().unwrap());
    assert_eq!(opened.ledger.manifest.lock().logs, [active, next.generation]);
    // Each finds its page there, whatever happens meanwhile.
    for _ in 0..2 {
        opened.rotate();
        assert!(opened.tail.room() >= bytes, "{} are left", opened.tail.room());
        opened.prepare();
    }
    opened.ledger.free(&mut opened.retired, || Ok(())).unwrap();
    opened.ledger.verify().unwrap();
}

#[test]
fn p11_a_log_that_is_too_small_for_what_is_reserved_does_not_become_the_active_one() {
    let bench = bench(64);
    let mut opened = bench.open();
    // As if the active log were a large one.
    opened.ledger.space.measure(0, 16 * MIB).wake();
    let rooms: Vec<_> = (0..1000).map(|_| opened.ledger.space.reserve(0).unwrap()).collect();
    let small = Log::create(&*bench.disk, 1000, opened.ledger.identity(), MIB).unwrap();
    *opened.ledger.next.lock() = Some(Arc::new(small));
    assert!(!opened.ledger.space.has_next(), "1000 pages are reserved, and it has 256");
    let rotated = opened.ledger.rotate(&mut opened.tail, &mut BatchBuilder::new(), 1).unwrap();
    assert!(rotated.is_none());
    opened.prepare();
    assert!(usable(opened.sizes().1) >= 1000 * PAGE);
    drop(rooms);
}

/// The reaper fails, and the writer goes on for a moment before it is told.
#[test]
fn p11_no_log_is_used_that_manifest_may_not_list() {
    let mut refused = 0;
    for before in 0.. {
        let bench = bench(64);
        let disk = Arc::new(Killed::new(before, usize::MAX));
        let Ok(mut opened) = bench.open_on(Arc::clone(&disk) as Arc<dyn Disk>) else { continue };
        let _ = opened.ledger.prepare(&mut opened.retired);
        let _ = opened.ledger.prepare_at_once(2 * MIB);
        let rotated = opened.ledger.rotate(&mut opened.tail, &mut BatchBuilder::new(), 1);
        let address = opened.address("a");
        let written = rotated.and_then(|_| opened.try_put_at(&address, vec![1], DAY));
        refused += usize::from(written.is_err());
        let reopened = Bench { disk: Arc::clone(&disk.disk), ..bench }.open();
        let found = reopened.ledger.find(&address).unwrap();
        assert!(found.is_some() || written.is_err(), "change {before} fails");
        if !disk.fate.has_failed() {
            break;
        }
    }
    assert!(refused > 0);
}

#[test]
fn p7_claims_that_no_small_log_could_hold_are_carried() {
    let bench = bench(64);
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
    assert!(opened.tail.log.size >= size_for(900 * 1024));
    let reopened = bench.open();
    assert_eq!(reopened.ledger.claims.lock().len(), 900);
    assert!(reopened.tail.room() >= PAGE);
}
