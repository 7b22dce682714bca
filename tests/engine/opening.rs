//! P12 and P13: a store has one owner and always reopens, and what is not a store is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use refrain::{Concern, Error, Health, Outcome, Refusing, Store};

use crate::kit::*;

/// Everything in a directory, to compare.
fn image(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(path, "").into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

fn refused(home: &Home) -> Error {
    let before = image(&home.path());
    let error = home.builder().open(home.path()).expect_err("the store is not ours to open");
    assert_eq!(image(&home.path()), before, "nothing is written and nothing is deleted");
    error
}

#[test]
fn p16_directories_and_files_are_for_their_owner_only() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    seal(&store, &home);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.path()), 0o700);
    let all = files(&home.path(), "");
    assert!(all.len() >= 5, "{all:?}");
    for file in all {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn p16_the_api_key_is_in_no_file() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    seal(&store, &home);
    drop(store);
    for (file, bytes) in image(&home.path()) {
        let found = bytes.windows(10).any(|window| window == b"sk_live_51");
        assert!(!found, "{}", file.display());
    }
}

#[test]
fn p13_a_store_is_open_once() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    assert!(matches!(home.builder().open(home.path()), Err(Error::Locked { .. })));
    // However it is spelled.
    let link = home.directory.path().join("link");
    std::os::unix::fs::symlink(home.path(), &link).unwrap();
    assert!(matches!(home.builder().open(&link), Err(Error::Locked { .. })));
    drop(store);
    assert_eq!(replayed(&home.open(), "a").as_deref(), Some("a"));
}

#[test]
fn opening_can_wait_for_the_lock() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    thread::scope(|threads| {
        let next = threads.spawn(|| home.builder().lock_wait(DAY).open(home.path()).unwrap());
        drop(store);
        assert_eq!(replayed(&next.join().unwrap(), "a").as_deref(), Some("a"));
    });
}

#[test]
fn p13_a_path_that_is_no_directory_or_has_no_parent_is_an_io_error() {
    let home = Home::new();
    fs::write(home.path(), "a file").unwrap();
    assert!(matches!(home.builder().open(home.path()), Err(Error::Io { .. })));
    assert_eq!(fs::read(home.path()).unwrap(), b"a file");
    let orphan = home.directory.path().join("missing/store");
    assert!(matches!(home.builder().open(orphan), Err(Error::Io { .. })));
}

#[test]
fn p13_a_directory_of_somebody_else_is_left_alone() {
    for name in ["notes.txt", "server.log", "7.redb"] {
        let home = Home::new();
        fs::create_dir(home.path()).unwrap();
        fs::write(home.file(name), "mine").unwrap();
        let error = refused(&home);
        assert!(matches!(error, Error::Foreign { .. }), "{name}");
        assert!(error.to_string().ends_with(&format!("and no LOCK: {name}")), "{error}");
    }
}

/// A new volume, mounted as the store's directory, was taken for somebody's.
#[test]
fn p13_a_new_file_system_may_be_the_directory() {
    let home = Home::new();
    fs::create_dir_all(home.file("lost+found")).unwrap();
    run(&home.open(), "a");
    assert_eq!(replayed(&home.open(), "a").as_deref(), Some("a"));
    assert!(home.file("lost+found").exists());
}

#[test]
fn p13_a_file_called_lost_and_found_is_somebodys() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    fs::write(home.file("lost+found"), "mine").unwrap();
    assert!(matches!(refused(&home), Error::Foreign { .. }));
}

/// A check of the file system puts files there whose names are lost. An empty store in their place
/// would run all their keys again.
#[test]
fn p5_what_is_in_lost_and_found_may_be_the_store() {
    for kept in ["", "LOCK"] {
        let home = Home::new();
        run(&home.open(), "a");
        let found = home.file("lost+found");
        fs::create_dir(&found).unwrap();
        for (number, file) in files(&home.path(), "").into_iter().enumerate() {
            if file != found && file != home.file(kept) {
                fs::rename(file, found.join(format!("#{number}"))).unwrap();
            }
        }
        let error = home.builder().open(home.path()).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. } | Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("lost+found holds"), "{error}");
    }
}

#[test]
fn p13_other_peoples_files_in_a_store_are_left_alone() {
    let home = Home::new();
    drop(home.open());
    let names = ["notes.txt", "7.log", "7.redb", "notes.log.tmp", "notes.redb.tmp", "notes.tmp"];
    for name in names {
        fs::write(home.file(name), "mine").unwrap();
    }
    drop(home.open());
    for name in names {
        assert_eq!(fs::read(home.file(name)).unwrap(), b"mine", "{name}");
    }
}

