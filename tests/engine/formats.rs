//! Directories of earlier formats: they open, and say what they said.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use refrain::backend::Listed;
use refrain::{Outcome, Store};

use crate::kit::*;

/// A store of format 1, as version 0.1.0 left it after three hours: 24 records in two segments, a
/// frozen log and the newest log, an interrupted claim with a checkpoint, and two records that were
/// forgotten.
const FORMAT_1: &[u8] = include_bytes!("../fixtures/format_1.gz");
const RECORDS: usize = 24;
const FORGOTTEN: [usize; 2] = [3, 4];

/// Unpacks a directory: each file is a line with its name, its length and its number of pages, then
/// pages of 4 KiB, each with its number, the length of what follows, and that much of the page.
fn unpack(packed: &[u8], into: &Path) {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let (line, pages) = rest.split_at(end);
        let mut words = std::str::from_utf8(line).unwrap().split(' ');
        let name = words.next().unwrap();
        let [length, count] = [(); 2].map(|()| words.next().unwrap().parse::<usize>().unwrap());
        let mut content = vec![0; length];
        rest = &pages[1..];
        for _ in 0..count {
            let [page, used] = [(); 2].map(|()| {
                let (number, behind) = rest.split_first_chunk().unwrap();
                rest = behind;
                usize::try_from(u32::from_le_bytes(*number)).unwrap()
            });
            let (used, behind) = rest.split_at(used);
            content[page * 4096..][..used.len()].copy_from_slice(used);
            rest = behind;
        }
        fs::write(into.join(name), content).unwrap();
    }
}

fn body(name: &str) -> String {
    name.repeat(if name.ends_with('7') { 1200 } else { 30 })
}

fn open(home: &Home) -> Store {
    home.builder().open(home.path()).unwrap()
}

/// Asks for all that the store of format 1 held.
fn ask(store: &Store, what: &str) {
    for n in (0..RECORDS).filter(|n| !FORGOTTEN.contains(n)) {
        let name = format!("key-{n}");
        match begin(store, &operation(&name)) {
            Outcome::Replay(record) => {
                let replayed = record.response().unwrap();
                assert_eq!(replayed.body(), body(&name).as_bytes(), "{what}: {name}");
                assert_eq!(replayed.headers()["x-kind"], "call", "{what}: {name}");
            }
            other => panic!("{what}: {name} became {other:?}"),
        }
    }
    for n in FORGOTTEN {
        let found = store.get(scope(), &key(&format!("key-{n}"))).wait().unwrap();
        assert!(found.is_none(), "{what}: {found:?}");
    }
    let mut listed = 0;
    for line in store.records(scope(), None).with_responses() {
        let Listed::Record { key, record, .. } = line.unwrap() else { panic!("{what}") };
        if (0..RECORDS).any(|n| key.as_str() == format!("key-{n}")) {
            let listed_body = record.response().unwrap().body();
            assert_eq!(listed_body, body(key.as_str()).as_bytes(), "{what}: {key:?}");
            listed += 1;
        }
    }
    assert_eq!(listed, RECORDS - FORGOTTEN.len(), "{what}");
    let attempt = interrupted(store, &operation("claimed").durable());
    assert_eq!(attempt.checkpoints(), ["half way"], "{what}");
}

#[test]
fn p16_a_purge_leaves_no_byte_of_what_was_forgotten_in_format_1() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    unpack(FORMAT_1, &home.path());
    home.clock.advance(HOUR * 3);
    let store = open(&home);
    let forgotten = || {
        let bodies = FORGOTTEN.into_iter().map(|n| body(&format!("key-{n}")));
        bodies.filter(|body| !holding(&home, body).is_empty())
    };
    assert!(forgotten().count() > 0, "there is nothing to purge");
    store.purge().wait().unwrap();
    assert_eq!(forgotten().count(), 0);
    ask(&store, "purged");
    store.verify().unwrap();
    drop(store);
    ask(&open(&home), "purged, and opened");
}

#[test]
fn p4_a_directory_of_format_1_opens_and_goes_on_in_format_2() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    unpack(FORMAT_1, &home.path());
    home.clock.advance(HOUR * 3);
    let store = open(&home);
    ask(&store, "opened");
    store.verify().unwrap();
    execute(&store, &operation("new")).complete(&response("new")).wait().unwrap();
    drop(store);
    let store = open(&home);
    ask(&store, "opened again");
    seal(&store, &home);
    ask(&store, "sealed");
    store.verify().unwrap();
    assert!(matches!(begin(&store, &operation("new")), Outcome::Replay(_)));
    drop(store);
    let store = open(&home);
    ask(&store, "sealed, and opened");
    // All that is of format 1 expires with its files.
    home.clock.advance(HOUR * 24);
    store.reap().unwrap();
    store.reap().unwrap();
    assert_eq!(home.files(".redb").len(), 0);
    assert!(matches!(begin(&store, &operation("key-1")), Outcome::Execute(_)));
}

#[test]
fn p5_a_directory_of_format_1_is_salvaged_with_and_without_its_list() {
    for lost in [None, Some("MANIFEST")] {
        let home = Home::new();
        let old = home.directory.path().join("old");
        fs::create_dir(&old).unwrap();
        unpack(FORMAT_1, &old);
        lost.into_iter().for_each(|name| fs::remove_file(old.join(name)).unwrap());
        home.clock.advance(HOUR * 3);
        let report = home.builder().salvage(&old, home.path()).unwrap();
        assert_eq!(usize::try_from(report.records).unwrap(), RECORDS - FORGOTTEN.len(), "{report}");
        assert_eq!((report.open_claims, report.damaged_keys), (1, 0), "{report}");
        assert_eq!(report.is_absence_proven(), lost.is_none(), "{report}");
        let store = open(&home);
        ask(&store, "salvaged");
        store.verify().unwrap();
    }
}
