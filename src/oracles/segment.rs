//! A segment whose file is not what was sealed: what it says then.

use std::sync::LazyLock;

use bytes::Bytes;
use http::Response;

use crate::clock::Moment;
use crate::engine::disk::{Disk, MemoryDisk, read_all};
use crate::engine::entry::{Encoded, Entry, Found, Parts};
use crate::engine::segment::{self, Handles, Sealed, Segment, SegmentMeta};
use crate::error::{Error, Result};
use crate::key::{Address, Scope};
use crate::record::Record;

use super::{DAY, encode, replace};

const UUID: [u8; 16] = [7; 16];
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
            .map(|(address, response)| (address, encode(address, DAY, response.clone())))
            .collect();
        encoded.push((&forgotten, Encoded::new(Some(&forgotten), &Entry::Forget(9_000))));
        let entries = encoded.iter().map(|(address, encoded)| {
            let parts = Parts::of(&encoded.bytes).expect("it was encoded");
            let payload = Bytes::copy_from_slice(parts.payload);
            let (at, expires) = (Moment(1_000), Moment(9_000));
            Ok(Sealed { address: Address::clone(address), at, payload, expires })
        });
        let meta = SegmentMeta {
            uuid: UUID,
            first_generation: 1,
            generation: 2,
            first_sequence: 1,
            last_sequence: 9,
            latest_expiry: 0,
            records: 0,
        };
        let disk = MemoryDisk::default();
        let sealed = segment::build(&disk, meta, entries, || Ok(()));
        let sealed = sealed.expect("memory takes it").expect("there are records");
        sealed.verify().expect("it is whole");
        let Segment { meta, name, file, .. } = sealed;
        let image = read_all(&*file, u64::MAX).expect("memory gives it back");
        let absent = ["a", "key-", "key-07a", "key-50", "z"].map(address).into();
        Self { meta, name, image, stored, forgotten, absent }
    }

    /// Panics if a file with these bytes gives anything but what was stored, or an error.
    fn expect_honest(&self, image: &[u8]) {
        let disk = MemoryDisk::default();
        let file = disk.create(&self.name).expect("the directory is empty");
        replace(&*file, image);
        let Some(segment) = heard(Segment::open(&disk, &self.meta)) else { return };
        let handles = Handles::default();
        let mut failed = false;
        let mut find = |address| {
            let found = heard(segment.find(&handles, address));
            failed |= found.is_none();
            found
        };
        for (address, response) in &self.stored {
            assert!(segment.may_hold(address), "the filter forgot {:?}", address.key);
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
        let verified = heard(segment.verify());
        assert!(verified.is_none() || !failed, "verify missed what a request did not");
    }
}

fn address(key: &str) -> Address {
    Address::new(&UUID, Scope::new("fuzz"), key.parse().expect("it is one"))
}

/// Every eighth takes several rows.
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
