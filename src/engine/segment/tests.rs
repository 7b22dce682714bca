//! A segment proves each of its answers: present, absent, or damaged.

use std::time::Duration;

use http::Response;

use super::*;
use crate::engine::disk::{MemoryDisk, read_all};
use crate::engine::entry::{Encoded, Parts};
use crate::key::{Fingerprint, Scope};
use crate::record::Completion;

const UUID: [u8; 16] = [5; 16];
pub(super) const BASE: SegmentMeta = SegmentMeta {
    uuid: UUID,
    first_generation: 3,
    generation: 3,
    first_sequence: 10,
    last_sequence: 20,
    latest_expiry: 0,
    records: 0,
};

fn address(n: usize) -> Address {
    Address::new(&UUID, Scope::new([b"abc"[n % 3]]), format!("key-{n}").parse().unwrap())
}

fn body(n: usize) -> Vec<u8> {
    // Every tenth value is split into parts.
    vec![n.to_le_bytes()[0]; if n.is_multiple_of(10) { 9_000 + n } else { n }]
}

fn sealed(n: usize) -> Sealed {
    sealed_with(n, body(n))
}

fn sealed_with(n: usize, body: Vec<u8>) -> Sealed {
    let completion = Completion {
        fingerprint: Fingerprint::of(["x"]),
        request_id: format!("req_{n}").parse().unwrap(),
        ttl: Duration::from_millis(n as u64),
        response: Some(Response::new(body.into())),
    };
    let encoded = Encoded::completion(&address(n), &completion);
    let payload = Bytes::copy_from_slice(Parts::of(&encoded.bytes).unwrap().payload);
    let at = Moment(1_000);
    Sealed { address: address(n), at, payload, expires: at.plus(completion.ttl) }
}

fn build_of(disk: &MemoryDisk, numbers: impl Iterator<Item = usize>) -> Segment {
    build_from(disk, numbers.map(sealed).collect())
}

fn build_from(disk: &MemoryDisk, mut entries: Vec<Sealed>) -> Segment {
    entries.sort_by(|a, b| {
        let name = |address: &Address| (address.scope, address.key.clone());
        name(&a.address).cmp(&name(&b.address))
    });
    build(disk, BASE, entries.into_iter().map(Ok), || Ok(())).unwrap().unwrap()
}

