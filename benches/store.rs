//! The rate of a store on a real disk: commits, replays and first looks in a second.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::Response;
use refrain::clock::SimulatedClock;
use refrain::{Fingerprint, Operation, Outcome, Permit, Scope, Store};
use tempfile::TempDir;

const COMMITTERS: [u64; 3] = [1, 8, 64];
const BODY_BYTES: usize = 1024;
/// The number of keys to look up.
const KNOWN: u64 = 10_000;
const HOUR: Duration = Duration::from_secs(60 * 60);

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("begin and complete");
    group.throughput(Throughput::Elements(1));
    for committers in COMMITTERS {
        let directory = directory();
        let store = Store::open(directory.path().join("store")).expect("it is a new store");
        let next = AtomicU64::new(0);
        group.bench_function(BenchmarkId::from_parameter(committers), |bencher| {
            bencher.iter_custom(|iterations| commit_all(&store, committers, iterations, &next));
        });
    }
    group.finish();
}

/// Splits the commits among threads that begin at once, and times them all.
fn commit_all(store: &Store, committers: u64, iterations: u64, next: &AtomicU64) -> Duration {
    let usual = iterations / committers;
    let parties = usize::try_from(committers).expect("they are few") + 1;
    // Passed when all are there, and again once the time is noted.
    let start = Barrier::new(parties);
    let (start, response) = (&start, &response());
    thread::scope(|threads| {
        let committers: Vec<_> = (0..committers)
            .map(|committer| {
                let share = usual + u64::from(committer < iterations % committers);
                threads.spawn(move || {
                    start.wait();
                    start.wait();
                    for _ in 0..share {
                        let operation = operation(next.fetch_add(1, Ordering::Relaxed));
                        let ticket = execute(store, &operation).complete(response);
                        ticket.wait().expect("the disk takes it");
                    }
                })
            })
            .collect();
        start.wait();
        #[expect(clippy::disallowed_methods, reason = "a benchmark measures time itself")]
        let began = Instant::now();
        start.wait();
        for committer in committers {
            committer.join().expect("a committer does not panic");
        }
        began.elapsed()
    })
}

fn look_up(criterion: &mut Criterion) {
    let directory = directory();
    let clock = SimulatedClock::new();
    let store = Store::builder().clock(clock.clone()).open(directory.path().join("store"));
    let store = store.expect("it is a new store");
    commit_all(&store, 64, KNOWN, &AtomicU64::new(0));

    let mut group = criterion.benchmark_group("begin");
    replay(&mut group, "replay from the log", &store);
    clock.advance(HOUR);
    store.reap().expect("the disk takes it");
    assert_eq!((store.stats().log_records, store.stats().segment_records), (0, KNOWN));
    replay(&mut group, "replay from a segment", &store);

    let unknown: Vec<_> = (KNOWN..2 * KNOWN).map(operation).collect();
    let mut unknown = unknown.iter().cycle();
    group.bench_function("execute and drop the permit", |bencher| {
        bencher.iter(|| drop(execute(&store, unknown.next().expect("it goes round"))));
    });
    group.finish();
}

fn replay(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    store: &Store,
) {
    let known: Vec<_> = (0..KNOWN).map(operation).collect();
    let mut known = known.iter().cycle();
    group.bench_function(name, |bencher| {
        bencher.iter(|| match store.begin(known.next().expect("it goes round")).wait() {
            Ok(Outcome::Replay(record)) => record,
            other => panic!("not replayed: {other:?}"),
        });
    });
}

fn execute(store: &Store, operation: &Operation) -> Permit {
    match store.begin(operation).wait() {
        Ok(Outcome::Execute(permit)) => permit,
        other => panic!("not to be executed: {other:?}"),
    }
}

fn operation(n: u64) -> Operation {
    let name = format!("9b8cfa7a-1c2d-4a88-b3c0-{n:012x}");
    let fingerprint = Fingerprint::of(["POST", "/v1/calls", &name]);
    let key = name.parse().expect("a UUID is a key");
    Operation::new(Scope::from_api_key("sk_live_51"), key, fingerprint)
}

fn response() -> Response<Bytes> {
    Response::new(Bytes::from(vec![b'x'; BODY_BYTES]))
}

/// On the disk that the crate is built on, since `/tmp` may be memory.
fn directory() -> TempDir {
    TempDir::new_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("it can be written to")
}

criterion_group!(benches, commit, look_up);
criterion_main!(benches);
