//! P5: damage is never taken for absence.
//!
//! Each test takes a closed store, harms a copy of it in one way, and asks for every record. It may
//! be there and exact, or asking (or opening) may fail. It may not be absent, with one exception
//! that no rule can tell from a torn write: rot in the newest log's last batch.

use std::fs;
use std::path::{Path, PathBuf};

use refrain::{Outcome, Store};

use crate::kit::*;

/// A closed store whose records are spread over segments, a frozen log and the newest log.
struct Victim {
    home: Home,
    names: Vec<String>,
}

impl Victim {
    fn new() -> Self {
        let home = Home::new();
        let mut names = Vec::new();
        let mut put = |store: &Store, count: usize| {
            for _ in 0..count {
                let name = format!("key-{}", names.len());
                let body = body(&name);
                execute(store, &operation(&name)).complete(&response(&body)).wait().unwrap();
                names.push(name);
            }
        };
        let store = home.open();
        put(&store, 20);
        seal(&store, &home);
        put(&store, 20);
        seal(&store, &home);
        put(&store, 10);
        drop(store);
        let store = home.open();
        put(&store, 10);
        drop(store);
        assert_eq!(home.files(".redb").len(), 2, "the victim has segments");
        assert_eq!(home.files(".log").len(), 3, "two logs with records, and one prepared");
        Self { home, names }
    }

    /// Harms a copy, and says how many of the records could not be had.
    fn harm(&self, what: &str, harm: impl FnOnce(&Path)) -> usize {
        let copy = tempfile::tempdir().unwrap();
        for file in files(&self.home.path(), "") {
            fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        harm(copy.path());
        let Ok(store) = self.home.builder().open(copy.path()) else { return self.names.len() };
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
        failed
    }
}

/// Some bodies take several rows of a segment.
fn body(name: &str) -> String {
    let repeats = if name.ends_with('7') { 600 } else { 30 };
    name.repeat(repeats)
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x55;
    fs::write(file, bytes).unwrap();
}

/// How far a file has content.
fn used(file: &Path) -> usize {
    let bytes = fs::read(file).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn name_of(path: &Path) -> PathBuf {
    PathBuf::from(path.file_name().unwrap())
}

#[test]
fn p5_flipped_bytes_anywhere_in_the_files_hide_nothing() {
    let victim = Victim::new();
    let newest = victim.home.files(".log")[1].clone();
    let mut noticed = 0;
    for file in files(&victim.home.path(), "") {
        let (name, used) = (name_of(&file), used(&file));
        // The newest log's last batch begins at its last page.
        let end = if file == newest { (used - 1) / 4096 * 4096 } else { used };
        let step = if end > 2000 { 977 } else { 5 };
        for at in (0..end).step_by(step) {
            let what = format!("{} at {at}", name.display());
            noticed += victim.harm(&what, |copy| flip(&copy.join(&name), at));
        }
    }
    assert!(noticed > 1000, "only {noticed} errors: are the files read at all?");
}

#[test]
fn p5_a_damaged_last_batch_is_a_torn_write_and_loses_nothing_else() {
    let victim = Victim::new();
    let newest = victim.home.files(".log")[1].clone();
    let last = (used(&newest) - 1) / 4096 * 4096;
    let copy = tempfile::tempdir().unwrap();
    for file in files(&victim.home.path(), "") {
        fs::copy(&file, copy.path().join(name_of(&file))).unwrap();
    }
    flip(&copy.path().join(name_of(&newest)), last + 200);
    let store = victim.home.builder().open(copy.path()).unwrap();
    for name in &victim.names {
        let expected = (name != victim.names.last().unwrap()).then(|| body(name));
        assert_eq!(replayed(&store, name), expected, "{name}");
    }
}

#[test]
fn p5_truncated_files_hide_nothing() {
    let victim = Victim::new();
    for file in files(&victim.home.path(), "") {
        let name = name_of(&file);
        let length = fs::metadata(&file).unwrap().len();
        for cut in [0, 1, 50, 4096, length / 2, length - 4096.min(length), length - 1] {
            let what = format!("{} cut to {cut}", name.display());
            let failed = victim.harm(&what, |copy| {
                let file = fs::OpenOptions::new().write(true).open(copy.join(&name)).unwrap();
                file.set_len(cut).unwrap();
            });
            let is_segment = file.extension().is_some_and(|extension| extension == "redb");
            assert!(failed > 0 || is_segment, "{what} was not noticed");
        }
    }
}

#[test]
fn p5_a_missing_file_is_an_error_whichever_it_is() {
    let victim = Victim::new();
    for file in files(&victim.home.path(), "") {
        let name = name_of(&file);
        let what = format!("without {}", name.display());
        let failed = victim.harm(&what, |copy| fs::remove_file(copy.join(&name)).unwrap());
        assert_eq!(failed, victim.names.len(), "{what}");
    }
}

#[test]
fn p5_swapped_files_are_an_error() {
    let victim = Victim::new();
    let all = files(&victim.home.path(), "");
    for (at, a) in all.iter().enumerate() {
        for b in &all[at + 1..] {
            let (a, b) = (name_of(a), name_of(b));
            let what = format!("{} for {}", a.display(), b.display());
            let failed = victim.harm(&what, |copy| {
                fs::rename(copy.join(&a), copy.join("aside")).unwrap();
                fs::rename(copy.join(&b), copy.join(&a)).unwrap();
                fs::rename(copy.join("aside"), copy.join(&b)).unwrap();
            });
            assert_eq!(failed, victim.names.len(), "{what}");
        }
    }
}

#[test]
fn p13_another_stores_file_is_an_error_and_stays() {
    let (victim, other) = (Victim::new(), Victim::new());
    for file in files(&victim.home.path(), "") {
        let name = name_of(&file);
        let Ok(foreign) = fs::read(other.home.file(&name.to_string_lossy())) else {
            panic!("both stores have the same names");
        };
        let what = format!("{} of another store", name.display());
        let failed = victim.harm(&what, |copy| fs::write(copy.join(&name), &foreign).unwrap());
        assert_eq!(failed, victim.names.len(), "{what}");
    }
}

#[test]
fn an_older_manifest_is_an_error() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    let old = fs::read(home.file("MANIFEST")).unwrap();
    seal(&store, &home);
    drop(store);
    fs::write(home.file("MANIFEST"), old).unwrap();
    assert!(home.builder().open(home.path()).is_err());
}
