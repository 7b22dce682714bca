//! A store that does not open: what can be proved is saved, and the rest is reported.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use refrain::salvage::Salvage;
use refrain::{Error, Outcome, Store};

use super::{Victim, body, flip, name_of, used};
use crate::kit::*;

const PAGE: usize = 4096;

/// What a salvaged store says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Exact,
    Damaged,
    Absent,
}

/// A directory that was salvaged, the new one, and the report.
struct Saved {
    _directory: tempfile::TempDir,
    new: PathBuf,
    report: Salvage,
}

fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (name_of(&path), fs::read(&path).unwrap())).collect()
}

/// Harms a copy and salvages it. The copy is left as it is.
fn salvage(victim: &Victim, harm: impl FnOnce(&Path)) -> Result<Saved, Error> {
    let copy = victim.copy();
    harm(copy.path());
    let before = contents(copy.path());
    let directory = tempfile::tempdir().unwrap();
    let new = directory.path().join("new");
    let report = victim.home.builder().salvage(copy.path(), &new);
    assert!(contents(copy.path()) == before, "the old directory was changed");
    Ok(Saved { _directory: directory, new, report: report? })
}

fn answer(store: &Store, name: &str) -> Answer {
    match store.get(scope(), &key(name)).wait() {
        Ok(Some(record)) => {
            let stored = record.response().expect("responses are kept").body();
            assert_eq!(stored, body(name).as_bytes(), "{name}");
            Answer::Exact
        }
        Ok(None) => Answer::Absent,
        Err(Error::Corrupt { .. }) => Answer::Damaged,
        Err(error) => panic!("{name}: {error:?}"),
    }
}

impl Saved {
    fn open(&self, victim: &Victim) -> Store {
        victim.home.builder().open_existing(&self.new).unwrap()
    }

    /// Asks for every key. What is absent, though it was there, is announced.
    fn ask(&self, victim: &Victim, what: &str) -> Vec<Answer> {
        let store = self.open(victim);
        let answers: Vec<_> = victim.names.iter().map(|name| answer(&store, name)).collect();
        let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count() as u64;
        let Salvage { records, damaged_keys, .. } = self.report;
        assert_eq!(records, count(Answer::Exact), "{what}: {}", self.report);
        let is_proven = self.report.is_absence_proven();
        assert!(!is_proven || count(Answer::Absent) == 0, "{what}: {}", self.report);
        assert!(count(Answer::Damaged) <= damaged_keys, "{what}: {}", self.report);
        assert_eq!(store.verify().is_err(), damaged_keys > 0, "{what}: {}", self.report);
        assert_eq!(store.stats().damaged_records, damaged_keys, "{what}");
        answers
    }

    fn claims(&self, victim: &Victim) -> usize {
        usize::from(matches!(
            self.open(victim).begin(&operation("claimed").durable()).wait(),
            Ok(Outcome::Interrupted(_))
        ))
    }
}

#[test]
fn p5_all_of_a_whole_store_is_saved() {
    let (victim, store) = Victim::open();
    let attempt = interrupted(&store, &operation("claimed").durable());
    let (downstream, number) = (attempt.downstream_key("charge"), attempt.number());
    drop(attempt);
    let record = store.get(scope(), &key("key-7")).wait().unwrap().unwrap();
    drop(store);
    let saved = salvage(&victim, |_| {}).unwrap();
    assert_eq!(saved.report.losses, []);
    assert_eq!((saved.report.records, saved.report.open_claims), (60, 1), "{}", saved.report);
    assert_eq!(saved.ask(&victim, "a whole store"), [Answer::Exact; 60]);
    let store = saved.open(&victim);
    let attempt = interrupted(&store, &operation("claimed").durable());
    assert_eq!((attempt.downstream_key("charge"), attempt.number()), (downstream, number));
    let copy = store.get(scope(), &key("key-7")).wait().unwrap().unwrap();
    let times = |record: &refrain::Record| (record.completed_at(), record.expires_at());
    assert_eq!(times(&copy), times(&record));
    // It goes on as any other store does.
    run(&store, "new");
    seal(&store, &victim.home);
    assert_eq!(replayed(&store, "new").as_deref(), Some("new"));
    assert_eq!(replayed(&store, "absent"), None);
    victim.home.clock.advance(DAY);
    assert_eq!(answer(&store, "key-7"), Answer::Absent);
}

