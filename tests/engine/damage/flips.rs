//! A flip of one byte, in every region of every file.
//!
//! Regions where nobody looks, by design:
//! - the rest of the page that a batch ends in, and of a log's pages behind its end;
//! - the batch behind the end of a log that was the newest when a store was opened: the newer log
//!   has repeated it;
//! - of a segment: pages that redb has free, the free end of a page, and of its header page the
//!   padding and the older of its two commit slots;
//! - the header page of a log that was prepared for a store that was then closed: its blocks are
//!   written anew.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use refrain::Store;

use super::{Victim, flip, name_of};

const PAGE: usize = 4096;
/// The fields of a log's header, of a batch's head, and of what is in front of an entry.
const HEADER: [usize; 8] = [8, 4, 16, 8, 8, 32, 32, 32];
const HEAD: [usize; 10] = [4, 4, 8, 4, 8, 8, 8, 16, 16, 16];
const FRAME: [usize; 3] = [4, 16, 16];

/// The regions of a log: those that are read, batch by batch, and those that are not.
struct Regions {
    header: Vec<Range<usize>>,
    rest_of_header: Range<usize>,
    batches: Vec<Vec<Range<usize>>>,
    unread: Vec<Range<usize>>,
}

impl Regions {
    fn of(log: &Path) -> Self {
        let bytes = fs::read(log).unwrap();
        let (mut batches, mut unread) = (Vec::new(), Vec::new());
        let mut at = PAGE;
        while bytes[at..].starts_with(b"btc2") {
            let (end, count) = (at + length_at(&bytes, at + 4), length_at(&bytes, at + 16));
            let mut batch = fields(at, &HEAD);
            at = batch.last().unwrap().end;
            while at < end {
                let length = length_at(&bytes, at);
                batch.extend(fields(at, &FRAME));
                at = batch.last().unwrap().end;
                batch.push(at..at + length);
                at += length;
            }
            let copies = count * FRAME.iter().sum::<usize>() + HEAD.iter().sum::<usize>();
            at = (end + copies).next_multiple_of(PAGE);
            unread.push(end..at - copies);
            for copy in 0..count {
                batch.extend(fields(at - copies + copy * FRAME.iter().sum::<usize>(), &FRAME));
            }
            batch.extend(fields(at - HEAD.iter().sum::<usize>(), &HEAD));
            batches.push(batch);
        }
        unread.push(at..bytes.len());
        Self { header: fields(0, &HEADER), rest_of_header: 140..PAGE, batches, unread }
    }

    fn read(&self) -> impl Iterator<Item = &Range<usize>> {
        self.header.iter().chain([&self.rest_of_header]).chain(self.batches.iter().flatten())
    }
}

fn fields(at: usize, lengths: &[usize]) -> Vec<Range<usize>> {
    let ends = lengths.iter().scan(at, |end, length| {
        *end += length;
        Some(*end)
    });
    ends.zip(lengths).map(|(end, length)| end - length..end).collect()
}

fn length_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// A file that is harmed in place, and healed.
struct Harmed {
    file: File,
    bytes: Vec<u8>,
}

impl Harmed {
    fn of(path: &Path) -> Self {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        Self { file, bytes: fs::read(path).unwrap() }
    }

    fn flip(&self, range: Range<usize>) {
        let flipped: Vec<u8> = self.bytes[range.clone()].iter().map(|byte| byte ^ 0x55).collect();
        self.file.write_all_at(&flipped, range.start as u64).unwrap();
    }

    fn heal(&self, range: Range<usize>) {
        self.file.write_all_at(&self.bytes[range.clone()], range.start as u64).unwrap();
    }

    fn is_found(&self, store: &Store, at: usize) -> bool {
        self.flip(at..at + 1);
        let found = store.verify().is_err();
        self.heal(at..at + 1);
        found
    }
}

