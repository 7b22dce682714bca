//! Damage costs the keys that it hits: the store opens, serves all others, and seals.

use std::fs;
use std::path::Path;

use refrain::{Error, Outcome, Store};

use super::{body, flip, name_of};
use crate::kit::*;

/// Finds a body in a file, and flips a byte in the middle of it.
fn flip_body(file: &Path, name: &str) {
    let (bytes, body) = (fs::read(file).unwrap(), body(name));
    let start = bytes.windows(body.len()).position(|bytes| bytes == body.as_bytes());
    flip(file, start.expect("the body is in the file") + body.len() / 2);
}

fn put(store: &Store, names: impl Iterator<Item = usize>) {
    for n in names {
        let name = format!("key-{n}");
        execute(store, &operation(&name)).complete(&response(&body(&name))).wait().unwrap();
    }
}

/// Asks for every key: the damaged ones say so, and the others are exact.
fn ask(store: &Store, count: usize, damaged: &[&str]) {
    for n in 0..count {
        let name = format!("key-{n}");
        match store.begin(&operation(&name)).wait() {
            Err(Error::Corrupt { .. }) if damaged.contains(&&*name) => {}
            Ok(Outcome::Replay(record)) if !damaged.contains(&&*name) => {
                assert_eq!(record.response().unwrap().body(), body(&name).as_bytes(), "{name}");
            }
            other => panic!("{name} became {other:?}"),
        }
    }
}

#[test]
fn p5_a_damaged_record_in_a_log_costs_its_key_alone_for_all_of_its_life() {
    // One is in a row of the segment, the other one stays in a log.
    let damaged = ["key-3", "key-7"];
    let home = Home::new();
    let store = home.open();
    put(&store, 0..20);
    let log = home.files(".log")[0].clone();
    damaged.iter().for_each(|name| flip_body(&log, name));
    ask(&store, 20, &damaged);
    let broken = store.verify().unwrap_err();
    assert!(matches!(&broken, Error::Corrupt { file, .. } if name_of(file) == name_of(&log)));
    drop(store);
    // The log is read again, and says which keys they were.
    let store = home.open();
    ask(&store, 20, &damaged);
    put(&store, 20..40);
    // So does the segment.
    seal(&store, &home);
    seal(&store, &home);
    assert!(store.stats().segments >= 1, "{:?}", store.stats());
    assert_eq!(store.stats().last_trouble, None);
    assert_eq!(store.health().to_string(), "degraded: the records of 2 keys are damaged");
    ask(&store, 40, &damaged);
    drop(store);
    let store = home.open();
    ask(&store, 40, &damaged);
    let broken = store.verify().unwrap_err().to_string();
    assert!(broken.contains("2 keys whose records are damaged"), "{broken}");
    // An operator who knows what they were frees them one by one.
    store.forget(scope(), &key("key-3")).wait().unwrap();
    put(&store, 3..4);
    ask(&store, 40, &damaged[1..]);
    // What was forgotten is gone, damaged or not.
    store.purge().wait().unwrap();
    ask(&store, 40, &damaged[1..]);
    assert_eq!(store.health().to_string(), "degraded: the record of 1 key is damaged");
    // Nobody knows their expiry, so they hide what is older for as long as they can.
    home.clock.advance(HOUR * 24);
    assert!(matches!(begin(&store, &operation("key-7")), Outcome::Execute(_)));
}

/// Without a word of what it held, a batch costs the store.
#[test]
fn p5_a_page_that_is_lost_costs_the_keys_in_it() {
    let home = Home::new();
    let store = home.open();
    let permits: Vec<_> =
        (0..12).map(|n| execute(&store, &operation(&format!("key-{n}")))).collect();
    drop(store.begin(&operation("x").durable()).wait().unwrap());
    // They come to few batches, each of several pages.
    let tickets: Vec<_> = permits
        .into_iter()
        .enumerate()
        .map(|(n, permit)| permit.complete(&response(&"x".repeat(9_000 + n))))
        .collect();
    tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
    put(&store, 20..22);
    drop(store);
    let log = home.files(".log")[0].clone();
    let whole = fs::read(&log).unwrap();
    let long = (4096..whole.len()).step_by(4096).find(|at| {
        let number = |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().unwrap());
        whole[*at..].starts_with(b"btc2") && number(at + 4) > 8 * 4096
    });
    let long = long.expect("a batch has many pages");
    for page in [0, 1, 2] {
        let mut harmed = whole.clone();
        harmed[long + page * 4096..][..4096].fill(0);
        fs::write(&log, &harmed).unwrap();
        let copy = tempfile::tempdir().unwrap();
        for file in home.files("") {
            fs::copy(&file, copy.path().join(name_of(&file))).unwrap();
        }
        let store = home.builder().open(copy.path()).unwrap();
        let mut lost = 0;
        for n in 0..12 {
            match store.begin(&operation(&format!("key-{n}"))).wait() {
                Ok(Outcome::Replay(record)) => {
                    assert_eq!(record.response().unwrap().body().len(), 9_000 + n);
                }
                Err(Error::Corrupt { .. }) => lost += 1,
                other => panic!("page {page}: key-{n} became {other:?}"),
            }
        }
        assert!((1..=2).contains(&lost), "page {page} cost {lost} keys");
    }
}

/// The error said that the directory was somebody else's, and damage that costs keys was not named.
#[test]
fn p5_a_damaged_lock_is_damage_and_hides_no_other() {
    let home = Home::new();
    let store = home.open();
    put(&store, 0..3);
    flip(&home.file("LOCK"), 5);
    let file = |found: refrain::error::Result<()>| match found {
        Err(Error::Corrupt { file, .. }) => file.file_name().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(file(store.verify()), "LOCK");
    let logs = home.files(".log");
    let log = logs.iter().find(|log| {
        let bytes = fs::read(log).unwrap();
        bytes.windows(body("key-1").len()).any(|bytes| bytes == body("key-1").as_bytes())
    });
    flip_body(log.expect("a log has it"), "key-1");
    assert_eq!(file(store.verify()), log.unwrap().file_name().unwrap());
}
