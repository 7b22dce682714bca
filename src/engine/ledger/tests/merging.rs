//! Merging: what becomes of many small segments, of mostly dead ones, and of damaged ones.

use super::*;
use crate::engine::disk::read_all;

impl Opened {
    /// Puts a record into a segment of its own.
    pub(super) fn seal_alone(&mut self, bench: &Bench, name: &str, body: &[u8]) {
        self.put(name, body.to_vec());
        self.rotate();
        bench.clock.advance(HOUR);
        assert_eq!(self.seal(), 1);
    }

    fn merge(&mut self) -> usize {
        self.ledger.merge(&mut self.retired, || Ok(())).unwrap()
    }

    fn body(&self, name: &str) -> Option<Vec<u8>> {
        let record = self.ledger.find(&self.address(name)).unwrap()?;
        Some(record.response().unwrap().body().to_vec())
    }
}

#[test]
fn small_segments_become_one_that_says_what_they_said() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    // The last one is older and larger than all others together.
    opened.seal_alone(&bench, "large", &[9; 200_000]);
    for n in 0..8_u8 {
        let size = if n % 2 == 0 { 10 } else { 2_000 };
        opened.seal_alone(&bench, &format!("key-{n}"), &vec![n; size]);
        // Of each key the newest record counts.
        opened.seal_alone(&bench, "key", &[n; 1_500]);
    }
    let before = opened.ledger.snapshot();
    assert_eq!((before.segments.len(), opened.merge()), (17, 16));
    let after = opened.ledger.snapshot();
    let [merged, large] = &after.segments[..] else { panic!("{} segments", after.segments.len()) };
    assert_eq!((merged.meta.records, merged.values.len(), large.meta.records), (9, 1, 1));
    assert_eq!(merged.meta.first_generation, before.segments[15].meta.first_generation);
    assert_eq!(merged.meta.last_sequence, before.segments[0].meta.last_sequence);
    opened.ledger.verify().unwrap();
    assert_eq!(opened.merge(), 0);
    drop((before, after));
    opened.retired.retain(|file| !matches!(file, Retired::Log(log) if log.size > 1024 * 1024));
    opened.ledger.free(&mut opened.retired, || Ok(())).unwrap();
    let check = |opened: Opened| {
        for n in 0..8_u8 {
            let size = if n % 2 == 0 { 10 } else { 2_000 };
            assert_eq!(opened.body(&format!("key-{n}")), Some(vec![n; size]));
        }
        assert_eq!(opened.body("key"), Some(vec![7; 1_500]));
        assert_eq!(opened.body("large"), Some(vec![9; 200_000]));
        assert_eq!(opened.body("other"), None);
        opened.ledger.verify().unwrap();
    };
    check(opened);
    check(bench.open());
    let names = bench.disk.names().unwrap();
    let segments = names.iter().filter(|name| name.ends_with(".redb")).count();
    assert_eq!(segments, 2, "{names:?}");
}

#[test]
fn a_segment_that_is_mostly_dead_is_rewritten_and_keeps_what_is_live() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    for n in 0..40 {
        let ttl = if n == 7 { DAY } else { 2 * HOUR };
        opened.put_for(&format!("key-{n}"), vec![7; 20_000], ttl);
    }
    opened.rotate();
    bench.clock.advance(HOUR);
    assert_eq!((opened.seal(), opened.merge()), (1, 0));
    bench.clock.advance(HOUR);
    assert_eq!(opened.merge(), 1);
    let snapshot = opened.ledger.snapshot();
    let segment = &snapshot.segments[0];
    assert_eq!((segment.meta.records, segment.values.len()), (1, 1));
    assert!(segment.values[0].file.len().unwrap() < 30_000, "a copy of one record");
    assert_eq!(opened.body("key-7"), Some(vec![7; 20_000]));
    assert_eq!(opened.body("key-8"), None);
    assert_eq!(opened.merge(), 0);
    opened.ledger.verify().unwrap();
}

/// A key that is damaged in a newer segment is not the older record that another one has.
#[test]
fn p5_merging_carries_damage_along_until_a_newer_record_comes() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    opened.seal_alone(&bench, "hit", &[1; 100]);
    opened.put("hit", vec![2; 100]);
    opened.put("mended", vec![2; 100]);
    for name in ["hit", "mended"] {
        let place = opened.tail.log.location(opened.address(name).hash).unwrap();
        opened.tail.log.file.write_at(b"!", place.offset + u64::from(place.length) - 9).unwrap();
    }
    opened.rotate();
    bench.clock.advance(HOUR);
    assert_eq!(opened.seal(), 1);
    opened.seal_alone(&bench, "mended", &[3; 100]);
    for n in 0..6 {
        opened.seal_alone(&bench, &format!("key-{n}"), &[4; 100]);
    }
    assert_eq!(opened.ledger.snapshot().segments.len(), 9);
    assert_eq!(opened.merge(), 9);
    for opened in [opened, bench.open()] {
        let snapshot = opened.ledger.snapshot();
        assert_eq!(snapshot.segments.len(), 1);
        assert_eq!((snapshot.segments[0].meta.records, snapshot.segments[0].meta.damaged), (7, 1));
        let found = opened.ledger.find(&opened.address("hit")).map(drop);
        assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
        assert_eq!(opened.body("mended"), Some(vec![3; 100]));
    }
}

/// Its damage used to be met again by every later merge.
#[test]
fn p5_a_segment_that_cannot_be_read_is_left_out_and_the_others_are_merged() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    for n in 0..6_u8 {
        opened.seal_alone(&bench, &format!("key-{n}"), &[b'a' + n; 100]);
    }
    let hit = Arc::clone(&opened.ledger.snapshot().segments[5]);
    let image = read_all(&*hit.file, u64::MAX).unwrap();
    let body = image.windows(100).position(|bytes| bytes == [b'a'; 100]).unwrap();
    hit.file.write_at(b"!", body as u64).unwrap();
    let failed = opened.ledger.merge(&mut opened.retired, || Ok(()));
    assert!(matches!(failed, Err(Trouble::Transient(Error::Corrupt { .. }))), "{failed:?}");
    assert_eq!(opened.merge(), 5);
    assert_eq!(opened.merge(), 0);
    assert_eq!(opened.ledger.snapshot().segments.len(), 2);
    for n in 1..6_u8 {
        assert_eq!(opened.body(&format!("key-{n}")), Some(vec![b'a' + n; 100]));
    }
    assert!(opened.ledger.find(&opened.address("key-0")).is_err());
}

/// Each process ended before its reaper came to merging.
#[test]
fn an_opening_merges_small_segments_once_there_are_many() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    for n in 0..49 {
        opened.put_for(&format!("key-{n}"), vec![7; 100], 7 * DAY);
        opened.rotate();
        bench.clock.advance(HOUR);
        assert_eq!(opened.seal(), 1);
    }
    assert_eq!(opened.ledger.snapshot().segments.len(), 49);
    opened.ledger.merge_small(&mut opened.retired).unwrap();
    assert_eq!(opened.ledger.snapshot().segments.len(), 34);
    opened.ledger.merge_small(&mut opened.retired).unwrap();
    assert_eq!(opened.ledger.snapshot().segments.len(), 34, "they are not many any more");
    for n in 0..49 {
        assert_eq!(opened.body(&format!("key-{n}")), Some(vec![7; 100]));
    }
}
