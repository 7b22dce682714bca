//! P2, P5 and P12 for backups: a copy of a store that is written to opens as one of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use refrain::{Error, Outcome, Store};

use crate::kit::*;

const COMMITTERS: usize = 64;

/// What a body is, for its key. Some are kept in their logs, and some go into rows.
fn body(name: &str) -> String {
    name.repeat(if name.ends_with('7') { 400 } else { 3 })
}

fn put(store: &Store, name: &str) {
    execute(store, &operation(name)).complete(&response(&body(name))).wait().unwrap();
}

fn expect(store: &Store, name: &str) {
    assert_eq!(replayed(store, name), Some(body(name)), "{name}");
}

/// The content of the files that have another name elsewhere, by inode.
fn shared(path: &Path) -> BTreeMap<u64, Vec<u8>> {
    let linked = files(path, "").into_iter().filter_map(|file| {
        let about = fs::metadata(&file).unwrap();
        (about.nlink() > 1).then(|| (about.ino(), fs::read(&file).unwrap()))
    });
    linked.collect()
}

/// Commits from many threads while `run` does something, and returns what each has had acknowledged.
fn busy<T>(store: &Store, round: usize, run: impl FnOnce(&[AtomicUsize]) -> T) -> (T, Vec<usize>) {
    let done: Vec<_> = (0..COMMITTERS).map(|_| AtomicUsize::new(0)).collect();
    let is_over = AtomicBool::new(false);
    let result = std::thread::scope(|threads| {
        for (n, done) in done.iter().enumerate() {
            let is_over = &is_over;
            threads.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    put(store, &named(round, n, done.load(Ordering::Acquire)));
                    done.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let result = run(&done);
        is_over.store(true, Ordering::Release);
        result
    });
    (result, done.into_iter().map(AtomicUsize::into_inner).collect())
}

fn named(round: usize, committer: usize, count: usize) -> String {
    format!("key-{round}-{committer}-{count}")
}

fn expect_all(store: &Store, round: usize, counts: &[usize]) {
    for (n, count) in counts.iter().enumerate() {
        (0..*count).for_each(|m| expect(store, &named(round, n, m)));
    }
}

#[test]
fn p2_a_backup_made_while_64_threads_commit_has_all_that_was_acknowledged_before() {
    let home = Home::new();
    let open = |path: &Path| home.builder().max_in_flight(256).open(path).unwrap();
    let store = open(&home.path());
    let target = |n: usize| home.directory.path().join(format!("backup-{n}"));
    // Some logs are sealed, some are frozen, and one is written to.
    let mut acknowledged: Vec<Vec<usize>> = Vec::new();
    let mut before: Vec<Vec<usize>> = Vec::new();
    for round in 0..3 {
        let (counts, all) = busy(&store, round, |done| {
            let enough = |done: &AtomicUsize| done.load(Ordering::Acquire) > 20;
            while !done.iter().all(enough) {
                std::thread::yield_now();
            }
            let counts = done.iter().map(|done| done.load(Ordering::Acquire)).collect();
            store.backup(target(round)).unwrap();
            counts
        });
        before.push(counts);
        acknowledged.push(all);
        home.clock.advance(HOUR * 2);
        store.reap().unwrap();
    }
    for (round, before) in before.iter().enumerate() {
        let path = target(round);
        let linked = shared(&path);
        assert!(round == 0 || !linked.is_empty(), "sealed files are not copied");
        let copy = open(&path);
        copy.verify().unwrap();
        expect_all(&copy, round, before);
        (0..round).for_each(|earlier| expect_all(&copy, earlier, &acknowledged[earlier]));

        // It is a store of its own: both go on, seal, expire and use files again.
        for store in [&copy, &store] {
            for n in 0..50 {
                put(store, &format!("after-{round}-{n}"));
            }
            home.clock.advance(HOUR * 2);
            store.reap().unwrap();
            store.reap().unwrap();
            store.verify().unwrap();
        }
        for (inode, content) in shared(&path) {
            assert_eq!(linked.get(&inode), Some(&content), "a shared file was written to");
        }
        (0..round).for_each(|earlier| expect_all(&store, earlier, &acknowledged[earlier]));
    }
    let copies: Vec<_> = (0..3).map(|round| open(&target(round))).collect();
    home.clock.advance(DAY);
    for store in copies.iter().chain([&store]) {
        for n in 0..100 {
            put(store, &format!("late-{n}"));
        }
        store.reap().unwrap();
        store.reap().unwrap();
        store.verify().unwrap();
        (0..100).for_each(|n| expect(store, &format!("late-{n}")));
        assert!(matches!(begin(store, &operation(&named(0, 0, 0))), Outcome::Execute(_)));
    }
    drop(copies);
    for round in 0..3 {
        open(&target(round)).verify().unwrap();
    }
}

#[test]
fn a_backup_carries_interrupted_runs_and_is_locked_by_itself() {
    let home = Home::new();
    let store = home.open();
    give_up(&store, execute(&store, &durable("a")));
    let running = execute(&store, &durable("b"));
    let path = home.directory.path().join("backup");
    store.backup(&path).unwrap();
    // Before it is opened: an open store removes files.
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    for file in files(&path, "") {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{file:?}");
    }
    let copy = home.builder().open(&path).unwrap();
    // Nobody knows there whether the run goes on.
    for name in ["a", "b"] {
        interrupted(&copy, &durable(name)).release().wait().unwrap();
    }
    running.release().wait().unwrap();
    // And so does a copy of the copy.
    let second = home.directory.path().join("second");
    copy.backup(&second).unwrap();
    assert!(matches!(home.builder().open(&path), Err(Error::Locked { .. })));
    home.builder().open(&second).unwrap().verify().unwrap();
}

#[test]
fn p13_a_backup_takes_an_empty_directory_and_no_other() {
    let home = Home::new();
    let store = home.open();
    put(&store, "a");
    let path = home.directory.path().join("backup");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("notes"), "mine").unwrap();
    let refused = store.backup(&path);
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    assert_eq!(files(&path, ""), [path.join("notes")]);
    for taken in [home.path(), home.directory.path().to_owned()] {
        let refused = store.backup(&taken);
        assert!(
            matches!(refused, Err(Error::Foreign { .. } | Error::Locked { .. })),
            "{refused:?}"
        );
    }
    let refused = store.backup(home.directory.path().join("nowhere/backup"));
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    fs::remove_file(path.join("notes")).unwrap();
    store.backup(&path).unwrap();
    let refused = store.backup(&path);
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    expect(&home.builder().open(&path).unwrap(), "a");
    // A name with a slash at its end.
    store.backup(home.directory.path().join("other/")).unwrap();
    expect(&home.builder().open(home.directory.path().join("other")).unwrap(), "a");
    store.verify().unwrap();
}