/// The logs name the store and its key, so that only the list of files is lost.
#[test]
fn p5_a_store_that_has_lost_its_lists_loses_no_record() {
    let victim = Victim::new();
    for lost in [&["MANIFEST"][..], &["LOCK"], &["LOCK", "MANIFEST"]] {
        let saved = salvage(&victim, |copy| {
            lost.iter().for_each(|name| fs::remove_file(copy.join(name)).unwrap());
        });
        let saved = saved.unwrap();
        assert_eq!(saved.ask(&victim, "without lists"), [Answer::Exact; 60]);
        assert_eq!(saved.claims(&victim), 1);
        // A file may be missing that nobody knows of.
        assert_eq!(saved.report.is_absence_proven(), lost == ["LOCK"], "{}", saved.report);
    }
}

#[test]
fn p5_what_is_missing_after_the_loss_of_a_file_is_said() {
    let victim = Victim::new();
    let mut lost = Vec::new();
    for file in victim.home.files("") {
        let name = name_of(&file);
        let what = format!("without {}", name.display());
        let saved = salvage(&victim, |copy| fs::remove_file(copy.join(&name)).unwrap()).unwrap();
        let answers = saved.ask(&victim, &what);
        lost.push(answers.iter().filter(|answer| **answer != Answer::Exact).count());
        let is_named = |loss: &refrain::salvage::Loss| name_of(&loss.file) == name;
        assert!(saved.report.losses.iter().any(is_named), "{what}: {}", saved.report);
        let copy = victim.copy();
        fs::remove_file(copy.path().join(&name)).unwrap();
        let refused = victim.home.builder().open(copy.path()).unwrap_err();
        assert!(refused.to_string().contains("; Store::salvage loses "), "{what}: {refused}");
    }
    assert!(lost.iter().all(|lost| *lost <= 20), "{lost:?}");
    assert!(lost.iter().filter(|lost| **lost > 0).count() >= 5, "{lost:?}");
}

/// Zeros for each page of each file in turn: what is absent is announced, and nothing is lost that
/// is in other pages.
#[test]
fn p5_a_page_that_is_lost_costs_no_more_than_is_in_it() {
    let victim = Victim::new();
    std::panic::set_hook(Box::new(|_| {}));
    let (newest, mut refused) = (victim.chain()[1].clone(), 0);
    for file in victim.home.files("") {
        let (name, bytes) = (name_of(&file), fs::read(&file).unwrap());
        for at in (0..bytes.len()).step_by(PAGE) {
            let page = at..bytes.len().min(at + PAGE);
            // The last batch of the newest log looks like a torn write then.
            let is_last = file == newest && (page.clone()).contains(&(used(&file) - 1));
            if is_last || bytes[page.clone()].iter().all(|byte| *byte == 0) {
                continue;
            }
            let what = format!("{} without its page at {at}", name.display());
            let mut harmed = bytes.clone();
            harmed[page].fill(0);
            let saved = salvage(&victim, |copy| fs::write(copy.join(&name), &harmed).unwrap());
            let Ok(saved) = saved else {
                refused += 1;
                continue;
            };
            let answers = saved.ask(&victim, &what);
            let lost = answers.iter().filter(|answer| **answer != Answer::Exact).count();
            // A page of a segment holds a dozen rows, one of a log a batch.
            assert!(lost <= 16, "{what} cost {lost}: {}", saved.report);
        }
    }
    let _ = std::panic::take_hook();
    assert_eq!(refused, 0);
}

/// A log whose first batch was another one's copy was taken for a log without acknowledgements, and
/// all keys in it were lost without a word.
#[test]
fn p5_a_log_that_begins_with_the_wrong_batch_is_still_read() {
    let victim = Victim::new();
    for log in &victim.chain()[..2] {
        let name = name_of(log);
        for from in [3, 5, 8] {
            let saved = salvage(&victim, |copy| {
                let mut bytes = fs::read(copy.join(&name)).unwrap();
                bytes.copy_within(from * PAGE..(from + 1) * PAGE, PAGE);
                fs::write(copy.join(&name), bytes).unwrap();
            });
            let what = format!("{} with page {from} twice", name.display());
            let answers = saved.unwrap().ask(&victim, &what);
            let lost = answers.iter().filter(|answer| **answer != Answer::Exact).count();
            assert!(lost <= 1, "{what} cost {lost}");
        }
    }
}

