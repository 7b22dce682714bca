//! A segment whose file is not what was sealed: what it says then.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::Response;

use crate::clock::{Moment, SimulatedClock, Timeline};
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, MemoryDisk, Pool, read_all};
use crate::engine::entry::{Encoded, Entry, Found, Parts};
use crate::engine::ledger::Segments;
use crate::engine::log::{BatchBuilder, Identity, Location, Log, Tail, check_of};
use crate::engine::segment::{
    self, Draft, Handles, Item, Kept, MAX_INLINE_BYTES, Remains, RowContent, Sealed, Segment,
    SegmentMeta,
};
use crate::error::{Error, Result};
use crate::key::{Address, Scope};
use crate::record::Record;

use super::{DAY, encode, replace};

const UUID: [u8; 16] = [7; 16];
const KEY: DigestKey = DigestKey::from_bytes([8; 32]);
const RECORDS: usize = 20;
const PAGE: usize = 4096;

/// The file of a listed segment is these bytes.
pub fn recover_segment(bytes: &[u8]) {
    Sample::get().expect_honest(bytes);
}

/// The file of a listed segment was whole, and then patched: one byte for the page, two for where
/// in it, and one to change the byte there by.
pub fn recover_rows(patches: &[u8]) {
    let sample = Sample::get();
    let mut image = sample.image.clone();
    let pages = image.len() / PAGE;
    for patch in patches.as_chunks::<4>().0 {
        let [page, low, high, change] = *patch;
        let within = usize::from(u16::from_le_bytes([low, high])) % PAGE;
        image[usize::from(page) % pages * PAGE + within] ^= change;
    }
    sample.expect_honest(&image);
}

/// The file of a listed segment was whole, and then pages were copied over others: one byte each
/// for from where and to where.
pub fn recover_pages(copies: &[u8]) {
    let sample = Sample::get();
    let mut image = sample.image.clone();
    let pages = image.len() / PAGE;
    for copy in copies.as_chunks::<2>().0 {
        let [from, to] = copy.map(|page| usize::from(page) % pages * PAGE);
        image.copy_within(from..from + PAGE, to);
    }
    sample.expect_honest(&image);
}

/// A segment, and what it must say.
struct Sample {
    meta: SegmentMeta,
    name: String,
    image: Vec<u8>,
    /// The log that holds the larger records, which stays whole.
    log: (String, Vec<u8>),
    stored: Vec<(Address, Response<Bytes>)>,
    forgotten: Address,
    absent: Vec<Address>,
}

impl Sample {
    fn get() -> &'static Self {
        static SAMPLE: LazyLock<Sample> = LazyLock::new(Sample::seal);
        &SAMPLE
    }

    fn seal() -> Self {
        let stored: Vec<_> = (0..RECORDS)
            .map(|n| (address(&format!("key-{n:02}")), Response::new(Bytes::from(body(n)))))
            .collect();
        let forgotten = address("key-99");
        let mut encoded: Vec<_> = stored
            .iter()
            .map(|(address, response)| (address, encode(&KEY, address, DAY, response.clone())))
            .collect();
        encoded.push((&forgotten, Encoded::new(&KEY, Some(&forgotten), &Entry::Forget(9_000))));
        let pool = Pool::new(Arc::new(MemoryDisk::default()));
        let (items, log) = keep(&*pool, &encoded);
        let meta = SegmentMeta {
            uuid: UUID,
            format: SegmentMeta::FORMAT,
            file: 2,
            first_generation: 1,
            generation: 2,
            first_sequence: 1,
            last_sequence: 9,
            latest_expiry: 0,
            records: 0,
            damaged: 0,
            values: Vec::new(),
        };
        let draft = Draft { meta, key: KEY };
        let sealed =
            segment::build(&pool, &draft, items.into_iter(), || Ok(vec![log.end()]), || Ok(()));
        let sealed = sealed.expect("memory takes it").expect("there are records");
        let sealed = sealed.with_values(vec![Arc::clone(&log.log)]);
        sealed.verify(KEY).expect("it is whole");
        let Segment { meta, name, file, .. } = sealed;
        let [image, kept] = [&file, &log.log.file]
            .map(|file| read_all(&**file, u64::MAX).expect("memory gives it back"));
        let log = (log.log.name.clone(), kept);
        let absent = ["a", "key-", "key-07a", "key-50", "z"].map(address).into();
        Self { meta, name, image, log, stored, forgotten, absent }
    }

    /// Panics if a file with these bytes gives anything but what was stored, or an error.
    fn expect_honest(&self, image: &[u8]) {
        let pool = Pool::new(Arc::new(MemoryDisk::default()));
        let disk = &*pool;
        let file = disk.create(&self.name).expect("the directory is empty");
        replace(&*file, image);
        let (name, kept) = &self.log;
        replace(&*disk.create(name).expect("the name is free"), kept);
        self.expect_honest_remains(&pool);
        let Some(segment) = heard(Segment::open(&pool, &self.meta, KEY)) else { return };
        let segments = Segments::from(vec![Arc::new(segment)]);
        let (segment, handles) = (&segments[0], Handles::default());
        let mut failed = false;
        let mut find = |address| {
            let found = heard(segment.find(&handles, address));
            failed |= found.is_none();
            found
        };
        for (address, response) in &self.stored {
            assert!(
                !segments.that_may_hold(address).is_empty(),
                "the filter forgot {:?}",
                address.key
            );
            match find(address) {
                Some(Some(Found::Record(record))) => assert!(is_exact(&record, response)),
                Some(other) => panic!("{:?} became {other:?}", address.key),
                None => {}
            }
        }
        let forgotten = find(&self.forgotten);
        assert!(matches!(forgotten, None | Some(Some(Found::Forgotten))), "{forgotten:?}");
        for address in &self.absent {
            let found = find(address);
            assert!(matches!(found, None | Some(None)), "{:?} became {found:?}", address.key);
        }
        let verified = heard(segment.verify(KEY));
        assert!(verified.is_none() || !failed, "verify missed what a request did not");
    }
}