#[test]
fn a_store_in_memory_is_backed_up_to_a_directory() {
    let home = Home::new();
    let store = home.builder().open_in_memory().unwrap();
    put(&store, "a");
    seal(&store, &home);
    put(&store, "b7");
    let path = home.directory.path().join("backup");
    store.backup(&path).unwrap();
    let copy = home.builder().open(&path).unwrap();
    copy.verify().unwrap();
    ["a", "b7"].iter().for_each(|name| expect(&copy, name));
}

const CHILD: &str = "REFRAIN_BACKUP_CHILD";

/// Fills a store from some threads, backs it up again and again, and says what each backup must
/// have. The test below runs this in a process of its own, and kills it.
#[test]
#[ignore = "a child of another test"]
fn child_that_backs_up() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let store = small(Store::builder()).open(directory.join("store")).unwrap();
    let mut log =
        fs::OpenOptions::new().append(true).create(true).open(directory.join("log")).unwrap();
    let next = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                loop {
                    put(&store, &format!("key-{}", next.fetch_add(1, Ordering::AcqRel)));
                }
            });
        }
        for n in 0.. {
            // Those that were begun before these are done too.
            let begun = next.load(Ordering::Acquire);
            while (begun.saturating_sub(8)..begun)
                .any(|n| store.get(scope(), &key(&format!("key-{n}"))).wait().unwrap().is_none())
            {
                std::thread::yield_now();
            }
            // In one piece, whenever the process is killed.
            log.write_all(format!("{n} {begun}\n").as_bytes()).unwrap();
            store.backup(directory.join(format!("backup-{n}"))).unwrap();
        }
    });
}

/// The most processes that are killed until one was killed in the middle of a backup.
const MOST_TRIALS: usize = 500;

/// Returns true if this backup of the child has this many files, and cannot be opened yet.
fn is_unfinished(directory: &Path, backup: usize, files: usize) -> bool {
    let path = directory.join(format!("backup-{backup}"));
    let count = fs::read_dir(&path).map_or(0, Iterator::count);
    count >= files && !path.join("MANIFEST").exists()
}

#[test]
fn p5_a_backup_whose_process_was_killed_opens_whole_or_not_at_all() {
    let (mut whole, mut cut) = (0, 0);
    // A killed process may have got to the end of its backup first.
    for trial in 0..MOST_TRIALS {
        if trial >= 20 && cut > 0 {
            break;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "backup::child_that_backs_up", "--ignored"])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = directory.path().join("log");
        let backups = || fs::read_to_string(&log).unwrap_or_default().lines().count();
        // Sooner or later in a backup.
        while backups() < 3 || !is_unfinished(directory.path(), backups() - 1, 1 + trial % 4) {
            assert_eq!(child.try_wait().unwrap(), None, "it goes on until it is killed");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let begun = fs::read_to_string(&log).unwrap();
        for line in begun.lines() {
            let (n, count) = line.split_once(' ').unwrap();
            let path = directory.path().join(format!("backup-{n}"));
            if !path.exists() {
                continue;
            }
            match small(Store::builder()).open_existing(&path) {
                Ok(store) => {
                    store.verify().unwrap();
                    let count: usize = count.parse().unwrap();
                    (0..count).for_each(|n| expect(&store, &format!("key-{n}")));
                    whole += 1;
                }
                Err(Error::Foreign { .. } | Error::Corrupt { .. } | Error::Missing { .. }) => {
                    let refused = small(Store::builder()).open(&path).map(drop);
                    let refused = refused.expect_err("an unfinished backup became a store");
                    if path.join("BACKUP").exists() && !path.join("MANIFEST").exists() {
                        assert!(refused.to_string().contains("cut short"), "{refused}");
                    }
                    cut += 1;
                }
                Err(error) => panic!("{path:?}: {error}"),
            }
        }
        small(Store::builder()).open(directory.path().join("store")).unwrap().verify().unwrap();
    }
    println!("{whole} backups are whole, and {cut} were cut short");
    assert!(whole > 0 && cut > 0, "{whole} whole, {cut} cut short");
}