#[test]
fn p13_files_of_a_newer_format_are_refused() {
    for (ending, latest) in [("LOCK", 1), ("MANIFEST", 2), (".log", 2)] {
        let home = Home::new();
        drop(home.open());
        let file = home.files(ending).remove(0);
        let mut bytes = fs::read(&file).unwrap();
        // Of each copy. One flipped bit alone would be damage, which costs nothing.
        let copies = |at: &usize| bytes[*at..].starts_with(b"rfrn ");
        for at in (0..bytes.len() - 8).filter(copies).collect::<Vec<_>>() {
            bytes[at + 8] = latest + 1;
        }
        let checksum = if ending == ".log" { 108..140 } else { bytes.len() - 32..bytes.len() };
        bytes[checksum].iter_mut().for_each(|byte| *byte ^= 0xff);
        fs::write(&file, bytes).unwrap();
        match refused(&home) {
            Error::Newer { found, supported, file: named, .. } => {
                assert_eq!((found, supported), (u32::from(latest) + 1, latest.into()));
                assert_eq!(named.file_name(), file.file_name());
            }
            other => panic!("{ending}: {other:?}"),
        }
    }
}

#[test]
fn p13_a_segment_or_log_of_another_store_in_the_directory_is_not_removed() {
    let (home, other) = (Home::new(), Home::new());
    for home in [&home, &other] {
        let store = home.open();
        run(&store, "a");
        seal(&store, home);
    }
    for ending in [".redb", ".log"] {
        let stray = other.files(ending).remove(0);
        let place = home.file(&format!("00000000000000ff{ending}"));
        fs::copy(stray, &place).unwrap();
        assert!(
            matches!(refused(&home), Error::Foreign { .. } | Error::Corrupt { .. }),
            "{ending}"
        );
        fs::remove_file(place).unwrap();
    }
    assert_eq!(replayed(&home.open(), "a").as_deref(), Some("a"));
}

#[test]
fn p13_a_directory_that_cannot_be_written_is_an_io_error() {
    if std::env::var_os("REFRAIN_READ_ONLY").is_some() {
        let path = PathBuf::from(std::env::var_os("REFRAIN_READ_ONLY").unwrap());
        assert!(matches!(small(Store::builder()).open(path), Err(Error::Io { .. })));
        return;
    }
    // Root may write anywhere, so another user tries.
    let shared = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(shared.path(), 0o755);
    let path = shared.path().join("store");
    fs::create_dir(&path).unwrap();
    open(&path, 0o555);
    let program = shared.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program, 0o755);
    let mut child = Command::new(program);
    child.args(["--exact", "opening::p13_a_directory_that_cannot_be_written_is_an_io_error"]);
    child.env("REFRAIN_READ_ONLY", &path);
    if fs::write(path.join("probe"), "").is_ok() {
        fs::remove_file(path.join("probe")).unwrap();
        child.uid(65534);
    }
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(files(&path, ""), Vec::<PathBuf>::new());
}

/// The path was asked twice, and came back in between.
#[test]
fn p13_a_path_that_is_away_for_moments_stops_no_store() {
    let home = Home::new();
    let store = home.open();
    let (moved, is_over) = (home.directory.path().join("moved"), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                fs::rename(home.path(), &moved).unwrap();
                fs::rename(&moved, home.path()).unwrap();
            }
        });
        let stopped = (0..500).find_map(|n| {
            match store.begin(&operation(&format!("key-{n}"))).wait() {
                Ok(Outcome::Execute(permit)) => drop(permit.complete(&response("x")).wait()),
                Err(Error::Foreign { .. }) => {}
                other => return Some(format!("{other:?}")),
            }
            None
        });
        is_over.store(true, Ordering::Release);
        assert_eq!(stopped, None);
    });
    run(&store, "later");
}

/// As by a backup that is unpacked over it.
#[test]
fn p13_a_store_whose_directory_has_other_files_or_none_stops() {
    let other_lock = |home: &Home| {
        let lock = fs::read(home.file("LOCK")).unwrap();
        fs::remove_file(home.file("LOCK")).unwrap();
        fs::write(home.file("LOCK"), lock).unwrap();
    };
    let nothing = |home: &Home| fs::remove_dir_all(home.path()).unwrap();
    for replace in [&other_lock as &dyn Fn(&Home), &nothing] {
        let home = Home::new();
        let store = home.open();
        run(&store, "a");
        let permit = execute(&store, &operation("b"));
        replace(&home);
        let failed = permit.complete(&response("b")).wait();
        assert!(matches!(failed, Err(Error::Stopped { source: Some(_), .. })), "{failed:?}");
        let after = store.begin(&operation("a")).wait();
        assert!(matches!(after, Err(Error::Stopped { source: Some(_), .. })), "{after:?}");
        assert!(store.stats().failed);
        drop(store);
        // A store that failed is not opened again by the same process.
        let again = home.builder().open_existing(home.path());
        assert!(matches!(again, Err(Error::Locked { .. } | Error::Missing { .. })), "{again:?}");
    }
}

