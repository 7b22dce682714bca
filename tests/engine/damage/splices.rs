//! Whole pages, batches and files in the wrong place or from another time.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use refrain::{Error, Outcome};

use super::{Victim, body, name_of, used};
use crate::kit::*;

const PAGE: usize = 4096;

/// The pages of a log's batches.
fn batches(log: &[u8]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut at = PAGE;
    while log[at..].starts_with(b"btc2") {
        let number = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
        // The frames and the head are there twice.
        let end = (at + number(at + 4) + 36 * number(at + 16) + 92).next_multiple_of(PAGE);
        batches.push(at..end);
        at = end;
    }
    batches
}

fn write(path: &Path, bytes: &[u8], at: usize) {
    let mut file = fs::read(path).unwrap();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(path, file).unwrap();
}

#[test]
fn p5_a_batch_in_the_place_of_another_is_found() {
    let victim = Victim::new();
    let logs: Vec<_> = victim.chain().into_iter().take(2).collect();
    let contents: Vec<_> = logs.iter().map(|log| fs::read(log).unwrap()).collect();
    for (to, (log, content)) in logs.iter().zip(&contents).enumerate() {
        let (name, places) = (name_of(log), batches(content));
        // Not the last one: in the newest log that is a torn write, in the other it is repeated.
        for place in &places[..places.len() - 1] {
            for (from, source) in contents.iter().enumerate() {
                for batch in batches(source).into_iter().step_by(4) {
                    if (from, batch.start) == (to, place.start) {
                        continue;
                    }
                    let what = format!("{from} {batch:?} over {to} {place:?}");
                    let batch = &source[batch];
                    let finder = victim.harm(&what, |copy| {
                        write(&copy.join(&name), batch, place.start);
                    });
                    assert!(!finder.is_nobody(), "{what}");
                }
            }
        }
    }
}

#[test]
fn p5_a_batch_that_is_there_twice_is_found() {
    let victim = Victim::new();
    let newest = victim.chain()[1].clone();
    let content = fs::read(&newest).unwrap();
    let places = batches(&content);
    let end = places.last().unwrap().end;
    for batch in places {
        for at in [batch.end, end, end + PAGE, end + 7 * PAGE] {
            let what = format!("{batch:?} at {at}");
            let finder = victim.harm(&what, |copy| {
                write(&copy.join(name_of(&newest)), &content[batch.clone()], at);
            });
            assert!(!finder.is_nobody(), "{what}");
        }
    }
}

#[test]
fn p5_batches_of_an_older_life_of_a_files_blocks_are_nothing() {
    let home = Home::new();
    let store = home.open();
    let mut lives = Vec::new();
    for life in 0..4 {
        for n in 0..5 {
            run(&store, &format!("key-{life}-{n}"));
        }
        lives.push(fs::read(&home.files(".log")[0]).unwrap());
        seal(&store, &home);
    }
    run(&store, "last");
    while !store.stats().next_log_ready {
        thread::yield_now();
    }
    drop(store);
    for life in lives {
        // The newest one is prepared, and holds nothing.
        let newest = home.files(".log").into_iter().rev().nth(1).unwrap();
        let end = used(&newest).next_multiple_of(PAGE);
        assert!(end < 20 * PAGE, "logs are filled from their beginning");
        write(&newest, &life[PAGE..life.len() - end], end);
        let store = home.open();
        store.verify().unwrap();
        assert_eq!(replayed(&store, "last").as_deref(), Some("last"));
        for (life, n) in (0..4).flat_map(|life| (0..5).map(move |n| (life, n))) {
            let name = format!("key-{life}-{n}");
            assert_eq!(replayed(&store, &name), Some(name));
        }
    }
}

