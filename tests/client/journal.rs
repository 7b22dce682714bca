//! The journal of keys, in a directory and over restarts.

use std::path::PathBuf;
use std::time::Duration;

use refrain::client::{Job, JobState, Journal, JournalError};
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

    /// Opens the journal with few places.
    fn open_small(&self, max: usize) -> Journal {
        Journal::builder().clock(self.clock.clone()).max_jobs(max).open(self.path()).unwrap()
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
        // It is not listed, and keeps no other job out.
        let journal = desk.open_small(1);
        assert_eq!(journal.jobs().await.unwrap(), []);
        journal.key_for("invoice-43", "").await.unwrap().done().await.unwrap();
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

fn named(jobs: &[Job]) -> Vec<(&str, JobState)> {
    jobs.iter().map(|job| (&job.name[..], job.state)).collect()
}

#[tokio::test]
async fn what_is_not_done_is_listed_with_its_key_and_age_the_oldest_first() {
    let desk = Desk::new();
    let journal = desk.open();
    assert_eq!(journal.jobs().await.unwrap(), []);
    let old = journal.key_for("old", "secret").await.unwrap();
    let (key, first_sent) = (old.key().clone(), old.first_sent());
    drop(old);
    desk.clock.advance(HOUR);
    let held = journal.key_for("held", "secret").await.unwrap();
    journal.key_for("over", "").await.unwrap().done().await.unwrap();
    desk.clock.advance(HOUR);

    let jobs = journal.jobs().await.unwrap();
    assert_eq!(named(&jobs), [("old", JobState::Waiting), ("held", JobState::Held)]);
    assert_eq!((&jobs[0].key, jobs[0].first_sent), (&key, first_sent));
    assert_eq!((jobs[0].age, jobs[1].age), (2 * HOUR, HOUR));
    assert_eq!((&jobs[1].key, jobs[1].first_sent), (held.key(), held.first_sent()));
    for told in [format!("{jobs:?}"), format!("{held:?}")] {
        assert!(!told.contains(key.as_str()) && !told.contains(held.key().as_str()), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }

    // The worker that begins again asks for all that is left, under any request.
    drop((held, journal));
    let journal = desk.open();
    let jobs = journal.jobs().await.unwrap();
    assert_eq!(named(&jobs), [("old", JobState::Waiting), ("held", JobState::Waiting)]);
    for job in jobs {
        let entry = journal.key_for(&job.name, "").await.unwrap();
        assert_eq!((entry.key(), &entry.request()[..]), (&job.key, &b"secret"[..]));
        entry.done().await.unwrap();
    }
    assert_eq!(journal.jobs().await.unwrap(), []);
}

/// A journal was full for ever once as many jobs were left as it holds, and no call told which.
#[tokio::test]
async fn jobs_that_nobody_asks_for_again_give_up_their_places_and_are_still_told() {
    let desk = Desk::new();
    let journal = desk.open_small(3);
    let mut keys = Vec::new();
    for name in ["a", "b", "c"] {
        keys.push(journal.key_for(name, "").await.unwrap().key().clone());
    }
    desk.clock.advance(23 * HOUR - Duration::from_millis(1));
    let full = journal.key_for("d", "").await.unwrap_err();
    assert!(matches!(full, JournalError::Store(refrain::Error::Limit { .. })), "{full}");
    desk.clock.advance(Duration::from_millis(1));
    let passed = [("a", JobState::WindowPassed), ("b", JobState::WindowPassed)];
    let all = [passed[0], passed[1], ("c", JobState::WindowPassed), ("d", JobState::Held)];
    assert_eq!(named(&journal.jobs().await.unwrap()), all[..3]);
    let held = journal.key_for("d", "").await.unwrap();
    assert_eq!(named(&journal.jobs().await.unwrap()), all);
    drop((held, journal));

    // In the next process too, nobody gets another key before someone has found out.
    let journal = desk.open_small(3);
    let jobs = journal.jobs().await.unwrap();
    assert!(jobs.iter().zip(&keys).all(|(job, key)| job.key == *key && job.age == 23 * HOUR));
    let error = journal.key_for("a", "").await.unwrap_err();
    assert!(
        matches!(error, JournalError::WindowPassed { first_sent } if first_sent == jobs[0].first_sent),
        "{error}"
    );
    journal.done("a").await.unwrap();
    assert_ne!(journal.key_for("a", "").await.unwrap().key(), &keys[0]);
    let names = named(&journal.jobs().await.unwrap()).len();
    assert_eq!(names, 4, "b and c have passed, d and a wait");
}

#[tokio::test]
async fn requests_whose_window_has_passed_give_up_their_bytes() {
    let desk = Desk::new();
    let journal = desk.open();
    let long = bytes::Bytes::from(vec![7; Journal::MAX_REQUEST_BYTES]);
    let mut kept = 0;
    let full = loop {
        match journal.key_for(&format!("job-{kept}"), long.clone()).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, JournalError::Store(refrain::Error::Limit { .. })), "{full:?}");
    assert!((30..40).contains(&kept), "8 MiB of requests are {kept}");
    desk.clock.advance(23 * HOUR);
    journal.key_for("new", long).await.unwrap().done().await.unwrap();
    assert_eq!(journal.jobs().await.unwrap().len(), kept);
}

/// Its name is what it was called.
#[tokio::test]
async fn a_listed_job_is_asked_for_by_its_name_whatever_that_is() {
    let desk = Desk::new();
    let journal = desk.open();
    for name in ["\"quoted\"", "quoted", "\"", "a\\b"] {
        drop(journal.key_for(name, name.to_owned()).await.unwrap());
    }
    let jobs = journal.jobs().await.unwrap();
    assert_eq!(jobs.len(), 4);
    for job in jobs {
        let entry = journal.key_for(&job.name, "").await.unwrap();
        assert_eq!((entry.key(), &entry.request()[..]), (&job.key, job.name.as_bytes()));
    }
}

#[tokio::test]
async fn a_job_that_is_held_is_not_ended_by_its_name() {
    let desk = Desk::new();
    let journal = desk.open();
    let entry = journal.key_for("invoice-42", "").await.unwrap();
    let busy = journal.done("invoice-42").await.unwrap_err();
    assert!(matches!(busy, JournalError::InUse), "{busy}");
    entry.done().await.unwrap();
}
