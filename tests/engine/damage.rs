//! P5: damage is never taken for absence, and somebody notices it.
//!
//! Each test harms a store, or a copy of one, in one way, and asks for every key. A stored record
//! may be there and exact, or asking (or opening) may fail. The record may not be absent, with one
//! exception that no rule can tell from a torn write: rot in the newest log's last batch. Either
//! opening or [`Store::verify`] must find the harm, unless it is in bytes that nobody reads.

use std::fs;
use std::path::{Path, PathBuf};

use refrain::{Builder, Outcome, Store};

use crate::kit::*;

mod contained;
mod flips;
mod formats;
mod salvage;
mod splices;
mod table;

/// A store whose records are spread over segments, a frozen log and the newest log. One key is
/// claimed and interrupted.
struct Victim {
    home: Home,
    names: Vec<String>,
}

/// Who found the harm.
#[derive(Debug)]
enum Finder {
    Opening,
    Verify,
    Stats,
    Nobody,
}

impl Victim {
    fn new() -> Self {
        Self::open().0
    }

    /// With logs that hold all of it, so that none is replaced by a larger one.
    fn builder(&self) -> Builder {
        self.home.builder().log_bytes(8 * 1024 * 1024)
    }

    /// With the store in the middle of its second life.
    fn open() -> (Self, Store) {
        let mut victim = Self { home: Home::new(), names: Vec::new() };
        let store = victim.builder().open(victim.home.path()).unwrap();
        drop(execute(&store, &operation("claimed").durable()));
        victim.put(&store, 20);
        seal(&store, &victim.home);
        victim.put(&store, 20);
        seal(&store, &victim.home);
        victim.put(&store, 10);
        drop(store);
        let store = victim.builder().open(victim.home.path()).unwrap();
        victim.put(&store, 10);
        assert_eq!(victim.home.files(".redb").len(), 2, "the victim has segments");
        assert_eq!(victim.chain().len(), 3, "two logs with records, and one prepared");
        assert_eq!(victim.values().len(), 2, "each segment has a log with larger records");
        (victim, store)
    }

    fn put(&mut self, store: &Store, count: usize) {
        for _ in 0..count {
            let name = format!("key-{}", self.names.len());
            let body = body(&name);
            execute(store, &operation(&name)).complete(&response(&body)).wait().unwrap();
            self.names.push(name);
        }
    }

    /// The logs that acknowledge, oldest first.
    fn chain(&self) -> Vec<PathBuf> {
        self.home.files(".log").into_iter().filter(|log| !holds_values(log)).collect()
    }

    /// The logs that are kept for the records in them.
    fn values(&self) -> Vec<PathBuf> {
        self.home.files(".log").into_iter().filter(|log| holds_values(log)).collect()
    }

    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in self.home.files("") {
            fs::copy(&file, copy.path().join(name_of(&file))).unwrap();
        }
        copy
    }

    /// Harms a copy, and returns the finder of the harm. All answers are exact.
    fn harm(&self, what: &str, harm: impl FnOnce(&Path)) -> Finder {
        let copy = self.copy();
        harm(copy.path());
        let Ok(store) = self.builder().open(copy.path()) else { return Finder::Opening };
        let failed = self.ask(what, &store);
        match store.verify() {
            Err(_) => Finder::Verify,
            Ok(()) => {
                assert_eq!(failed, 0, "{what}: verify missed what a request did not");
                if store.stats().damaged_files > 0 { Finder::Stats } else { Finder::Nobody }
            }
        }
    }

    /// Asks for every key, and returns the number without an answer. All answers are exact.
    fn ask(&self, what: &str, store: &Store) -> usize {
        let mut failed = 0;
        for name in &self.names {
            match store.begin(&operation(name)).wait() {
                Ok(Outcome::Replay(record)) => {
                    let replayed = record.response().expect("responses are kept").body();
                    assert_eq!(replayed, body(name).as_bytes(), "{what}: {name}");
                }
                Ok(other) => panic!("{what}: {name} became {other:?}"),
                Err(_) => failed += 1,
            }
        }
        match store.begin(&operation("claimed").durable()).wait() {
            Ok(Outcome::Interrupted(_)) => {}
            Ok(other) => panic!("{what}: the interrupted key became {other:?}"),
            Err(_) => failed += 1,
        }
        for absent in ["a", "key-", "key-30a", "zzz"] {
            match store.get(scope(), &key(absent)).wait() {
                Ok(None) => {}
                Ok(Some(record)) => panic!("{what}: {absent} became {record:?}"),
                Err(_) => failed += 1,
            }
        }
        failed
    }
}

