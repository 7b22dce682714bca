//! P5 on the list of segments: their filters are asked together, and none is forgotten.

use std::collections::VecDeque;

use crate::engine::segment::Segment;

use super::*;

/// Segments come and go as they do in a store, and are more than one group takes.
#[test]
fn p5_a_key_leads_to_the_segments_that_hold_it_newest_first_however_they_have_come_and_gone() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    for n in 0..80_u8 {
        let name = if n.is_multiple_of(4) { "shared".into() } else { format!("key-{n}") };
        opened.seal_alone(&bench, &name, &[n; 100]);
    }
    let sealed = opened.ledger.snapshot();
    let copy = |segment: &Arc<Segment>| {
        Arc::new(Segment::open(&opened.ledger.disk, &segment.meta, opened.ledger.digests).unwrap())
    };
    let mut coming: VecDeque<_> = sealed.segments.iter().rev().enumerate().collect();
    let mut segments = Segments::default();
    let mut expected: Vec<usize> = Vec::new();
    while let Some((n, segment)) = coming.pop_front() {
        segments = segments.changed(|list| {
            list.insert(0, copy(segment));
            if n % 5 == 4 {
                list.remove(n % list.len());
            }
        });
        expected.insert(0, n);
        if n % 5 == 4 {
            expected.remove(n % expected.len());
        }
        let files = |name: &str| -> Vec<u64> {
            let found = segments.that_may_hold(&opened.address(name));
            found.iter().map(|segment| segment.meta.file).collect()
        };
        let file = |n: usize| sealed.segments[79 - n].meta.file;
        let (shared, alone): (Vec<usize>, _) = expected.iter().partition(|n| **n % 4 == 0);
        assert_eq!(files("shared"), shared.into_iter().map(file).collect::<Vec<_>>());
        for n in alone {
            assert_eq!(files(&format!("key-{n}")), [file(n)]);
        }
        assert_eq!(segments.len(), expected.len());
    }
    // A filter of 256 addresses has 384 fingerprints, and 32 of them fill a group.
    assert!(segments.filter_bytes() <= 3 * 32 * 384 * 2, "{}", segments.filter_bytes());
    assert_eq!(segments.changed(Vec::clear).filter_bytes(), 0);
}

/// Any key may be in a segment whose filter is damaged.
#[test]
fn p5_a_segment_without_a_filter_may_hold_every_key() {
    let bench = Bench { log_bytes: 1024 * 1024, ..Bench::default() };
    let mut opened = bench.open();
    for n in 0..3 {
        opened.seal_alone(&bench, &format!("key-{n}"), &[1; 100]);
    }
    let sealed = opened.ledger.snapshot();
    // The list that is in use has taken its filter.
    let without = Arc::clone(&sealed.segments[1]);
    let segments = Segments::from(vec![without]);
    assert_eq!(segments.that_may_hold(&opened.address("elsewhere")).len(), 1);
    assert_eq!(sealed.segments.that_may_hold(&opened.address("elsewhere")).len(), 0);
}
