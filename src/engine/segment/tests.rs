//! A segment proves each of its answers: present, absent, or damaged.

use std::io;
use std::time::Duration;

use http::Response;
use xorf::Filter;

use super::*;
use crate::clock::{SimulatedClock, Timeline};
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, MemoryDisk, Pool, read_all};
use crate::engine::entry::{Encoded, Parts};
use crate::engine::log::{BatchBuilder, Identity, PAGE, Tail, check_of};
use crate::key::{Fingerprint, Scope};
use crate::record::Completion;

const UUID: [u8; 16] = [5; 16];
pub(super) const BASE: SegmentMeta = SegmentMeta {
    uuid: UUID,
    format: SegmentMeta::FORMAT,
    file: 3,
    first_generation: 3,
    generation: 3,
    first_sequence: 10,
    last_sequence: 20,
    latest_expiry: 0,
    records: 0,
    damaged: 0,
    values: Vec::new(),
};
pub(super) const KEY: DigestKey = DigestKey::from_bytes([6; 32]);
/// The generation of the log that holds the larger records.
const VALUES: u64 = 2;

fn pool(disk: &Arc<MemoryDisk>) -> Arc<Pool> {
    Pool::new(Arc::clone(disk) as Arc<dyn Disk>)
}

fn address(n: usize) -> Address {
    Address::new(&UUID, Scope::new([b"abc"[n % 3]]), format!("key-{n}").parse().unwrap())
}

fn body(n: usize) -> Vec<u8> {
    // Every tenth record stays in the log.
    vec![n.to_le_bytes()[0]; if n.is_multiple_of(10) { 9_000 + n } else { n }]
}

fn encoded(n: usize, body: Vec<u8>) -> Encoded {
    let completion = Completion {
        fingerprint: Fingerprint::of(["x"]),
        request_id: format!("req_{n}").parse().unwrap(),
        ttl: Duration::from_millis(n as u64),
        response: Some(Response::new(body.into())),
    };
    Encoded::completion(&KEY, &address(n), &completion)
}

fn sealed(n: usize, encoded: &Encoded, in_log: Option<Location>) -> Item {
    let payload = Bytes::copy_from_slice(Parts::of(&encoded.bytes).unwrap().payload);
    let kept = match in_log {
        Some(location) => Kept::InLog { log: 0, location, status: 200, bare: Bytes::new() },
        None => Kept::Inline(payload),
    };
    let at = Moment(1_000);
    let expires = at.plus(Duration::from_millis(n as u64));
    Item::Sealed(Sealed { address: address(n), at, kept, expires })
}

fn may_hold(filter: &BinaryFuse16, n: usize) -> bool {
    filter.contains(&filter::bits(address(n).hash))
}

fn build_of(disk: &Arc<MemoryDisk>, numbers: impl Iterator<Item = usize>) -> Segment {
    build_from(disk, numbers.map(|n| (n, body(n))).collect())
}

/// Builds a segment, and before it the log with the records that are too large for a row.
fn build_from(disk: &Arc<MemoryDisk>, mut records: Vec<(usize, Vec<u8>)>) -> Segment {
    let store = Identity { uuid: UUID, entries: KEY };
    let log = Log::create(&**disk, VALUES, store, 1 << 20).unwrap();
    let mut tail = Tail::new(Arc::new(log), 0);
    let mut batch = BatchBuilder::new();
    records.sort_by_key(|(n, _)| (address(*n).scope, address(*n).key));
    let items: Vec<_> = records
        .into_iter()
        .map(|(n, body)| {
            let is_large = body.len() > MAX_INLINE_BYTES;
            let encoded = encoded(n, body);
            let location = is_large.then(|| Location {
                offset: PAGE + batch.push(&encoded),
                length: u32::try_from(encoded.bytes.len()).unwrap(),
                check: check_of(&encoded.digest),
                at: Moment(1_000),
            });
            Ok(sealed(n, &encoded, location))
        })
        .collect();
    tail.append(&mut batch, Timeline::start(Arc::new(SimulatedClock::new())).anchor()).unwrap();
    let values = vec![tail.end()];
    let draft = Draft { meta: BASE, key: KEY };
    let built =
        build(&pool(disk), &draft, items.into_iter(), || Ok(values), || Ok(())).unwrap().unwrap();
    built.with_values(vec![tail.log])
}

