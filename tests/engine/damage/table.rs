//! One flipped bit in each page of each kind of file, and the most that it may cost.
//!
//! | a bit in | costs |
//! | --- | --- |
//! | `MANIFEST`, `LOCK` | nothing |
//! | the header of any log | nothing |
//! | the head or the frames of a batch | nothing |
//! | an entry of a log, active, frozen or kept for its records | its key |
//! | the filter, the meta row or the tree of a segment | nothing |
//! | a row of a segment | its key, and the proof that those up to the next row are absent |
//! | the place where one row ends and the next begins | both their keys |
//! | a log that is prepared, and files that are not listed any more | nothing |

use std::fs;
use std::path::{Path, PathBuf};

use refrain::{Error, Outcome, Store};

use super::{Victim, body, name_of, used};
use crate::kit::*;

const PAGE: usize = 4096;
/// The bytes of a page in which a bit is flipped.
const PLACES: [usize; 5] = [9, 50, 130, 1111, 4090];

/// A kind of file, and what a bit in its header and in its other pages may cost: keys of records,
/// and keys that are not there.
struct Row {
    kind: &'static str,
    file: PathBuf,
    header: usize,
    content: usize,
    absent: usize,
}

/// The cost of a bit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    records: usize,
    absent: usize,
}

fn row(kind: &'static str, file: &Path, content: usize, absent: usize) -> Row {
    Row { kind, file: name_of(file), header: 0, content, absent }
}

/// Asks for every key. All answers are true, or say that the key is damaged.
fn cost(victim: &Victim, store: &Store) -> Result<Cost, String> {
    let mut cost = Cost::default();
    for name in &victim.names {
        match store.get(scope(), &key(name)).wait() {
            Ok(Some(record)) if record.response().unwrap().body() == body(name).as_bytes() => {}
            Err(Error::Corrupt { .. }) => cost.records += 1,
            other => return Err(format!("{name} became {other:?}")),
        }
    }
    for n in 0..60 {
        match store.get(scope(), &key(&format!("key-{n}-"))).wait() {
            Ok(None) => {}
            Err(Error::Corrupt { .. }) => cost.absent += 1,
            other => return Err(format!("key-{n}- became {other:?}")),
        }
    }
    Ok(cost)
}

/// Flips a bit in a copy, and asks for every key.
fn flip(victim: &Victim, row: &Row, at: usize) -> Result<Cost, String> {
    let copy = victim.copy();
    let path = copy.path().join(&row.file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs::write(&path, bytes).unwrap();
    let open = || victim.home.builder().open(copy.path()).map_err(|error| error.to_string());
    let store = open()?;
    let mut cost = cost(victim, &store)?;
    let is_noticed = store.verify().is_err() || store.stats().damaged_files > 0;
    if cost != Cost::default() && !is_noticed {
        return Err("it is not noticed".to_owned());
    }
    match store.begin(&operation("claimed").durable()).wait() {
        Ok(Outcome::Interrupted(_)) => {}
        Err(Error::Corrupt { .. }) => cost.records += 1,
        other => return Err(format!("the interrupted key became {other:?}")),
    }
    // The store goes on, and opens again.
    run(&store, "more");
    drop(store);
    open().map(|_| cost)
}

#[test]
fn p5_a_bit_costs_no_more_than_it_must_whichever_it_is() {
    let mut victim = Victim { home: Home::new(), names: Vec::new() };
    let store = victim.home.open();
    drop(execute(&store, &operation("claimed").durable()));
    victim.put(&store, 20);
    let sealed = victim.chain()[0].clone();
    let leftover = fs::read(&sealed).unwrap();
    seal(&store, &victim.home);
    victim.put(&store, 20);
    seal(&store, &victim.home);
    victim.put(&store, 10);
    drop(store);
    let store = victim.home.open();
    victim.put(&store, 10);
    // So that nothing is left to be removed.
    store.reap().unwrap();
    drop(store);
    let [frozen, active, prepared] = &victim.chain()[..] else { panic!("{:?}", victim.chain()) };
    let segment = victim.home.files(".redb")[0].clone();
    assert!(!sealed.exists(), "its larger records were copied");
    fs::write(&sealed, leftover).unwrap();
    let rows = [
        row("MANIFEST", Path::new("MANIFEST"), 0, 0),
        row("LOCK", Path::new("LOCK"), 0, 0),
        row("the active log", active, 1, 0),
        row("a frozen log", frozen, 1, 0),
        row("a log kept for its records", &victim.values()[0], 1, 0),
        row("a segment", &segment, 2, 12),
        row("the prepared log", prepared, 0, 0),
        row("a log that is not listed", &sealed, 0, 0),
    ];
    std::panic::set_hook(Box::new(|_| {}));
    let mut failures = Vec::new();
    for row in &rows {
        let path = victim.home.file(&row.file.to_string_lossy());
        let (mut pages, mut worst) = (used(&path).div_ceil(PAGE), Cost::default());
        if row.kind == "the active log" {
            // The last batch looks like a torn write.
            pages -= 1;
        }
        let length = fs::read(&path).unwrap().len();
        for at in (0..pages).flat_map(|page| PLACES.map(|place| page * PAGE + place)) {
            if at >= length {
                continue;
            }
            let cost = match flip(&victim, row, at) {
                Ok(cost) => cost,
                Err(what) => {
                    failures.push(format!("a bit of byte {at} of {}: {what}", row.kind));
                    continue;
                }
            };
            let most = if at < PAGE { row.header } else { row.content };
            if cost.records > most || cost.absent > row.absent {
                failures.push(format!("a bit of byte {at} of {}: {cost:?}", row.kind));
            }
            worst = worst.max(cost);
        }
        if row.content > 0 && worst.records == 0 {
            failures.push(format!("nobody reads {}, of {pages} pages", row.kind));
        }
    }
    let _ = std::panic::take_hook();
    assert!(failures.is_empty(), "{failures:#?}");
}