/// A deployment that was rolled back: its `current` led to a directory in which the next process had
/// made a store of its own, and the store that was still draining dropped what had run.
#[test]
fn p7_p13_what_has_run_is_recorded_by_a_store_whose_place_another_one_has_taken() {
    let home = Home::new();
    let moved = home.directory.path().join("moved");
    let store = home.open();
    run(&store, "a");
    let (now, later) = (execute(&store, &operation("b")), execute(&store, &operation("c")));
    fs::rename(home.path(), &moved).unwrap();
    run(&home.open(), "other");
    for permit in [now, later] {
        let failed = permit.complete(&response("done")).wait();
        assert!(matches!(failed, Err(Error::Foreign { .. })), "{failed:?}");
    }
    let refused = store.begin(&operation("d")).wait();
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    // Its directory is not opened beside it.
    let opened = home.builder().open(&moved);
    assert!(matches!(opened, Err(Error::Locked { .. })), "{opened:?}");
    drop(store);
    let store = home.builder().open(&moved).unwrap();
    for name in ["b", "c"] {
        assert_eq!(replayed(&store, name).as_deref(), Some("done"), "{name}");
    }
}

/// A link that a deployment switched stopped the process that was still draining.
#[test]
fn p13_a_store_whose_path_leads_elsewhere_for_a_while_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let [old, new, link] = ["old", "new", "current"].map(|name| directory.path().join(name));
    fs::create_dir_all(old.join("store")).unwrap();
    fs::create_dir_all(new.join("store")).unwrap();
    let switch_to = |target: &Path| {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
    };
    switch_to(&old);
    let store = Store::builder().max_open_claims(3).open(link.join("store")).unwrap();
    run(&store, "a");
    let mut noted = execute(&store, &durable("noted"));
    let unknown = execute(&store, &operation("unknown"));
    let (volatile, running) = (execute(&store, &operation("b")), execute(&store, &durable("c")));
    let later = execute(&store, &operation("d"));

    switch_to(&new);
    // One that is asked for nothing notices too.
    store.reap().unwrap();
    assert_eq!(store.stats().refusing, Some(Refusing::Away));
    for verdict in [volatile.complete(&response("b")), running.complete(&response("c"))] {
        let failed = verdict.wait();
        assert!(matches!(failed, Err(Error::Foreign { .. })), "{failed:?}");
    }
    for verdict in [noted.checkpoint("x"), unknown.interrupt()] {
        let failed = verdict.wait();
        assert!(matches!(failed, Err(Error::Foreign { .. })), "{failed:?}");
    }
    let refused = store.begin(&operation("e")).wait();
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    let stats = store.stats();
    assert!(stats.last_trouble.unwrap().contains("moved away"));
    assert_eq!((stats.failed, stats.refusing), (false, Some(Refusing::Away)));
    assert!(!store.health().is_ready());
    // Nor does a path that leads nowhere at all prove that the store is gone.
    fs::remove_file(&link).unwrap();
    fs::write(&link, "").unwrap();
    let refused = store.begin(&operation("e")).wait();
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");

    switch_to(&old);
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
    later.complete(&response("d")).wait().unwrap();
    noted.checkpoint("y").wait().unwrap();
    noted.complete(&response("noted")).wait().unwrap();
    run(&store, "e");
    // What was refused has left no claim behind.
    for name in ["f", "g"] {
        execute(&store, &durable(name)).release().wait().unwrap();
    }
    let _both = [execute(&store, &durable("f")), execute(&store, &durable("g"))];
    assert_eq!(store.stats().last_trouble, None);
    // What had run meanwhile is recorded, though its callers were told that it is not.
    for name in ["b", "c"] {
        assert_eq!(replayed(&store, name).as_deref(), Some(name));
    }
    let interrupted = store.begin(&operation("unknown")).wait();
    assert!(matches!(interrupted, Ok(Outcome::Interrupted(_))), "{interrupted:?}");
    assert_eq!(store.stats().retained, 0);
    let Health::Degraded(concerns) = store.health() else { panic!("three claims are allowed") };
    assert_eq!(concerns, [Concern::Refusing(Refusing::OpenClaims)]);
}