impl Finder {
    fn is_opening(&self) -> bool {
        matches!(self, Self::Opening)
    }

    fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }
}

/// Some bodies take several rows of a segment.
fn body(name: &str) -> String {
    let repeats = if name.ends_with('7') { 600 } else { 30 };
    name.repeat(repeats)
}

pub(crate) fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x55;
    fs::write(file, bytes).unwrap();
}

/// A log of the chain begins with an entry that has no address, and so its hash is zero.
fn holds_values(log: &Path) -> bool {
    let first = &fs::read(log).unwrap()[4096..];
    first.starts_with(b"btc2") && first[92 + 4..92 + 20] != [0; 16]
}

/// The length of a file up to its last byte that is not zero.
fn used(file: &Path) -> usize {
    let bytes = fs::read(file).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn name_of(path: &Path) -> PathBuf {
    PathBuf::from(path.file_name().unwrap())
}

#[test]
fn p5_a_damaged_last_batch_is_a_torn_write_and_loses_nothing_else() {
    let victim = Victim::new();
    let newest = victim.chain()[1].clone();
    let last = (used(&newest) - 1) / 4096 * 4096;
    let copy = victim.copy();
    flip(&copy.path().join(name_of(&newest)), last + 200);
    let store = victim.builder().open(copy.path()).unwrap();
    for name in &victim.names {
        let expected = (name != victim.names.last().unwrap()).then(|| body(name));
        assert_eq!(replayed(&store, name), expected, "{name}");
    }
}

#[test]
fn p5_truncated_files_are_found() {
    let victim = Victim::new();
    for file in victim.home.files("") {
        let name = name_of(&file);
        let length = fs::metadata(&file).unwrap().len();
        for cut in [0, 1, 50, 4096, length / 2, length - 4096.min(length), length - 1] {
            let what = format!("{} cut to {cut}", name.display());
            let finder = victim.harm(&what, |copy| {
                let file = fs::OpenOptions::new().write(true).open(copy.join(&name)).unwrap();
                file.set_len(cut).unwrap();
            });
            assert!(cut == length || !finder.is_nobody(), "{what} was not noticed");
        }
    }
}

#[test]
fn p5_a_missing_file_is_an_error_whichever_it_is() {
    let victim = Victim::new();
    for file in victim.home.files("") {
        let name = name_of(&file);
        let what = format!("without {}", name.display());
        let finder = victim.harm(&what, |copy| fs::remove_file(copy.join(&name)).unwrap());
        assert!(finder.is_opening(), "{what}");
    }
}

#[test]
fn p5_swapped_files_are_an_error() {
    let victim = Victim::new();
    let all = victim.home.files("");
    for (at, a) in all.iter().enumerate() {
        for b in &all[at + 1..] {
            let (a, b) = (name_of(a), name_of(b));
            let what = format!("{} for {}", a.display(), b.display());
            let finder = victim.harm(&what, |copy| {
                fs::rename(copy.join(&a), copy.join("aside")).unwrap();
                fs::rename(copy.join(&b), copy.join(&a)).unwrap();
                fs::rename(copy.join("aside"), copy.join(&b)).unwrap();
            });
            assert!(finder.is_opening(), "{what}");
        }
    }
}
