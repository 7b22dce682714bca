//! P11 and P14: the size of a store on the disk, and the blocks that its logs have.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use bytes::Bytes;
use http::Response;
use refrain::{Fingerprint, Operation, Scope, Store};

use crate::kit::*;

const MIB: u64 = 1024 * 1024;

/// The bytes of all files, and those of their blocks.
fn sizes(path: &Path) -> (u64, u64) {
    let files = files(path, "").into_iter().map(|path| fs::metadata(path).unwrap());
    files.fold((0, 0), |(len, blocks), file| (len + file.len(), blocks + 512 * file.blocks()))
}

/// The bytes of the larger of the two newest logs: the active and the next one.
fn larger_log(home: &Home) -> u64 {
    let logs = home.files(".log");
    let newest = logs.iter().rev().take(2);
    newest.map(|log| fs::metadata(log).unwrap().len()).max().unwrap()
}

#[test]
fn p14_an_idle_store_takes_less_than_4_mib() {
    let home = Home::new();
    let store = Store::builder().clock(home.clock.clone()).open(home.path()).unwrap();
    run(&store, "a");
    store.reap().unwrap();
    let (len, blocks) = sizes(&home.path());
    assert!(len < 4 * MIB && blocks < 4 * MIB, "{len} bytes in {blocks} bytes of blocks");
}

#[test]
fn p14_logs_grow_up_to_log_bytes_under_load_and_are_small_again_later() {
    let home = Home::new();
    let store =
        Store::builder().log_bytes(8 * MIB).clock(home.clock.clone()).open(home.path()).unwrap();
    let body = Response::new(Bytes::from(vec![7; 100_000]));
    for n in 0..150 {
        let permit = execute(&store, &operation(&format!("key-{n}")));
        assert!(permit.complete(&body).wait().unwrap().response().is_some());
    }
    assert_eq!(larger_log(&home), 8 * MIB);
    for n in 0..4 {
        run(&store, &format!("later-{n}"));
        home.clock.advance(HOUR);
        store.reap().unwrap();
    }
    assert_eq!(larger_log(&home), MIB);
    for n in 0..150 {
        assert!(replayed_bytes(&store, &format!("key-{n}")) == Some(body.body().clone()), "{n}");
    }
}

fn replayed_bytes(store: &Store, name: &str) -> Option<Bytes> {
    match begin(store, &operation(name)) {
        refrain::Outcome::Replay(record) => record.response().map(|kept| kept.body().clone()),
        _ => None,
    }
}

/// As many as may be in flight come at once to a store whose logs are small.
#[test]
fn p11_p14_a_burst_of_new_keys_finds_room() {
    let home = Home::new();
    let store = Store::builder().clock(home.clock.clone()).open(home.path()).unwrap();
    let operations = (0..4096).map(|n| {
        let scope = Scope::new(format!("scope-{n}"));
        Operation::new(scope, format!("key-{n}").parse().unwrap(), Fingerprint::of(["x"]))
    });
    let permits: Vec<_> = operations.map(|operation| execute(&store, &operation)).collect();
    let stats = store.stats();
    assert_eq!(stats.refused_for_room, 0);
    for permit in permits {
        permit.complete(&Response::new(Bytes::new())).wait().unwrap();
    }
    assert!(store.stats().refusing.is_none());
}

/// `cp --sparse` and `tar -S` leave out the zeros. Commits then failed for want of space, after
/// their keys had been admitted.
#[test]
fn p11_the_logs_of_a_sparse_copy_get_their_blocks_again() {
    let home = Home::new();
    let store = home.open();
    for n in 0..40 {
        let permit = execute(&store, &operation(&format!("key-{n}")));
        permit.complete(&Response::new(Bytes::from(vec![7; 50_000]))).wait().unwrap();
    }
    store.close(HOUR).wait().unwrap();
    let copied = home.files("");
    for path in &copied {
        make_sparse(path);
    }
    let store = home.open();
    for n in 0..8 {
        run(&store, &format!("later-{n}"));
        home.clock.advance(HOUR);
        store.reap().unwrap();
    }
    // Those that are kept for their records are not written again.
    for log in home.files(".log").iter().filter(|log| !copied.contains(log)) {
        let file = fs::metadata(log).unwrap();
        assert!(512 * file.blocks() >= file.len(), "{}: {} blocks", log.display(), file.blocks());
    }
    store.verify().unwrap();
}

/// Replaces a file by a copy without blocks for its zeros.
fn make_sparse(path: &Path) {
    let content = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    let copy = fs::File::create(path).unwrap();
    copy.set_len(content.len() as u64).unwrap();
    for (page, offset) in content.chunks(4096).zip((0..).step_by(4096)) {
        if page.iter().any(|byte| *byte != 0) {
            copy.write_all_at(page, offset).unwrap();
        }
    }
}
