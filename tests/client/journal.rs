//! The journal of keys, in a directory and over restarts.

use std::path::PathBuf;
use std::time::Duration;

use refrain::client::{Journal, JournalError};
use refrain::clock::SimulatedClock;
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(60 * 60);

struct Desk {
    directory: TempDir,
    clock: SimulatedClock,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: SimulatedClock::new() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("journal")
    }

    fn open(&self) -> Journal {
        Journal::builder().clock(self.clock.clone()).open(self.path()).unwrap()
    }
}

#[tokio::test]
async fn a_job_keeps_its_key_and_request_until_it_is_done() {
    let desk = Desk::new();
    let journal = desk.open();
    let entry = journal.key_for("invoice-42", "first").await.unwrap();
    assert!(!entry.is_resumed());
    let key = entry.key().clone();
    let busy = journal.key_for("invoice-42", "second").await.unwrap_err();
    assert!(matches!(busy, JournalError::InUse), "{busy}");
    drop(entry);

    for _ in 0..3 {
        desk.clock.advance(HOUR);
        let entry = journal.key_for("invoice-42", "second").await.unwrap();
        assert_eq!((entry.key(), &entry.request()[..]), (&key, &b"first"[..]));
        assert!(entry.is_resumed());
    }
    let entry = journal.key_for("invoice-42", "second").await.unwrap();
    entry.done().await.unwrap();
    let next = journal.key_for("invoice-42", "third").await.unwrap();
    assert_ne!(next.key(), &key);
    assert_eq!((&next.request()[..], next.is_resumed()), (&b"third"[..], false));
}

#[tokio::test]
async fn a_restart_finds_what_was_not_done() {
    let desk = Desk::new();
    let request = vec![7; Journal::MAX_REQUEST_BYTES];
    let journal = desk.open();
    let entry = journal.key_for("long", request.clone()).await.unwrap();
    let (key, first_sent) = (entry.key().clone(), entry.first_sent());
    journal.key_for("short", "").await.unwrap().done().await.unwrap();
    drop((entry, journal));

    let journal = desk.open();
    let entry = journal.key_for("long", "").await.unwrap();
    assert_eq!((entry.key(), entry.first_sent()), (&key, first_sent));
    assert!(entry.request()[..] == request);
    assert!(!journal.key_for("short", "").await.unwrap().is_resumed());
}

#[tokio::test]
async fn past_the_servers_window_no_key_is_handed_out() {
    let desk = Desk::new();
    let journal = desk.open();
    let entry = journal.key_for("invoice-42", "").await.unwrap();
    let (key, sent) = (entry.key().clone(), entry.first_sent());
    drop(entry);
    desk.clock.advance(23 * HOUR - Duration::from_millis(1));
    assert_eq!(journal.key_for("invoice-42", "").await.unwrap().key(), &key);
    desk.clock.advance(Duration::from_millis(1));
    for _ in 0..2 {
        // A year later too, and whatever the wall clock says: it is for the caller to find out.
        match journal.key_for("invoice-42", "").await.unwrap_err() {
            JournalError::WindowPassed { first_sent } => assert_eq!(first_sent, sent),
            other => panic!("{other}"),
        }
        desk.clock.advance(9_000 * HOUR);
        desk.clock.set_wall(Duration::from_secs(1_000_000));
    }
    journal.done("invoice-42").await.unwrap();
    assert_ne!(journal.key_for("invoice-42", "").await.unwrap().key(), &key);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_and_leaves_nothing() {
    let desk = Desk::new();
    let journal = desk.open();
    let error = journal.key_for("two words", "").await.unwrap_err();
    assert!(matches!(error, JournalError::InvalidJob(_)), "{error}");
    let long = vec![7; Journal::MAX_REQUEST_BYTES + 1];
    let error = journal.key_for("long", long).await.unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error}");
    assert!(!journal.key_for("long", "").await.unwrap().is_resumed());
    journal.done("never-heard-of").await.unwrap();
}

/// It may be any time then.
#[tokio::test]
async fn after_a_reboot_into_the_past_no_key_is_handed_out() {
    let desk = Desk::new();
    let journal = desk.open();
    drop(journal.key_for("invoice-42", "").await.unwrap());
    desk.clock.reboot(HOUR);
    assert!(journal.key_for("invoice-42", "").await.is_ok());
    desk.clock.set_wall(Duration::from_secs(1));
    let error = journal.key_for("invoice-42", "").await.unwrap_err();
    assert!(matches!(error, JournalError::WindowPassed { .. }), "{error}");
}

/// A claim without all that belongs to it is of a key that nobody has.
#[tokio::test]
async fn an_entry_that_broke_off_is_another() {
    let desk = Desk::new();
    let store = || refrain::Store::builder().log_bytes(64 << 20).open(desk.path()).unwrap();
    let scope = refrain::Scope::new("refrain journal");
    let fingerprint = refrain::Fingerprint::of(["job"]);
    for pieces in [vec![], vec![vec![1]], vec![vec![1; 60]]] {
        let job = "invoice-42".parse().unwrap();
        let operation = refrain::Operation::new(scope, job, fingerprint).durable();
        let store = store();
        match store.begin(&operation).await.unwrap() {
            refrain::Outcome::Execute(mut permit) => {
                for piece in pieces {
                    permit.checkpoint(piece).await.unwrap();
                }
            }
            other => panic!("{other:?}"),
        }
        drop(store);
        let journal = desk.open();
        let entry = journal.key_for("invoice-42", "whole").await.unwrap();
        assert_eq!((&entry.request()[..], entry.is_resumed()), (&b"whole"[..], false));
        entry.done().await.unwrap();
    }
}

#[tokio::test]
async fn jobs_are_bounded() {
    let desk = Desk::new();
    let journal = Journal::builder().max_jobs(2).open(desk.path()).unwrap();
    let open = (journal.key_for("a", "").await.unwrap(), journal.key_for("b", "").await.unwrap());
    assert!(matches!(journal.key_for("c", "").await.unwrap_err(), JournalError::Store(_)));
    open.0.done().await.unwrap();
    assert!(journal.key_for("c", "").await.is_ok());
}
