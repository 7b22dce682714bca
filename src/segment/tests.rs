//! A segment proves what it says: present, absent, or damaged.

use std::time::Duration;

use http::Response;

use super::*;
use crate::disk::{MemoryDisk, read_all};
use crate::entry::{Encoded, Parts};
use crate::key::{Fingerprint, Scope};
use crate::record::Completion;

const UUID: [u8; 16] = [5; 16];
const BASE: SegmentMeta = SegmentMeta {
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
    // Every tenth takes parts.
    vec![n.to_le_bytes()[0]; if n.is_multiple_of(10) { 9_000 + n } else { n }]
}

fn sealed(n: usize) -> Sealed {
    let completion = Completion {
        fingerprint: Fingerprint::of(["x"]),
        request_id: format!("req_{n}").parse().unwrap(),
        ttl: Duration::from_millis(n as u64),
        response: Some(Response::new(body(n).into())),
    };
    let encoded = Encoded::completion(&address(n), &completion);
    let payload = Bytes::copy_from_slice(Parts::of(&encoded.bytes).unwrap().payload);
    let at = Moment(1_000);
    Sealed { address: address(n), at, payload, expires: at.plus(completion.ttl) }
}

fn build_of(disk: &MemoryDisk, numbers: impl Iterator<Item = usize>) -> Segment {
    let mut entries: Vec<_> = numbers.map(sealed).collect();
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
