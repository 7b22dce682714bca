//! The cost of the layer: a trivial axum handler without it, with it, and with it and a key, on a
//! store in memory, so that no disk is measured.
//!
//! `cargo bench --bench http` prints requests per second and latencies at 1 and at 64 clients, and
//! the ratios to the bare handler: medians of interleaved rounds. Clients are tasks that call the
//! router.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "figures are what it is for")]
#![expect(clippy::disallowed_methods, reason = "time is what it measures")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::Request;
use http_body_util::BodyExt;
use refrain::Store;
use refrain::server::IdempotencyLayer;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

const BODY: &str = r#"{"caller_id": "+14155551234", "destination": "+14155556789"}"#;
const CLIENTS: [usize; 2] = [1, 64];

/// The router that is called, and the kind of request.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    Bare,
    NoKey,
    Fresh,
    Replayed,
}

const CASES: [(Case, &str); 4] = [
    (Case::Bare, "no layer"),
    (Case::NoKey, "layer, no key"),
    (Case::Fresh, "layer, fresh key"),
    (Case::Replayed, "layer, replayed"),
];

struct Bench {
    runtime: Runtime,
    bare: Router,
    layered: Router,
    /// The number of keys so far, so that no fresh key is used twice.
    keys: usize,
}

/// One round of one case.
struct Round {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

impl Bench {
    fn new() -> Self {
        let bare: Router =
            Router::new().route("/v1/calls", post(|body: String| async move { body }));
        let store = Store::builder().open_in_memory().unwrap();
        let layered = bare.clone().layer(IdempotencyLayer::new(store));
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { runtime, bare, layered, keys: 0 }
    }

    fn round(&mut self, case: Case, clients: usize, requests: usize) -> Round {
        let router = if case == Case::Bare { &self.bare } else { &self.layered };
        if case == Case::Replayed {
            self.runtime.block_on(send(router.clone(), Some("replayed".into())));
        }
        let per_client = requests / clients;
        let started = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let router = router.clone();
                let first = self.keys + client * per_client;
                self.runtime.spawn(async move {
                    let mut latencies = Vec::with_capacity(per_client);
                    for n in first..first + per_client {
                        let key = match case {
                            Case::Bare | Case::NoKey => None,
                            Case::Fresh => Some(format!("key-{n}")),
                            Case::Replayed => Some("replayed".to_owned()),
                        };
                        let sent = Instant::now();
                        send(router.clone(), key).await;
                        latencies.push(sent.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        let mut latencies = Vec::with_capacity(requests);
        for task in tasks {
            latencies.extend(self.runtime.block_on(task).unwrap());
        }
        let took = started.elapsed();
        self.keys += requests;
        latencies.sort_unstable();
        let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
        let per_second = latencies.len() as f64 / took.as_secs_f64();
        Round { per_second, p50: at(50), p99: at(99) }
    }
}

async fn send(router: Router, key: Option<String>) {
    let mut request = Request::post("/v1/calls")
        .header("authorization", "Bearer sk_live_51")
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let response = router.oneshot(request.body(Body::from(BODY)).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, BODY);
}

fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

fn main() {
    // As criterion does it: a run that only shows that it runs.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (rounds, requests) = if is_test { (1, 64) } else { (9, 6400) };
    let mut bench = Bench::new();
    println!("clients  case               requests/s  ratio      p50      p99");
    for clients in CLIENTS {
        let mut measured: [Vec<Round>; 4] = Default::default();
        for round in 0..=rounds {
            for (n, (case, _)) in CASES.into_iter().enumerate() {
                let measuring = bench.round(case, clients, requests);
                // The first warms up.
                if round > 0 || is_test {
                    measured[n].push(measuring);
                }
            }
        }
        let per_second = |n: usize| median(measured[n].iter().map(|round| round.per_second));
        for (n, (_, name)) in CASES.into_iter().enumerate() {
            let (p50, p99) = (
                median(measured[n].iter().map(|round| round.p50)),
                median(measured[n].iter().map(|round| round.p99)),
            );
            println!(
                "{clients:>7}  {name:<17}  {:>10.0}  {:>5.2}  {:>7.1?}  {:>7.1?}",
                per_second(n),
                per_second(n) / per_second(0),
                p50,
                p99
            );
        }
    }
}
