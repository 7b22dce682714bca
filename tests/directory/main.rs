//! A process that changes its directory, in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bytes::Bytes;
use refrain::{Fingerprint, Operation, Outcome, Scope, Store};

/// The store took the relative path for another one, and stopped.
#[test]
fn p13_a_store_opened_by_a_relative_path_outlives_a_change_of_directory() {
    let directory = tempfile::tempdir().unwrap();
    std::env::set_current_dir(directory.path()).unwrap();
    let store = Store::builder().log_bytes(256 * 1024).open("idempotency").unwrap();
    std::env::set_current_dir("/").unwrap();
    let fingerprint = Fingerprint::of(["x"]);
    let operation = Operation::new(Scope::new("s"), "k".parse().unwrap(), fingerprint);
    let Outcome::Execute(permit) = store.begin(&operation).wait().unwrap() else {
        panic!("it is new")
    };
    permit.complete(&http::Response::new(Bytes::from("x"))).wait().unwrap();
    assert!(directory.path().join("idempotency").join("LOCK").exists());
}
