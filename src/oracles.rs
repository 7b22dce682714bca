//! The oracles of the fuzz targets: recovery, and the server layer's fingerprints.
//!
//! Built under `cfg(fuzzing)` alone, which cargo-fuzz sets.
//!
//! The input of a `recover` function decides what is in the newest log of a small store in memory,
//! or in a segment that is listed, which is then opened. Each panics, which is a finding, if damage
//! is reported as anything else, if a store that opened does not open again, or if what was
//! acknowledged is lost without a word.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
#[cfg(feature = "server")]
use http::{HeaderName, request};

use crate::clock::SimulatedClock;
use crate::engine::digest::DigestKey;
use crate::engine::disk::{Disk, DiskFile, MemoryDisk, read_all};
use crate::engine::entry::{Encoded, Parts};
use crate::engine::ledger::{self, Opened, Settings};
use crate::engine::log::{BatchBuilder, Tail};
use crate::error::{Error, Result};
use crate::key::{Address, Fingerprint, Scope};
use crate::record::Completion;
#[cfg(feature = "server")]
use crate::server::Fingerprinting;

mod segment;

pub use segment::{recover_pages, recover_rows, recover_segment};

/// Two bytes say where a patch goes, and a log is no smaller than a start and what follows it.
const LOG_BYTES: u64 = 64 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The batches of the log that is patched.
const BATCHES: usize = 4;

/// The fingerprint that the server layer gives a request, if these headers are part of it.
#[cfg(feature = "server")]
pub fn request_fingerprint(
    headers: &[HeaderName],
    request: &request::Parts,
    body: &[u8],
) -> Fingerprint {
    Fingerprinting { headers: headers.into(), ..Fingerprinting::default() }
        .of(request, &Bytes::copy_from_slice(body))
}

/// The same, where JSON bodies count by their canonical form.
#[cfg(feature = "canonical-json")]
pub fn canonical_fingerprint(request: &request::Parts, body: &[u8]) -> Fingerprint {
    Fingerprinting { canonical_json: true, ..Fingerprinting::default() }
        .of(request, &Bytes::copy_from_slice(body))
}

/// The newest log is these bytes.
pub fn recover_log(bytes: &[u8]) {
    let (disk, opened) = create();
    replace(&*opened.tail.log.file, bytes);
    save(&disk);
    recover(&disk);
}

/// The newest log verifies, whatever its entries say.
///
/// The first byte is 0 to go on behind the log's start, or else it is one more than the sequence
/// that the log follows, and the start entry is an input too. Then each entry has two bytes in
/// front of it: its length, and in the highest bit whether its batch ends with it.
pub fn recover_entries(bytes: &[u8]) {
    let Some((&first, mut rest)) = bytes.split_first() else { return };
    let (disk, mut opened) = create();
    if let Some(sequence) = first.checked_sub(1) {
        opened.tail = Tail::new(Arc::clone(&opened.tail.log), sequence.into());
    }
    let anchor = opened.ledger.timeline.anchor();
    let mut batch = BatchBuilder::new();
    while let Some((head, behind)) = rest.split_first_chunk() {
        let head = u16::from_le_bytes(*head);
        let (content, behind) = behind.split_at(behind.len().min(usize::from(head & 0x7fff)));
        rest = behind;
        let digest = opened.ledger.digests.digest(&[content]);
        let hash = Parts::of(content).map_or(0, |parts| parts.hash128(&opened.ledger.uuid));
        batch.push(&Encoded { bytes: content.to_vec(), digest, hash });
        if batch.span() > opened.tail.room() {
            break;
        }
        if head & 0x8000 != 0 || rest.is_empty() {
            opened.tail.append(&mut batch, anchor).expect("memory takes it");
            batch.clear();
        }
    }
    save(&disk);
    if let Some(opened) = recover(&disk) {
        // Whatever it says, it says so without a panic.
        let _ = opened.ledger.verify();
    }
}