/// Neither absent nor the older record: nobody can tell what the later one was.
#[test]
fn p5_a_key_whose_latest_entry_is_damaged_stays_damaged() {
    let (mut victim, store) = Victim::open();
    store.forget(scope(), &key("key-3")).wait().unwrap();
    let again = "again".repeat(50);
    execute(&store, &operation("key-3")).complete(&response(&again)).wait().unwrap();
    victim.put(&store, 2);
    drop(store);
    let log = victim.chain()[1].clone();
    let bytes = fs::read(&log).unwrap();
    let at = bytes.windows(again.len()).position(|bytes| bytes == again.as_bytes()).unwrap();
    let saved = salvage(&victim, |copy| {
        flip(&copy.join(name_of(&log)), at + 10);
        fs::remove_file(copy.join("MANIFEST")).unwrap();
    });
    let saved = saved.unwrap();
    let answers = saved.ask(&victim, "a damaged entry");
    assert_eq!(answers[3], Answer::Damaged);
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::Exact).count(), 61);
    assert_eq!(saved.report.damaged, [(scope(), key("key-3"))]);
    // Merging and sealing take it along, until the operator knows what it was.
    let store = saved.open(&victim);
    seal(&store, &victim.home);
    assert_eq!(answer(&store, "key-3"), Answer::Damaged);
    store.forget(scope(), &key("key-3")).wait().unwrap();
    assert_eq!(answer(&store, "key-3"), Answer::Absent);
}

#[test]
fn p5_a_batch_whose_keys_nobody_knows_is_reported_with_its_place_and_time() {
    let victim = Victim::new();
    let log = victim.chain()[0].clone();
    let saved = salvage(&victim, |copy| {
        // Both ends of a batch of one page.
        let path = copy.join(name_of(&log));
        flip(&path, 3 * PAGE + 20);
        flip(&path, 4 * PAGE - 20);
    });
    let saved = saved.unwrap();
    let copy = victim.copy();
    flip(&copy.path().join(name_of(&log)), 3 * PAGE + 20);
    flip(&copy.path().join(name_of(&log)), 4 * PAGE - 20);
    let refused = victim.home.builder().open(copy.path()).unwrap_err();
    assert!(refused.to_string().contains("Store::salvage"), "{refused}");
    assert!(matches!(refused, Error::Corrupt { file, .. } if name_of(&file) == name_of(&log)));
    let [loss] = &saved.report.losses[..] else { panic!("{}", saved.report) };
    assert_eq!(name_of(&loss.file), name_of(&log));
    assert_eq!(loss.bytes, Some(3 * PAGE as u64..4 * PAGE as u64));
    assert!(loss.hides_keys && loss.written.is_some(), "{loss}");
    let answers = saved.ask(&victim, "a lost batch");
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::Absent).count(), 1);
    assert_eq!(saved.claims(&victim), 1);
}

#[test]
fn p13_a_salvage_needs_an_old_store_that_is_closed_and_an_empty_directory() {
    let (victim, store) = Victim::open();
    let new = victim.home.directory.path().join("new");
    let refused = Store::salvage(victim.home.path(), &new).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused:?}");
    drop(store);
    let nowhere = victim.home.directory.path().join("nowhere");
    let refused = Store::salvage(&nowhere, &new).unwrap_err();
    assert!(matches!(refused, Error::Missing { .. }), "{refused:?}");
    assert!(!nowhere.exists());
    fs::create_dir_all(&new).unwrap();
    fs::write(new.join("diary"), "dear").unwrap();
    let refused = Store::salvage(victim.home.path(), &new).unwrap_err();
    assert!(matches!(refused, Error::Foreign { .. }), "{refused:?}");
    assert_eq!(fs::read_dir(&new).unwrap().count(), 1);
}

/// Its lists come last.
#[test]
fn p13_a_salvage_that_was_interrupted_is_no_store() {
    let victim = Victim::new();
    let saved = salvage(&victim, |_| {}).unwrap();
    for lost in [&["MANIFEST"][..], &["LOCK", "MANIFEST"]] {
        for name in lost {
            let _ = fs::remove_file(saved.new.join(name));
        }
        let refused = victim.home.builder().open(&saved.new).unwrap_err();
        assert!(matches!(refused, Error::Corrupt { .. }), "{refused:?}");
    }
}

/// A reader may keep a file after it has been replaced. What was forgotten was served again.
#[test]
fn p4_a_segment_that_was_replaced_is_no_source() {
    let home = Home::new();
    let store = home.open();
    run(&store, "secret");
    run(&store, "kept");
    seal(&store, &home);
    let [replaced] = &home.files(".redb")[..] else { panic!("one segment") };
    let content = fs::read(replaced).unwrap();
    store.forget(scope(), &key("secret")).wait().unwrap();
    store.purge().wait().unwrap();
    drop(store);
    assert!(!replaced.exists());
    fs::write(replaced, content).unwrap();
    let new = tempfile::tempdir().unwrap();
    let report = home.builder().salvage(home.path(), new.path()).unwrap();
    assert!(report.is_absence_proven(), "{report}");
    let store = home.builder().open(new.path()).unwrap();
    assert_eq!(replayed(&store, "kept").as_deref(), Some("kept"));
    assert_eq!(replayed(&store, "secret"), None);
}