/// A key that had run while the path led elsewhere ran again after the next restart.
#[test]
fn p7_what_has_run_is_recorded_by_a_store_that_is_not_at_its_path() {
    let home = Home::new();
    let moved = home.directory.path().join("moved");
    let store = home.open();
    let permits = ["a", "b"].map(|name| execute(&store, &operation(name)));
    let unknown = execute(&store, &operation("unknown"));
    fs::rename(home.path(), &moved).unwrap();
    for permit in permits {
        let failed = permit.complete(&response("done")).wait();
        assert!(matches!(failed, Err(Error::Foreign { .. })), "{failed:?}");
    }
    let failed = unknown.interrupt().wait();
    assert!(matches!(failed, Err(Error::Foreign { .. })), "{failed:?}");
    assert_eq!(store.close(Duration::ZERO).wait().unwrap(), 0);
    drop(store);
    let store = home.builder().open(&moved).unwrap();
    for name in ["a", "b"] {
        assert_eq!(replayed(&store, name).as_deref(), Some("done"), "{name}");
    }
    let interrupted = store.begin(&operation("unknown")).wait();
    assert!(matches!(interrupted, Ok(Outcome::Interrupted(_))), "{interrupted:?}");
}

#[test]
fn p12_creation_that_was_cut_short_is_finished() {
    let whole = Home::new();
    drop(whole.open());
    for stage in 0..4 {
        let home = Home::new();
        fs::create_dir(home.path()).unwrap();
        let lock = fs::read(whole.file("LOCK")).unwrap();
        match stage {
            0 => {}
            1 => fs::write(home.file("LOCK.tmp"), &lock[..7]).unwrap(),
            2 => fs::write(home.file("LOCK"), lock).unwrap(),
            _ => {
                fs::write(home.file("LOCK"), lock).unwrap();
                fs::write(home.file("0000000000000001.log.tmp"), "half").unwrap();
                fs::write(home.file("MANIFEST.tmp"), "half").unwrap();
            }
        }
        let store = home.open();
        run(&store, "a");
        drop(store);
        assert_eq!(replayed(&home.open(), "a").as_deref(), Some("a"), "stage {stage}");
        assert_eq!(home.files(".tmp"), Vec::<PathBuf>::new(), "stage {stage}");
    }
}

#[test]
fn p12_leftovers_are_removed_once_the_store_is_proved_ours() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    seal(&store, &home);
    drop(store);
    let copy = fs::read(home.files(".redb").remove(0)).unwrap();
    fs::write(home.file("0000000000000001.redb"), copy).unwrap();
    fs::write(home.file("00000000000000ab.redb.tmp"), "half").unwrap();
    fs::write(home.file("00000000000000ac.log.tmp"), "half").unwrap();
    let store = home.open();
    // So that what the store itself removes is gone too.
    store.reap().unwrap();
    assert_eq!(home.files(".tmp"), Vec::<PathBuf>::new());
    assert_eq!(home.files(".redb").len(), 1);
    assert_eq!(replayed(&store, "a").as_deref(), Some("a"));
}

/// A mistyped path or a volume that was not mounted became an empty store, in which every key ran
/// again.
#[test]
fn p13_opening_an_existing_store_never_creates_one() {
    let home = Home::new();
    let open = || home.builder().open_existing(home.path());
    assert!(matches!(open(), Err(Error::Missing { path, .. }) if path == home.path()));
    assert!(!home.path().exists());
    fs::create_dir(home.path()).unwrap();
    assert!(matches!(open(), Err(Error::Missing { .. })));
    assert_eq!(files(&home.path(), ""), Vec::<PathBuf>::new());
    let store = home.open();
    run(&store, "a");
    drop(store);
    assert_eq!(replayed(&open().unwrap(), "a").as_deref(), Some("a"));
    // What is left of a store is not one.
    for file in files(&home.path(), "") {
        if !file.ends_with("LOCK") {
            fs::remove_file(file).unwrap();
        }
    }
    assert!(matches!(open(), Err(Error::Missing { .. })));
}

#[test]
fn a_store_in_memory_behaves_as_one_on_disk() {
    let home = Home::new();
    let store = home.builder().open_in_memory().unwrap();
    run(&store, "a");
    seal(&store, &home);
    assert_eq!((store.stats().segments, replayed(&store, "a").as_deref()), (1, Some("a")));
    home.clock.advance(DAY);
    store.reap().unwrap();
    assert_eq!(store.stats().segments, 0);
    assert!(matches!(begin(&store, &operation("a")), Outcome::Execute(_)));
}