/// The newest log was whole, and then patched: two bytes of offset, one to change the byte there
/// by.
pub fn recover_batches(patches: &[u8]) {
    let (disk, mut opened) = create();
    let batches = [(); BATCHES].map(|()| Acknowledged::append(&mut opened));
    let file = Arc::clone(&opened.tail.log.file);
    let whole = read_all(&*file, u64::MAX).expect("memory gives it back");
    let mut patched = whole.clone();
    for patch in patches.as_chunks::<3>().0 {
        let [low, high, change] = *patch;
        patched[usize::from(u16::from_le_bytes([low, high]))] ^= change;
    }
    replace(&*file, &patched);
    let (saved, is_proven) = save(&disk);
    let saved_record = |address: &Address| saved.as_ref().map(|saved| saved.ledger.find(address));
    let recovered = recover(&disk);
    for (address, response) in batches.iter().flat_map(|batch| &batch.records) {
        let found = recovered.as_ref().map(|opened| opened.ledger.find(address));
        match saved_record(address) {
            Some(Ok(Some(record))) => {
                let stored = record.response().map(Response::body);
                assert_eq!(stored, Some(response.body()), "what is saved is exact");
            }
            Some(Ok(None)) => {
                let is_absent = !is_proven || !matches!(found, Some(Ok(Some(_))));
                assert!(is_absent, "a record was lost without a word");
            }
            Some(Err(Error::Corrupt { .. })) | None => {}
            Some(Err(error)) => panic!("damage is reported as {error:?}"),
        }
    }
    let Some(opened) = recovered else { return };

    let is_damaged = |range: &Range<usize>| whole[range.clone()] != patched[range.clone()];
    // To any rule, damage that leaves no head behind it looks like a torn write.
    let mut last_word = true;
    for batch in batches.iter().rev() {
        for (address, response) in &batch.records {
            match opened.ledger.find(address) {
                Ok(Some(record)) => {
                    let stored = record.response().map(Response::body);
                    assert_eq!(stored, Some(response.body()), "replays are exact");
                }
                Ok(None) => assert!(last_word && is_damaged(&batch.range), "damage is no absence"),
                Err(error) => {
                    let is_damage = matches!(error, Error::Corrupt { .. });
                    assert!(is_damage && is_damaged(&batch.range), "{error:?}");
                }
            }
        }
        last_word &= is_damaged(&batch.head());
    }
}

/// A batch, and what was acknowledged with it.
struct Acknowledged {
    range: Range<usize>,
    records: Vec<(Address, Response<Bytes>)>,
}

impl Acknowledged {
    /// Some batches take a page, some more.
    fn append(opened: &mut Opened) -> Self {
        let sequence = opened.tail.sequence;
        let (mut batch, mut records) = (BatchBuilder::new(), Vec::new());
        for n in 0..=sequence % 3 {
            let name = format!("key-{sequence}-{n}");
            let response = Response::new(Bytes::from(name.repeat(100 * (1 + records.len()))));
            let key = name.parse().expect("letters and digits are a key");
            let address = Address::new(&opened.ledger.uuid, Scope::new("fuzz"), key);
            batch.push(&encode(&opened.ledger.digests, &address, DAY, response.clone()));
            records.push((address, response));
        }
        let anchor = opened.ledger.timeline.anchor();
        let offset = opened.tail.append(&mut batch, anchor).expect("memory takes it");
        let range = offset..offset + batch.span();
        let in_memory = |at| usize::try_from(at).expect("the log is small");
        Self { range: in_memory(range.start)..in_memory(range.end), records }
    }

    fn head(&self) -> Range<usize> {
        self.range.start..self.range.start + BatchBuilder::OVERHEAD / 2
    }
}

fn encode(
    digests: &DigestKey,
    address: &Address,
    ttl: Duration,
    response: Response<Bytes>,
) -> Encoded {
    let completion = Completion {
        fingerprint: Fingerprint::from_bytes([9; 32]),
        request_id: "req_81".parse().expect("it is one"),
        ttl,
        response: Some(response),
    };
    Encoded::completion(digests, address, &completion)
}

/// A new store, whose newest log holds its start.
fn create() -> (Arc<MemoryDisk>, Opened) {
    let disk = Arc::default();
    let opened = open(&disk).expect("a store is made of nothing");
    (disk, opened)
}

fn open(disk: &Arc<MemoryDisk>) -> Result<Opened> {
    ledger::open(Arc::clone(disk) as Arc<dyn Disk>, settings())
}

fn settings() -> Settings {
    Settings {
        clock: Arc::new(SimulatedClock::new()),
        ttl: DAY,
        log_bytes: LOG_BYTES,
        first_log_bytes: LOG_BYTES,
        max_open_claims: 16,
        max_open_claims_per_scope: 16,
        trusted_downtime: DAY,
        zero_recycled: false,
    }
}

/// Opens what may be damaged: `None` if that was noticed.
fn recover(disk: &Arc<MemoryDisk>) -> Option<Opened> {
    match open(disk) {
        Ok(_) => Some(open(disk).expect("what was recovered opens again")),
        Err(Error::Corrupt { .. } | Error::Foreign { .. } | Error::Newer { .. }) => None,
        Err(error) => panic!("damage is reported as {error:?}"),
    }
}

/// Salvages what may be damaged into a store that opens, and returns whether it holds every key.
fn save(disk: &Arc<MemoryDisk>) -> (Option<Opened>, bool) {
    let into = Arc::<MemoryDisk>::default();
    let from = Arc::clone(disk) as Arc<dyn Disk>;
    match ledger::salvage(from, Arc::clone(&into) as Arc<dyn Disk>, &settings()) {
        Ok(report) => {
            let saved = open(&into).expect("what was salvaged opens");
            (Some(saved), report.is_absence_proven())
        }
        Err(Error::Corrupt { .. } | Error::Foreign { .. } | Error::Newer { .. }) => (None, false),
        Err(error) => panic!("damage is reported as {error:?}"),
    }
}

fn replace(file: &dyn DiskFile, bytes: &[u8]) {
    file.set_len(0).and_then(|()| file.write_at(bytes, 0)).expect("memory takes it");
}