/// Puts the larger of these entries into a log, and all of them on their way into a segment.
fn keep(disk: &dyn Disk, encoded: &[(&Address, Encoded)]) -> (Vec<Result<Item>>, Tail) {
    let log = Log::create(disk, 1, Identity { uuid: UUID, entries: KEY }, 1 << 20);
    let mut tail = Tail::new(Arc::new(log.expect("memory takes it")), 0);
    let mut batch = BatchBuilder::new();
    let mut item = |address: &Address, encoded: &Encoded| {
        let payload = Parts::of(&encoded.bytes).expect("it was encoded").payload;
        let (at, expires) = (Moment(1_000), Moment(9_000));
        let kept = if payload.len() <= MAX_INLINE_BYTES {
            Kept::Inline(Bytes::copy_from_slice(payload))
        } else {
            let offset = PAGE as u64 + batch.push(encoded);
            let length = u32::try_from(encoded.bytes.len()).expect("it is small");
            let location = Location { offset, length, check: check_of(&encoded.digest), at };
            Kept::InLog { log: 0, location, status: 200, bare: Bytes::new() }
        };
        Ok(Item::Sealed(Sealed { address: address.clone(), at, kept, expires }))
    };
    let items = encoded.iter().map(|(address, encoded)| item(address, encoded)).collect();
    let anchor = Timeline::start(Arc::new(SimulatedClock::new())).anchor();
    tail.append(&mut batch, anchor).expect("memory takes it");
    (items, tail)
}

fn address(key: &str) -> Address {
    Address::new(&UUID, Scope::new("fuzz"), key.parse().expect("it is one"))
}

impl Sample {
    /// Panics if a row that is salvaged is not what was stored, or if none was lost and one is
    /// missing.
    fn expect_honest_remains(&self, pool: &Arc<Pool>) {
        let Some(remains) = heard(Remains::read(pool, 2, Some(&self.meta), UUID, KEY)) else {
            return;
        };
        assert!(remains.gaps > 0 || remains.rows.len() == RECORDS + 1, "a row is missing");
        for place in &remains.rows {
            let known = |(stored, _): &&(Address, Response<Bytes>)| {
                *stored.scope.as_bytes() == place.scope && *stored.key.as_bytes() == *place.key
            };
            let payload = match remains.content(place) {
                Some(RowContent::Inline(payload)) => payload,
                // The log is whole, and asked elsewhere.
                Some(RowContent::InLog { .. }) => continue,
                None => panic!("a row that was read is gone"),
            };
            match (self.stored.iter().find(known), Found::decode(&payload, place.at)) {
                (Some((_, response)), Ok(Found::Record(record))) => {
                    assert!(is_exact(&record, response));
                }
                (None, Ok(Found::Forgotten)) => {}
                other => panic!("a row became {other:?}"),
            }
        }
    }
}

/// Every eighth stays in the log.
fn body(n: usize) -> Vec<u8> {
    format!("body {n} ").repeat(if n.is_multiple_of(8) { 500 } else { 5 + n }).into_bytes()
}

fn is_exact(record: &Record, response: &Response<Bytes>) -> bool {
    record.response().is_some_and(|stored| {
        (stored.status(), stored.body()) == (response.status(), response.body())
    })
}

/// The answer, or nothing if damage was reported as what it is.
fn heard<T>(answer: Result<T>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(Error::Corrupt { .. } | Error::Foreign { .. } | Error::Newer { .. }) => None,
        Err(error) => panic!("damage is reported as {error:?}"),
    }
}