#[test]
fn a_segment_finds_what_it_holds_and_proves_the_rest_absent() {
    let disk = Arc::<MemoryDisk>::default();
    let Segment { meta, .. } = build_of(&disk, (0..600).step_by(2));
    let listed = SegmentMeta { latest_expiry: 1_598, records: 300, values: meta.values, ..BASE };
    let segment = Segment::open(&pool(&disk), &listed, KEY).unwrap();
    let handles = Handles::default();
    for n in 0..600 {
        let found = segment.find(&handles, &address(n)).unwrap();
        match found {
            Some(Found::Record(record)) if n.is_multiple_of(2) => {
                assert_eq!(record.request_id().as_str(), format!("req_{n}"));
                assert_eq!(record.response().unwrap().body()[..], body(n));
            }
            None if !n.is_multiple_of(2) => {}
            other => panic!("{n}: {other:?}"),
        }
    }
    let mut names = disk.names().unwrap();
    names.sort();
    assert_eq!(names, ["0000000000000002.log", "0000000000000003.redb"]);
    assert_eq!(segment.verify(KEY).err().map(|error| error.to_string()), None);
}

/// A file whose reads fail for a time.
#[derive(Debug)]
struct Flaky {
    file: Arc<dyn DiskFile>,
    fails: AtomicBool,
}

impl DiskFile for Flaky {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::IO.into());
        }
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn identity(&self) -> (u64, u64) {
        self.file.identity()
    }
}

/// redb refuses all reads after one has failed.
#[test]
fn p5_a_segment_is_read_again_after_a_read_has_failed() {
    let mut segment = build_of(&Arc::default(), 0..600);
    let flaky = Arc::new(Flaky { file: Arc::clone(&segment.file), fails: AtomicBool::new(false) });
    segment.file = Arc::clone(&flaky) as Arc<dyn DiskFile>;
    let handles = Handles::default();
    let find = |n: usize| segment.find(&handles, &address(n));
    assert!(find(1).unwrap().is_some());
    flaky.fails.store(true, Ordering::Relaxed);
    let failed = (0..600).find_map(|n| find(n).err());
    assert!(matches!(failed, Some(Error::Io { .. })), "{failed:?}");
    flaky.fails.store(false, Ordering::Relaxed);
    for n in 0..600 {
        assert!(matches!(find(n), Ok(Some(_))), "{n}");
    }
}

#[test]
fn small_segments_have_working_filters() {
    for count in 1..6 {
        let filter = build_of(&Arc::default(), 0..count).take_filter().unwrap();
        for n in 0..count {
            assert!(may_hold(&filter, n), "{n} of {count}");
        }
    }
}

#[test]
fn the_filter_spares_the_look_for_what_is_not_there() {
    let filter = build_of(&Arc::default(), 0..300).take_filter().unwrap();
    let taken_for_there = (300..1300).filter(|n| may_hold(&filter, *n)).count();
    // One address in 65,536 is a false positive.
    assert!(taken_for_there <= 1, "{taken_for_there} of 1000");
}

#[test]
fn nothing_to_hold_makes_no_segment() {
    let disk = Arc::<MemoryDisk>::default();
    let none = build(
        &pool(&disk),
        &Draft { meta: BASE, key: KEY },
        std::iter::empty(),
        || Ok(vec![]),
        || Ok(()),
    )
    .unwrap();
    assert!(none.is_none());
    assert_eq!(disk.names().unwrap(), Vec::<String>::new());
}

#[test]
fn sealing_that_is_stopped_leaves_nothing_behind() {
    let disk = Arc::<MemoryDisk>::default();
    let entries = [sealed(1, &encoded(1, body(1)), None)].into_iter().map(Ok);
    let stopped = build(
        &pool(&disk),
        &Draft { meta: BASE, key: KEY },
        entries,
        || Ok(vec![]),
        || Err(Error::Stopped { source: None }),
    );
    assert!(matches!(stopped, Err(Error::Stopped { .. })));
    assert_eq!(disk.names().unwrap(), Vec::<String>::new());
}

/// A read past the end of a file is damage to the segment, and not an error of the disk.
#[test]
fn p5_a_segment_that_is_cut_short_is_damaged_open_or_not() {
    let disk = Arc::<MemoryDisk>::default();
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
        let opened = match Segment::open(&pool(&disk), &segment.meta, KEY) {
            Err(Error::Corrupt { .. }) => continue,
            opened => opened.unwrap(),
        };
        assert!(opened.is_file_damaged() && opened.verify(KEY).is_err(), "cut to {cut}");
        for n in 0..60 {
            match opened.find(&Handles::default(), &address(n)) {
                Ok(Some(_)) | Err(Error::Corrupt { .. }) => {}
                other => panic!("cut to {cut}: {other:?}"),
            }
        }
    }
    assert!(unread > 100, "only {unread} errors");
}

