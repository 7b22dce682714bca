//! P2, P7 and P12 against real kills: a child writes through the public face, the parent kills it
//! with SIGKILL at random, and holds the store against what the child was told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the child tells the parent what it was told")]

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::{Builder, Fingerprint, Operation, Outcome, Scope, Store};

const DIRECTORY: &str = "REFRAIN_KILL_DIRECTORY";
const ROUND: &str = "REFRAIN_KILL_ROUND";
const ROUNDS: u64 = 25;
const THREADS: usize = 4;

fn builder() -> Builder {
    // Small logs, so that kills meet rotation and sealing too.
    Store::builder().log_bytes(256 * 1024).max_response_bytes(32 * 1024).max_open_claims(30)
}

fn operation(name: &str) -> Operation {
    Operation::new(Scope::new("kill"), name.parse().unwrap(), Fingerprint::of([name]))
}

fn body(name: &str) -> Bytes {
    name.repeat(name.len() * 7).into()
}

/// Writes until it is killed, and says what it was told: `done` or `claimed`, and the name.
fn child(directory: &Path, round: &str) {
    let store = builder().open(directory).unwrap();
    // Half of the children find a clean stop behind them.
    println!("open");
    thread::scope(|threads| {
        for thread in 0..THREADS {
            let store = &store;
            threads.spawn(move || {
                for n in 0.. {
                    let name = format!("key-{round}-{thread}-{n}");
                    let durable = n % 5 == 0;
                    let mut operation = operation(&name);
                    if durable {
                        operation = operation.durable();
                    }
                    let permit = loop {
                        match store.begin(&operation).wait() {
                            Ok(Outcome::Execute(permit)) => break permit,
                            // Sealing is behind; the room comes back.
                            Err(refrain::Error::Full) => thread::yield_now(),
                            other => panic!("{name} became {other:?}"),
                        }
                    };
                    if durable {
                        say(&format!("claimed {name}"));
                    }
                    permit.complete(&Response::new(body(&name))).wait().unwrap();
                    say(&format!("done {name}"));
                }
            });
        }
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

#[test]
fn p2_p7_p12_nothing_acknowledged_is_lost_whenever_the_process_is_killed() {
    if let (Ok(directory), Ok(round)) = (std::env::var(DIRECTORY), std::env::var(ROUND)) {
        return child(Path::new(&directory), &round);
    }
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let (mut done, mut claimed) = (HashSet::new(), HashSet::new());
    for round in 0..ROUNDS {
        let lines = 1 + RandomState::new().hash_one(round) % 700;
        kill_after(&directory, round, lines, &mut done, &mut claimed);
        let store = builder().open(&directory).unwrap();
        for name in &done {
            match store.begin(&operation(name)).wait().unwrap() {
                Outcome::Replay(record) => {
                    assert_eq!(record.response().unwrap().body(), &body(name), "{name}");
                }
                other => panic!("round {round}: {name} was done and became {other:?}"),
            }
        }
        for name in claimed.difference(&done) {
            match store.begin(&operation(name)).wait().unwrap() {
                // The kill came between the commit and the word of it.
                Outcome::Replay(_) => {}
                Outcome::Interrupted(attempt) => assert_eq!(attempt.number(), 1),
                other => panic!("round {round}: {name} was claimed and became {other:?}"),
            }
        }
        if round % 2 == 0 {
            assert_eq!(store.close(Duration::ZERO).unwrap(), 0);
        } else {
            // A verdict for the interrupted, so that their number stays within its limit.
            for name in claimed.difference(&done) {
                if let Ok(Outcome::Interrupted(attempt)) = store.begin(&operation(name)).wait() {
                    attempt.complete(&Response::new(body(name))).wait().unwrap();
                }
            }
            done.extend(claimed.drain());
        }
    }
    assert!(done.len() > 1000, "only {} operations in {ROUNDS} rounds", done.len());
}

/// Runs a child, and kills it once it has said so many lines.
fn kill_after(
    directory: &Path,
    round: u64,
    lines: u64,
    done: &mut HashSet<String>,
    claimed: &mut HashSet<String>,
) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("p2_p7_p12_nothing_acknowledged_is_lost_whenever_the_process_is_killed")
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("done", name)) => drop(done.insert(name.to_owned())),
            Some(("claimed", name)) => drop(claimed.insert(name.to_owned())),
            _ => continue,
        }
        said += 1;
        if said == lines {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success(), "the child was to be killed, not to end: {status}");
}