#[test]
fn p5_verify_finds_a_flipped_byte_in_every_region_of_the_lists_and_of_the_logs() {
    let (victim, store) = Victim::open();
    for name in ["LOCK", "MANIFEST"] {
        let harmed = Harmed::of(&victim.home.file(name));
        for at in 0..harmed.bytes.len() {
            assert!(harmed.is_found(&store, at), "{name} at {at}");
        }
    }
    let logs = victim.chain().into_iter().chain(victim.values());
    for (number, log) in logs.enumerate() {
        let (harmed, mut regions) = (Harmed::of(&log), Regions::of(&log));
        if number == 0 {
            let repeated = regions.batches.pop().unwrap();
            regions.unread.extend(repeated);
        }
        assert_eq!(regions.batches.is_empty(), number == 2, "the last log is prepared");
        for region in regions.read() {
            for at in [region.start, region.end - 1] {
                assert!(harmed.is_found(&store, at), "{} at {at}", log.display());
            }
        }
        regions.unread.into_iter().for_each(|region| harmed.flip(region));
    }
    store.verify().unwrap();
    assert_eq!(victim.ask("all that is unread", &store), 0);
    drop(store);
}

#[test]
fn p5_verify_finds_a_flipped_byte_in_every_page_of_a_segment() {
    let (victim, store) = Victim::open();
    let segment = victim.home.files(".redb")[0].clone();
    let harmed = Harmed::of(&segment);
    let mut unread = Vec::new();
    let older = 64 + 128 * usize::from(harmed.bytes[9] & 1 == 0);
    let padding = [10..12, 32..64, older..older + 128, 320..PAGE];
    for at in (0..330).chain((330..PAGE).step_by(61)) {
        if !harmed.is_found(&store, at) {
            assert!(padding.iter().any(|range| range.contains(&at)), "header page at {at}");
            unread.push(at..at + 1);
        }
    }
    let mut pages = 0;
    for page in (PAGE..harmed.bytes.len()).step_by(PAGE) {
        let found = |at: &usize| harmed.is_found(&store, *at);
        let places = || (page..page + PAGE).step_by(139).chain([page + PAGE - 1]);
        let content = places().take_while(found).count();
        // From the first byte that nobody reads on, nobody reads the page.
        if let Some(free) = places().nth(content) {
            assert_eq!(places().skip(content).find(found), None, "behind {free}");
            unread.push(free..page + PAGE);
        }
        pages += usize::from(content > 0);
    }
    assert!(pages >= 10, "rows, branches, filter, meta and redb's own, but only {pages} pages");
    unread.into_iter().for_each(|region| harmed.flip(region));
    store.verify().unwrap();
    drop(store);
    assert!(victim.harm("all that is unread", |_| {}).is_nobody());
}

#[test]
fn p5_a_flipped_byte_is_found_when_the_store_is_opened_or_verified() {
    let victim = Victim::new();
    for name in ["LOCK", "MANIFEST"] {
        for at in (0..fs::read(victim.home.file(name)).unwrap().len()).step_by(7) {
            let what = format!("{name} at {at}");
            let finder = victim.harm(&what, |copy| flip(&copy.join(name), at));
            assert!(!finder.is_opening() && !finder.is_nobody(), "{what}");
        }
    }
    let mut unread = Vec::new();
    let logs = victim.chain().into_iter().chain(victim.values());
    for (number, log) in logs.enumerate() {
        let (name, mut regions) = (name_of(&log), Regions::of(&log));
        // Of the newest log it is what a torn write looks like, of the one before it repeated.
        let last = (number < 2).then(|| regions.batches.pop()).flatten().unwrap_or_default();
        regions.unread.extend(last.into_iter().filter(|_| number == 0));
        // The fields of the batches take turns.
        let third = regions.read().enumerate().filter(|(at, _)| *at < 8 || at % 3 == 0);
        for (_, region) in third {
            let what = format!("{} at {region:?}", name.display());
            let finder = victim.harm(&what, |copy| flip(&copy.join(&name), region.start));
            let is_prepared = number == 2;
            assert_eq!(finder.is_nobody(), is_prepared, "{what}");
        }
        unread.push((name, regions.unread));
    }
    let finder = victim.harm("all that is unread", |copy| {
        for (name, regions) in unread {
            let harmed = Harmed::of(&copy.join(name));
            regions.into_iter().for_each(|region| harmed.flip(region));
        }
    });
    assert!(finder.is_nobody());
    for segment in victim.home.files(".redb") {
        let name = name_of(&segment);
        for at in (0..fs::read(&segment).unwrap().len()).step_by(977) {
            // Which of them are found is asked above.
            let what = format!("{} at {at}", name.display());
            victim.harm(&what, |copy| flip(&copy.join(&name), at));
        }
    }
}
