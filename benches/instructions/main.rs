//! The instructions that the paths of a request take, counted by valgrind: much the same on a quiet
//! machine and on a busy one. Paths with threads differ by a few in a hundred.
//!
//! ```text
//! cargo bench --bench instructions              compares with benches/instructions.txt
//! cargo bench --bench instructions -- --save    writes that file anew
//! ```
//!
//! Fails if a path takes more than [`ALLOWED`] times the saved figure. If a path takes that much
//! less, asks for the new figures to be saved. The compiler, libc and valgrind have their part in
//! the figures: new versions may call for `--save`.

#![expect(clippy::print_stdout, reason = "it prints what it counts")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::backend::Completion;
use refrain::clock::SimulatedClock;
use refrain::{Builder, Fingerprint, Key, Operation, Outcome, Permit, Scope, Store, internals};

mod layer;

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const ALLOWED: f64 = 1.05;
/// The rounds of two runs: the difference between the runs does not have the cost of starting.
const ROUNDS: [u64; 2] = [500, 1_500];
/// The number of counts. Threads do not meet the same way twice, so the most of them is saved and
/// the least compared with it.
const COUNTS: usize = 3;
const BODY_BYTES: usize = 1024;
/// The body of the response that asks for a log with room for all rounds.
const LARGE_BODY_BYTES: usize = 8 * 1024 * 1024;
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

type Case = fn(u64);
const CASES: [(&str, Case); 10] = [
    ("encode", encode),
    ("decode", decode),
    ("begin on an unknown key", begin_miss),
    ("replay", replay),
    ("begin and complete", begin_and_complete),
    ("begin, complete and seal", seal),
    (EMPTY_LAYER, layer::empty),
    (WITHOUT_A_KEY, layer::without_a_key),
    ("a request with a fresh key", layer::fresh),
    ("a request that is replayed", layer::replayed),
];
const EMPTY_LAYER: &str = "a request through an empty layer";
const WITHOUT_A_KEY: &str = "a request without a key";
/// A request without a key takes at most so many times the instructions of one through a layer that
/// does nothing. What it has more is its id: made, put into its extensions, and sent back.
const ALLOWED_WITHOUT_A_KEY: f64 = 1.2;

fn encode(rounds: u64) {
    let (scope, key, completion) = (scope(), key(1), completion(&response()));
    for _ in 0..rounds {
        black_box(internals::encode_record(scope, &key, &completion));
    }
}

fn decode(rounds: u64) {
    let bytes = Bytes::from(internals::encode_record(scope(), &key(1), &completion(&response())));
    for _ in 0..rounds {
        black_box(internals::decode_record(&bytes));
    }
}

fn begin_miss(rounds: u64) {
    let (store, operation) = (store(), Request::new().operation(0));
    for _ in 0..rounds {
        drop(execute(&store, &operation));
    }
}

fn replay(rounds: u64) {
    let (store, request) = (store(), Request::new());
    let operation = request.operation(0);
    complete(&store, &operation, &request.response);
    for _ in 0..rounds {
        match store.begin(&operation).wait() {
            Ok(Outcome::Replay(record)) => drop(black_box(record)),
            other => panic!("not replayed: {other:?}"),
        }
    }
}

fn begin_and_complete(rounds: u64) {
    let (store, request) = (roomy_store(&SimulatedClock::new()), Request::new());
    for n in 0..rounds {
        complete(&store, &request.operation(n), &request.response);
    }
}

fn seal(rounds: u64) {
    let clock = SimulatedClock::new();
    let (store, request) = (roomy_store(&clock), Request::new());
    for n in 0..rounds {
        complete(&store, &request.operation(n), &request.response);
    }
    clock.advance(HOUR);
    store.reap().expect("memory takes it");
    assert_eq!(store.stats().segment_records, rounds + 1);
}

fn store() -> Store {
    store_at(&SimulatedClock::new())
}

/// A store whose clock does not read the machine's: valgrind lacks the kernel's page for that.
fn store_at(clock: &SimulatedClock) -> Store {
    open(Store::builder().clock(clock.clone()))
}

/// A store whose active log has room for all rounds, so that none of them waits for another log.
fn roomy_store(clock: &SimulatedClock) -> Store {
    let builder = Store::builder().clock(clock.clone());
    let store = open(builder.max_response_bytes(LARGE_BODY_BYTES));
    let response = Response::new(Bytes::from(vec![b'x'; LARGE_BODY_BYTES]));
    complete(&store, &Request::new().operation(u64::MAX), &response);
    store
}

fn open(builder: Builder) -> Store {
    builder.open_in_memory().expect("memory takes it")
}

fn execute(store: &Store, operation: &Operation) -> Permit {
    match store.begin(operation).wait() {
        Ok(Outcome::Execute(permit)) => permit,
        other => panic!("not to be executed: {other:?}"),
    }
}

fn complete(store: &Store, operation: &Operation, response: &Response<Bytes>) {
    let record = execute(store, operation).complete(response).wait();
    black_box(record.expect("memory takes it"));
}

/// The parts that all requests share, so that making them is not counted.
struct Request {
    scope: Scope,
    fingerprint: Fingerprint,
    response: Response<Bytes>,
}

impl Request {
    fn new() -> Self {
        let fingerprint = Fingerprint::of(["POST", "/v1/calls"]);
        Self { scope: scope(), fingerprint, response: response() }
    }

    fn operation(&self, n: u64) -> Operation {
        Operation::new(self.scope, key(n), self.fingerprint)
    }
}

fn scope() -> Scope {
    Scope::from_api_key("sk_live_51")
}