#[test]
fn p5_pages_of_segments_in_the_place_of_others_are_found() {
    let victim = Victim::new();
    let segments = victim.home.files(".redb");
    let contents: Vec<_> = segments.iter().map(|file| fs::read(file).unwrap()).collect();
    let (name, own) = (name_of(&segments[0]), &contents[0]);
    let pages = |content: &[u8]| (0..content.len()).step_by(PAGE).collect::<Vec<_>>();
    let mut found = 0;
    for page in pages(own) {
        let mut put = |what: String, at: usize, bytes: &[u8]| {
            let is_same = own[at..at + PAGE] == *bytes;
            let finder = victim.harm(&what, |copy| write(&copy.join(&name), bytes, at));
            found += usize::from(!finder.is_nobody() && !is_same);
        };
        for from in
            pages(&contents[1]).into_iter().filter(|from| from / PAGE % 5 == page / PAGE % 5)
        {
            let bytes = &contents[1][from..from + PAGE];
            put(format!("the other's page {from} at {page}"), page, bytes);
        }
        for from in pages(own).into_iter().step_by(3).filter(|from| *from != page) {
            put(format!("page {from} at {page}"), page, &own[from..from + PAGE]);
        }
    }
    assert!(found > 80, "only {found} of them were found");
}

#[test]
fn p5_two_pages_of_a_segment_that_changed_places_are_found() {
    let victim = Victim::new();
    let segment = victim.home.files(".redb")[0].clone();
    let (name, own) = (name_of(&segment), fs::read(&segment).unwrap());
    let mut found = 0;
    for a in (0..own.len()).step_by(PAGE) {
        for b in (a + PAGE..own.len()).step_by(2 * PAGE) {
            let what = format!("pages {a} and {b}");
            let finder = victim.harm(&what, |copy| {
                write(&copy.join(&name), &own[a..a + PAGE], b);
                write(&copy.join(&name), &own[b..b + PAGE], a);
            });
            found += usize::from(!finder.is_nobody());
        }
    }
    assert!(found > 40, "only {found} of them were found");
}

/// The content of a directory at one time.
type Image = Vec<(PathBuf, Vec<u8>)>;
const IMAGES_OF_LAST_LIFE: usize = 4;

/// A store over several lives, of which the last seals nothing: its keys, and what it was like
/// at one time after another.
fn history(home: &Home) -> (Vec<String>, Vec<Image>) {
    let image = || home.files("").iter().map(|f| (name_of(f), fs::read(f).unwrap())).collect();
    let (mut names, mut images) = (Vec::new(), Vec::new());
    for life in 0..5 {
        let store = home.open();
        // So that nothing is removed while it is copied.
        store.reap().unwrap();
        for n in 0..3 {
            let name = format!("key-{life}-{n}");
            execute(&store, &operation(&name)).complete(&response(&body(&name))).wait().unwrap();
            names.push(name);
            images.push(image());
        }
        if life % 2 == 1 {
            seal(&store, home);
            images.push(image());
        }
        drop(store);
        images.push(image());
    }
    (names, images)
}

/// Puts these files into the store as it is now: no key may be absent then.
fn put_back<'a>(
    what: &str,
    home: &Home,
    names: &[String],
    files: impl Iterator<Item = &'a (PathBuf, Vec<u8>)>,
) {
    let copy = tempfile::tempdir().unwrap();
    for file in home.files("") {
        fs::copy(&file, copy.path().join(name_of(&file))).unwrap();
    }
    for (name, content) in files {
        fs::write(copy.path().join(name), content).unwrap();
    }
    let Ok(store) = home.builder().open(copy.path()) else { return };
    for name in names {
        if let Ok(outcome) = store.begin(&operation(name)).wait() {
            let Outcome::Replay(record) = outcome else {
                panic!("{what}: {name} became {outcome:?}")
            };
            assert_eq!(record.response().unwrap().body(), body(name).as_bytes());
        }
    }
}

#[test]
fn p5_an_older_copy_of_any_file_but_the_newest_log_hides_nothing() {
    let home = Home::new();
    let (names, images) = history(&home);
    let newest = name_of(home.files(".log").iter().rev().nth(1).unwrap());
    for (time, image) in images.iter().enumerate() {
        for file in image.iter().filter(|(name, _)| *name != newest) {
            let what = format!("{} of time {time}", file.0.display());
            put_back(&what, &home, &names, [file].into_iter());
        }
    }
}

