//! A worker with a journal, and the server that it calls: each killed at any moment.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;

use crate::binary;
use crate::proxy::{Fault, Proxy};
use crate::server::{Home, PAUSE, within};

struct Office {
    home: Home,
    journal: TempDir,
}

impl Office {
    fn new() -> Self {
        Self { home: Home::new(), journal: tempfile::tempdir().unwrap() }
    }

    fn worker(&self, server: SocketAddr, more: &[&str], jobs: &[&str]) -> Command {
        let mut command = Command::new(binary::example("worker"));
        command.arg("--server").arg(format!("http://{server}"));
        command.arg("--journal").arg(self.journal.path().join("journal"));
        command.arg("--results").arg(self.results_path());
        command.args(more).args(jobs).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn results_path(&self) -> PathBuf {
        self.journal.path().join("results")
    }

    /// The results of the jobs.
    fn results(&self) -> String {
        std::fs::read_to_string(self.results_path()).unwrap_or_default()
    }

    /// The number of runs of each key.
    fn runs(&self) -> HashMap<String, usize> {
        let mut runs = HashMap::new();
        if !Path::exists(&self.home.journal_path()) {
            return runs;
        }
        for line in self.home.journal() {
            *runs.entry(line["key"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        runs
    }
}

fn kill(mut worker: Child) {
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// Lets a worker run to its end.
fn finish(mut worker: Command) {
    let output = worker.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_worker_that_is_killed_between_its_steps_runs_each_job_once() {
    for step in ["keyed", "answered", "recorded"] {
        let office = Office::new();
        let server = office.home.start(&[]);
        let mut worker =
            office.worker(server.address, &["--stop-at", step], &["invoice-42"]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(worker.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "stopped\n", "{step}");
        kill(worker);
        finish(office.worker(server.address, &[], &["invoice-42"]));
        let results = office.results();
        assert!(results.starts_with("invoice-42: 201"), "{step}: {results}");
        assert_eq!(results.contains("replayed"), step == "answered", "{step}: {results}");
        let runs = office.runs();
        assert_eq!((runs.len(), runs.values().max()), (1, Some(&1)), "{step}: {runs:?}");
        // It is over, in the journal too.
        finish(office.worker(server.address, &[], &["invoice-42"]));
        assert_eq!((office.results(), office.runs()), (results, runs));
    }
}

/// Between sending and hearing back, where only the network sees it.
#[tokio::test]
async fn a_worker_that_is_killed_in_mid_request_runs_each_job_once() {
    for fault in [Fault::DropBefore, Fault::DropAfter, Fault::Truncate, Fault::Reset] {
        let office = Office::new();
        let server = office.home.start(&[]);
        let proxy = Proxy::start(server.address, move |number| {
            // What is sent again before the kill gets nowhere.
            if number == 0 { fault } else { Fault::DropBefore }
        })
        .await;
        let worker = office.worker(proxy.address, &[], &["invoice-42"]).spawn().unwrap();
        let delivered = fault != Fault::DropBefore;
        within(async {
            let done = || {
                proxy.faults.load(Ordering::Relaxed) > 0 && delivered != office.runs().is_empty()
            };
            while !done() {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
        kill(worker);
        finish(office.worker(server.address, &[], &["invoice-42"]));
        assert_eq!(office.results().contains("replayed"), delivered, "{fault:?}");
        let runs = office.runs();
        assert_eq!((runs.len(), runs.values().max()), (1, Some(&1)), "{fault:?}: {runs:?}");
    }
}

/// A server that answers with these statuses in turn, and the keys that it was sent.
async fn answering(
    statuses: impl IntoIterator<Item = u16>,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let statuses = Arc::new(Mutex::new(VecDeque::from_iter(statuses)));
    let keys = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&keys);
    let answer = move |headers: http::HeaderMap| {
        seen.lock().push(headers["idempotency-key"].to_str().unwrap().to_owned());
        let status = statuses.lock().pop_front().unwrap();
        std::future::ready(http::StatusCode::from_u16(status).unwrap())
    };
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, keys)
}

/// Runs a worker to its end on a thread, for the server of the test runs on this one.
async fn ends(mut worker: Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || worker.output().unwrap()).await.unwrap()
}

/// It recorded the answer as the outcome, ended the job, and exited with success.
#[tokio::test]
async fn an_answer_that_says_nothing_of_the_job_leaves_it_open() {
    for status in [401, 403, 500, 501] {
        let office = Office::new();
        let (server, keys) = answering([status, 201, 422, 201]).await;
        let jobs = ["invoice-1", "invoice-2", "invoice-3"];
        let output = ends(office.worker(server, &[], &jobs)).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{status}");
        assert!(told.contains(&format!("invoice-1 stays open: {status}")), "{told}");
        // The others were tried; a refusal of the job itself is its outcome.
        let results = office.results();
        let known: Vec<_> = results.lines().map(|line| &line[..14]).collect();
        assert_eq!(known, ["invoice-2: 201", "invoice-3: 422"], "{status}");

        let output = ends(office.worker(server, &[], &jobs[..1])).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(office.results().contains("invoice-1: 201"), "{}", office.results());
        let keys = keys.lock();
        assert_eq!((keys.len(), &keys[0]), (4, &keys[3]), "it is one key to the end");
    }
}

#[tokio::test]
async fn a_worker_tells_of_jobs_that_it_was_not_asked_for() {
    let office = Office::new();
    let (server, _) = answering([401, 201]).await;
    ends(office.worker(server, &[], &["invoice-1"])).await;
    let output = ends(office.worker(server, &[], &["invoice-2"])).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.starts_with("invoice-1 has been open for "), "{told}");
}

const ROUNDS: u64 = 50;
const JOBS: [&str; 3] = ["invoice-1", "invoice-2", "invoice-3"];

/// The server is in its strict mode: a run that was cut off is told of, and not repeated.
#[tokio::test]
async fn p1_p4_with_both_ends_killed_at_random_no_job_runs_twice() {
    let mut unknown = 0;
    for round in 0..ROUNDS {
        let office = Office::new();
        let mut server = office.home.start(&["--strict"]);
        let proxy = Proxy::start(server.address, |_| Fault::None).await;
        let mut chance = round + 1;
        let mut draw = |below: u64| {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % below
        };
        loop {
            let mut worker = office.worker(proxy.address, &[], &JOBS).spawn().unwrap();
            // A kill comes when it comes: nothing waits for it to be right.
            tokio::time::sleep(Duration::from_millis(draw(40))).await;
            if draw(3) > 0 {
                kill(worker);
                continue;
            }
            server.kill();
            server = office.home.start(&["--strict"]);
            proxy.turn_to(server.address);
            let ended = within(tokio::task::spawn_blocking(move || worker.wait().unwrap())).await;
            if ended.unwrap().success() {
                break;
            }
        }
        let results = office.results();
        assert_eq!(results.lines().count(), JOBS.len(), "round {round}: {results}");
        let runs = office.runs();
        assert!(runs.values().all(|runs| *runs == 1), "round {round}: {runs:?}");
        let placed = results.lines().filter(|line| line.contains(": 201")).count();
        unknown += JOBS.len() - placed;
        assert!((placed..=JOBS.len()).contains(&runs.len()), "round {round}: {results} {runs:?}");
    }
    println!("{unknown} of {} outcomes are unknown", ROUNDS * JOBS.len() as u64);
}