fn key(n: u64) -> Key {
    format!("9b8cfa7a-1c2d-4a88-b3c0-{n:012x}").parse().expect("a UUID is a key")
}

fn completion(response: &Response<Bytes>) -> Completion {
    Completion {
        fingerprint: Fingerprint::from_bytes([9; 32]),
        request_id: "req_81".parse().expect("it is within the grammar"),
        ttl: DAY,
        response: Some(response.clone()),
    }
}

fn response() -> Response<Bytes> {
    let response = Response::builder().header("content-type", "application/json");
    response.body(Bytes::from(vec![b'x'; BODY_BYTES])).expect("it is one")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    match &arguments[..] {
        [name, rounds] if let Some(case) = find(name) => {
            case(rounds.parse().expect("it is a number"));
            ExitCode::SUCCESS
        }
        // As by criterion's benches: `cargo test` runs them once.
        _ if has("--test") || !has("--bench") => {
            CASES.iter().for_each(|(_, case)| case(1));
            ExitCode::SUCCESS
        }
        _ => compare(has("--save")),
    }
}

fn find(name: &str) -> Option<Case> {
    CASES.iter().find(|(known, _)| *known == name).map(|(_, case)| *case)
}

/// Instructions of one round.
#[derive(Clone, Copy)]
struct Count {
    /// Instructions of SHA-256, which would hide the rest: valgrind's processor has none for it.
    hashing: u64,
    rest: u64,
}

fn compare(save: bool) -> ExitCode {
    let before = read(Path::new(FIGURES));
    let mut lines = String::new();
    let mut grown = false;
    let mut now = BTreeMap::new();
    for (name, _) in CASES {
        let Count { hashing, rest } = if save { most(name) } else { least(name) };
        now.insert(name, rest);
        lines.push_str(&format!("{name}: {rest} and {hashing} of SHA-256\n"));
        println!("{name}: {rest} instructions, and {hashing} of SHA-256");
        let Some(before) = before.get(name) else {
            println!("    has no figure yet");
            grown = true;
            continue;
        };
        for (what, now, before) in
            [("", rest, before.rest), (" of SHA-256", hashing, before.hashing)]
        {
            let ratio = now.max(1) as f64 / before.max(1) as f64;
            if ratio > ALLOWED {
                println!("    TOO MANY{what}: {ratio:.3} times the {before} before");
                grown = true;
            } else if ratio * ALLOWED < 1.0 {
                println!("    fewer{what}: {ratio:.3} times the {before} before; save it");
            }
        }
    }
    let ratio = now[WITHOUT_A_KEY] as f64 / now[EMPTY_LAYER] as f64;
    println!("{WITHOUT_A_KEY}: {ratio:.3} times {EMPTY_LAYER}");
    if ratio > ALLOWED_WITHOUT_A_KEY {
        println!("    TOO MANY: {ALLOWED_WITHOUT_A_KEY} times are allowed");
        grown = true;
    }
    if save {
        std::fs::write(FIGURES, lines).expect("the figures can be written");
    } else if grown {
        println!(
            "find out why, or say that it must be: cargo bench --bench instructions -- --save"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn read(path: &Path) -> BTreeMap<String, Count> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let figure = |text: &str| text.parse().expect("it is a number");
    let lines = text.lines().filter_map(|line| {
        let (name, figures) = line.split_once(": ")?;
        let (rest, hashing) = figures.strip_suffix(" of SHA-256")?.split_once(" and ")?;
        Some((name.to_owned(), Count { hashing: figure(hashing), rest: figure(rest) }))
    });
    lines.collect()
}

fn most(name: &str) -> Count {
    let counts = (0..COUNTS).map(|_| count(name));
    counts.max_by_key(|count| count.rest).expect("there is one at least")
}

fn least(name: &str) -> Count {
    let counts = (0..COUNTS).map(|_| count(name));
    counts.min_by_key(|count| count.rest).expect("there is one at least")
}

fn count(name: &str) -> Count {
    let [few, many] = ROUNDS.map(|rounds| run(name, rounds));
    let each = |few: u64, many: u64| many.saturating_sub(few) / (ROUNDS[1] - ROUNDS[0]);
    Count { hashing: each(few.hashing, many.hashing), rest: each(few.rest, many.rest) }
}

/// Instructions of a process that runs a case, all its threads included.
fn run(name: &str, rounds: u64) -> Count {
    let program = std::env::current_exe().expect("it runs");
    let directory = tempfile::tempdir().expect("there is room");
    let profile = directory.path().join("profile");
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--compress-strings=no",
            "--compress-pos=no",
            "--fair-sched=yes",
        ])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args([name, &rounds.to_string()])
        .output()
        .expect("valgrind is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tally(&std::fs::read_to_string(profile).expect("valgrind has written it"))
}

/// Adds up a profile. A function's lines hold the costs of the function itself, and of its calls,
/// which count where they lead to.
fn tally(profile: &str) -> Count {
    let mut count = Count { hashing: 0, rest: 0 };
    let (mut hashes, mut calls) = (false, false);
    for line in profile.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            hashes = function.contains("sha256");
        } else if line.starts_with("calls=") {
            calls = true;
        } else if let Some((_, cost)) = line.split_once(' ').filter(|_| is_cost(line)) {
            let cost: u64 = cost.parse().expect("one event is counted");
            match std::mem::take(&mut calls) {
                true => {}
                false if hashes => count.hashing += cost,
                false => count.rest += cost,
            }
        }
    }
    count
}

/// Returns true if a line of a profile states a cost.
fn is_cost(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_digit())
}