#[test]
fn p5_a_backup_that_is_copied_over_a_newer_store_hides_nothing() {
    // The newer logs were taken for leftovers of a crash, and removed with all that they held.
    let home = Home::new();
    let (names, images) = history(&home);
    // One of the last life does to the newest log what cutting it short would.
    for (time, image) in images[..images.len() - IMAGES_OF_LAST_LIFE].iter().enumerate() {
        put_back(&format!("all of time {time}"), &home, &names, image.iter());
    }
}

#[test]
fn p5_verify_finds_an_older_copy_of_a_file_that_is_open() {
    let home = Home::new();
    let store = home.open();
    run(&store, "a");
    seal(&store, &home);
    run(&store, "b");
    let old: Vec<_> = home.files("").into_iter().map(|f| (fs::read(&f).unwrap(), f)).collect();
    run(&store, "c");
    seal(&store, &home);
    run(&store, "d");
    store.verify().unwrap();
    let mut found = Vec::new();
    for (content, file) in old {
        let Ok(now) = fs::read(&file) else { continue };
        if now == content {
            continue;
        }
        fs::write(&file, content).unwrap();
        assert!(store.verify().is_err(), "{}", file.display());
        fs::write(&file, now).unwrap();
        store.verify().unwrap();
        found.push(name_of(&file));
    }
    assert!(found.len() >= 2, "{found:?}");
    for file in home.files("") {
        let aside = home.directory.path().join("aside");
        fs::rename(&file, &aside).unwrap();
        assert!(store.verify().is_err(), "without {}", file.display());
        if name_of(&file) != Path::new("MANIFEST") {
            fs::copy(&aside, &file).unwrap();
            assert!(store.verify().is_err(), "another {}", file.display());
        }
        fs::rename(&aside, &file).unwrap();
        store.verify().unwrap();
    }
}

/// The opening repeats the last batch that verifies. It gave a damaged entry a new digest, and a wrong
/// body was replayed.
#[test]
fn p3_p5_what_is_damaged_in_a_batch_that_is_repeated_stays_damaged() {
    let home = Home::new();
    let store = home.open();
    for name in ["k1", "k2", "k3"] {
        let body = format!("the body of {name}");
        execute(&store, &operation(name)).complete(&response(&body)).wait().unwrap();
    }
    drop(store);
    let newest = home.files(".log").into_iter().find(|log| used(log) > 3 * PAGE).unwrap();
    let mut content = fs::read(&newest).unwrap();
    for name in ["k2", "k3"] {
        let body = format!("the body of {name}");
        let at = content.windows(body.len()).position(|bytes| bytes == body.as_bytes()).unwrap();
        content[at] ^= 1;
    }
    fs::write(&newest, content).unwrap();
    for opening in 0..2 {
        let store = home.open();
        assert_eq!(replayed(&store, "k1").as_deref(), Some("the body of k1"));
        let damaged = store.begin(&operation("k2")).wait();
        assert!(matches!(damaged, Err(Error::Corrupt { .. })), "{opening}: {damaged:?}");
        assert!(store.verify().is_err());
    }
}

/// Two salvages of one directory have its uuid, and the same generations.
#[test]
fn p5_p13_a_log_of_another_store_with_the_same_uuid_is_refused() {
    let home = Home::new();
    run(&home.open(), "a");
    let salvaged = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (number, directory) in salvaged.iter().enumerate() {
        home.builder().salvage(home.path(), directory.path()).unwrap();
        run(&home.builder().open(directory.path()).unwrap(), &format!("key-{number}"));
    }
    let [ours, theirs] = salvaged.map(|directory| directory.keep());
    let same = files(&theirs, ".log").into_iter().filter(|log| ours.join(name_of(log)).exists());
    for log in same.collect::<Vec<_>>() {
        fs::copy(&log, ours.join(name_of(&log))).unwrap();
    }
    let refused = home.builder().open(&ours).unwrap_err();
    assert!(matches!(refused, Error::Foreign { .. }), "{refused:?}");
    [ours, theirs].into_iter().for_each(|path| fs::remove_dir_all(path).unwrap());
}