#[test]
fn a_segment_finds_what_it_holds_and_proves_the_rest_absent() {
    let disk = MemoryDisk::default();
    build_of(&disk, (0..600).step_by(2));
    let listed = SegmentMeta { latest_expiry: 1_598, records: 300, ..BASE };
    let segment = Segment::open(&disk, &listed).unwrap();
    let handles = Handles::default();
    for n in 0..600 {
        let found = segment.find(&handles, &address(n)).unwrap();
        match found {
            Some(Found::Record(record)) if n.is_multiple_of(2) => {
                assert_eq!(record.request_id().as_str(), format!("req_{n}"));
                assert_eq!(record.response().unwrap().body()[..], body(n));
                assert!(segment.may_hold(&address(n)));
            }
            None if !n.is_multiple_of(2) => {}
            other => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(disk.names().unwrap(), ["0000000000000003.redb"]);
    assert_eq!(segment.verify().err().map(|error| error.to_string()), None);
}

#[test]
fn small_segments_have_working_filters() {
    for count in 1..6 {
        let segment = build_of(&MemoryDisk::default(), 0..count);
        for n in 0..count {
            assert!(segment.may_hold(&address(n)), "{n} of {count}");
        }
    }
}

#[test]
fn the_filter_spares_the_look_for_what_is_not_there() {
    let segment = build_of(&MemoryDisk::default(), 0..300);
    let taken_for_there = (300..1300).filter(|n| segment.may_hold(&address(*n))).count();
    // One address in 65,536 is a false positive.
    assert!(taken_for_there <= 1, "{taken_for_there} of 1000");
}

#[test]
fn nothing_to_hold_makes_no_segment() {
    let disk = MemoryDisk::default();
    let none = build(&disk, BASE, std::iter::empty(), || Ok(())).unwrap();
    assert!(none.is_none());
    assert_eq!(disk.names().unwrap(), Vec::<String>::new());
}

#[test]
fn sealing_that_is_stopped_leaves_nothing_behind() {
    let disk = MemoryDisk::default();
    let entries = [sealed(1)].into_iter().map(Ok);
    let stopped = build(&disk, BASE, entries, || Err(Error::Stopped { source: None }));
    assert!(matches!(stopped, Err(Error::Stopped { .. })));
    assert_eq!(disk.names().unwrap(), Vec::<String>::new());
}

/// A read past the end of a file is damage to the segment, and not an error of the disk.
#[test]
fn p5_a_segment_that_is_cut_short_is_damaged_open_or_not() {
    let disk = MemoryDisk::default();
    let segment = build_of(&disk, 0..60);
    let image = read_all(&*segment.file, 1 << 30).unwrap();
    let mut unread = 0;
    for cut in (0..image.len()).rev().step_by(4096) {
        segment.file.write_at(&image, 0).unwrap();
        let handles = Handles::default();
        segment.find(&handles, &address(0)).unwrap();
        segment.file.set_len(cut as u64).unwrap();
        for n in 0..60 {
            match segment.find(&handles, &address(n)) {
                Ok(Some(_)) => {}
                Err(Error::Corrupt { .. }) => unread += 1,
                other => panic!("cut to {cut}: {other:?}"),
            }
        }
        let opened = Segment::open(&disk, &segment.meta);
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "cut to {cut}: {opened:?}");
    }
    assert!(unread > 100, "only {unread} errors");
}

/// Each row verifies in a file of which a part is an older copy.
#[test]
fn p5_the_parts_of_two_values_never_make_up_one() {
    let of = |byte: u8| {
        let entries = (0..20).map(|n| sealed_with(n, vec![byte; 9_000]));
        build_from(&MemoryDisk::default(), entries.collect())
    };
    let (segment, other) = (of(1), of(2));
    let images = [&segment, &other].map(|segment| read_all(&*segment.file, 1 << 30).unwrap());
    let mut noticed = 0;
    for at in (0..images[0].len()).step_by(4096) {
        segment.file.write_at(&images[1][at..at + 4096], at as u64).unwrap();
        let handles = Handles::default();
        for n in 0..20 {
            match segment.find(&handles, &address(n)) {
                Ok(Some(Found::Record(record))) => {
                    let body = &record.response().unwrap().body()[..];
                    assert!(body == [1; 9_000] || body == [2; 9_000], "page at {at}");
                }
                Ok(other) => panic!("page at {at} made key {n} {other:?}"),
                Err(_) => noticed += 1,
            }
        }
        segment.file.write_at(&images[0][at..at + 4096], at as u64).unwrap();
    }
    assert!(noticed > 20, "only {noticed} errors");
}

#[test]
fn p5_no_flipped_byte_makes_a_stored_key_absent_or_wrong() {
    let disk = MemoryDisk::default();
    let count = 60;
    let meta = build_of(&disk, 0..count).meta;
    let file = disk.open("0000000000000003.redb").unwrap();
    let image = read_all(&*file, 1 << 30).unwrap();
    let mut noticed = 0;
    // Redb's panics are caught; their messages would drown the test's.
    std::panic::set_hook(Box::new(|_| {}));
    // A prime stride meets every kind of page at every kind of offset.
    for at in (0..image.len()).step_by(251) {
        file.write_at(&[image[at] ^ 0x41], at as u64).unwrap();
        match Segment::open(&disk, &meta) {
            Err(_) => noticed += 1,
            Ok(segment) => {
                let handles = Handles::default();
                for n in 0..count {
                    match segment.find(&handles, &address(n)) {
                        Err(_) => noticed += 1,
                        Ok(Some(Found::Record(record))) => {
                            assert_eq!(record.response().unwrap().body()[..], body(n), "at {at}");
                        }
                        Ok(other) => panic!("byte {at} made key {n} {other:?}"),
                    }
                }
            }
        }
        file.write_at(&image[at..=at], at as u64).unwrap();
    }
    let _ = std::panic::take_hook();
    assert!(noticed > 100, "only {noticed} errors: is the file read at all?");
}