/// Each entry verifies in a log of which a part is an older copy.
#[test]
fn p5_the_halves_of_two_records_never_make_up_one() {
    let of = |byte: u8| {
        let records = (0..20).map(|n| (n, vec![byte; 9_000]));
        build_from(&Arc::default(), records.collect())
    };
    let (segment, other) = (of(1), of(2));
    let logs = [&segment, &other].map(|segment| Arc::clone(&segment.values[0]));
    let images = logs.each_ref().map(|log| read_all(&*log.file, 1 << 30).unwrap());
    let mut noticed = 0;
    for at in (0..200_000).step_by(4096) {
        logs[0].file.write_at(&images[1][at..at + 4096], at as u64).unwrap();
        let handles = Handles::default();
        for n in 0..20 {
            match segment.find(&handles, &address(n)) {
                Ok(Some(Found::Record(record))) => {
                    let body = &record.response().unwrap().body()[..];
                    assert!(body == [1; 9_000], "page at {at}");
                }
                Ok(other) => panic!("page at {at} made key {n} {other:?}"),
                Err(_) => noticed += 1,
            }
        }
        logs[0].file.write_at(&images[0][at..at + 4096], at as u64).unwrap();
    }
    assert!(noticed > 20, "only {noticed} errors");
}

/// It is known by its hash alone, and hides what is older.
#[test]
fn p5_a_damaged_address_is_neither_absent_nor_another() {
    let disk = Arc::<MemoryDisk>::default();
    let location = Location { offset: 4096, length: 100, check: 0, at: Moment(1_000) };
    let damaged = Damaged { hash: address(7).hash, expires: Moment(5_000), log: 0, location };
    let items = [1, 4].map(|n| Ok(sealed(n, &encoded(n, body(n)), None)));
    let [first, second] = items;
    let items = [first, Ok(Item::Damaged(damaged)), second].into_iter();
    let built =
        build(&pool(&disk), &Draft { meta: BASE, key: KEY }, items, || Ok(Vec::new()), || Ok(()))
            .unwrap()
            .unwrap();
    let segment = Segment::open(&pool(&disk), &built.meta, KEY).unwrap();
    assert_eq!((segment.meta.records, segment.meta.damaged), (2, 1));
    assert_eq!(segment.latest_expiry(), Moment(5_000));
    let handles = Handles::default();
    assert!(may_hold(&segment.take_filter().unwrap(), 7));
    let found = segment.find(&handles, &address(7)).unwrap();
    assert!(matches!(found, Some(Found::Damaged { until: Moment(5_000) })), "{found:?}");
    for n in [1, 4] {
        let found = segment.find(&handles, &address(n)).unwrap();
        assert!(matches!(found, Some(Found::Record(_))), "{found:?}");
    }
    assert!(segment.find(&handles, &address(3)).unwrap().is_none());
    let verified = segment.verify(KEY).unwrap_err().to_string();
    assert!(verified.contains("1 key"), "{verified}");
}

/// One flipped bit anywhere in a page, in every page: the filter, the meta row and the tree cost
/// nothing, and a page of rows costs the row that is hit.
#[test]
fn p5_a_flipped_bit_costs_no_more_than_the_range_up_to_the_next_row() {
    let disk = Arc::<MemoryDisk>::default();
    // Only even numbers are there.
    let meta = build_of(&disk, (0..600).step_by(2)).meta;
    let file = disk.open("0000000000000003.redb").unwrap();
    let image = read_all(&*file, 1 << 30).unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    let mut worst = (0, 0);
    for page in (0..image.len()).step_by(4096) {
        for within in (0..4).chain((4..4096).step_by(293)) {
            let at = page + within;
            file.write_at(&[image[at] ^ (1 << (at % 8))], at as u64).unwrap();
            let segment = Segment::open(&pool(&disk), &meta, KEY).unwrap();
            let handles = Handles::default();
            let (mut lost, mut unproven) = (0, 0);
            for n in (0..600).step_by(7) {
                match segment.find(&handles, &address(n)) {
                    Err(Error::Corrupt { .. }) if n.is_multiple_of(2) => lost += 1,
                    Err(Error::Corrupt { .. }) => unproven += 1,
                    Ok(Some(Found::Record(record))) if n.is_multiple_of(2) => {
                        assert_eq!(record.response().unwrap().body()[..], body(n), "at {at}");
                    }
                    Ok(None) if !n.is_multiple_of(2) => {}
                    other => panic!("byte {at} made key {n} {other:?}"),
                }
            }
            worst = worst.max((lost + unproven, at));
            file.write_at(&image[at..=at], at as u64).unwrap();
        }
    }
    let _ = std::panic::take_hook();
    assert!(worst.0 <= 3, "byte {} cost {} of 86 keys", worst.1, worst.0);
}

#[test]
fn p5_no_flipped_byte_makes_a_stored_key_absent_or_wrong() {
    let disk = Arc::<MemoryDisk>::default();
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
        match Segment::open(&pool(&disk), &meta, KEY) {
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
    assert!(noticed > 30, "only {noticed} errors: is the file read at all?");
}
