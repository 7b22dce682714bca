//! The cost of the layer: a trivial axum handler without it, with it, and with it and a key, on a
//! store in memory, so that no disk is measured.
//!
//! `cargo bench --bench http` prints requests per second and latencies at 1 and at 64 clients, and
//! the ratios to the bare handler: medians of interleaved rounds. Clients have a connection each,
//! over the loopback device with HTTP/1.1 and keep-alive, or they are tasks that call the router.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "figures are what it is for")]
#![expect(clippy::disallowed_methods, reason = "time is what it measures")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use refrain::Store;
use refrain::server::IdempotencyLayer;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

const BODY: &str = r#"{"caller_id": "+14155551234", "destination": "+14155556789"}"#;
const CLIENTS: [usize; 2] = [1, 64];

/// The way to the handler.
#[derive(Clone, Copy)]
enum Way {
    Sockets,
    Calls,
}

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

/// A router, and the server that has it.
struct App {
    router: Router,
    address: SocketAddr,
}

impl App {
    fn start(server: &Runtime, router: Router) -> Self {
        let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        server.spawn(axum::serve(listener, router.clone()).into_future());
        Self { router, address }
    }

    async fn client(&self, way: Way) -> Client {
        match way {
            Way::Calls => Client::Router(self.router.clone()),
            Way::Sockets => {
                let stream = TcpStream::connect(self.address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                Client::Connection(sender)
            }
        }
    }
}

/// Sends one request after another.
enum Client {
    Router(Router),
    Connection(SendRequest<Body>),
}

impl Client {
    async fn send(&mut self, key: Option<String>) {
        let mut request = Request::post("/v1/calls")
            .header("host", "127.0.0.1")
            .header("authorization", "Bearer sk_live_51")
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::from(BODY)).unwrap();
        match self {
            Self::Router(router) => check(router.clone().oneshot(request).await.unwrap()).await,
            Self::Connection(sender) => {
                sender.ready().await.unwrap();
                check(sender.send_request(request).await.unwrap()).await;
            }
        }
    }
}

async fn check<B>(response: Response<B>)
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, BODY);
}

struct Bench {
    clients: Runtime,
    /// Serves the sockets.
    _server: Runtime,
    bare: App,
    layered: App,
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
        let one_thread =
            || Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (clients, server) = (one_thread(), one_thread());
        let routes: Router =
            Router::new().route("/v1/calls", post(|body: String| async move { body }));
        let store = Store::builder().open_in_memory().unwrap();
        // With its state, a router has its layers made once, and not for each request.
        let layered = routes.clone().layer(IdempotencyLayer::new(store)).with_state(());
        let bare = App::start(&server, routes.with_state(()));
        let layered = App::start(&server, layered);
        Self { clients, _server: server, bare, layered, keys: 0 }
    }

    fn round(&mut self, (way, case): (Way, Case), clients: usize, requests: usize) -> Round {
        let app = if case == Case::Bare { &self.bare } else { &self.layered };
        let connected: Vec<Client> = self.clients.block_on(async {
            let mut connected = Vec::with_capacity(clients);
            for _ in 0..clients {
                let mut client = app.client(way).await;
                client.send((case == Case::Replayed).then(|| "replayed".into())).await;
                connected.push(client);
            }
            connected
        });
        let per_client = requests / clients;
        let started = Instant::now();
        let tasks = connected.into_iter().enumerate().map(|(at, client)| {
            let first = self.keys + at * per_client;
            self.clients.spawn(ask(client, case, first..first + per_client))
        });
        let tasks: Vec<_> = tasks.collect();
        let mut latencies = Vec::with_capacity(requests);
        for task in tasks {
            latencies.extend(self.clients.block_on(task).unwrap());
        }
        let took = started.elapsed();
        self.keys += requests;
        latencies.sort_unstable();
        let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
        let per_second = latencies.len() as f64 / took.as_secs_f64();
        Round { per_second, p50: at(50), p99: at(99) }
    }

    /// Measures the cases in turn, and prints a line for each.
    fn compare(&mut self, way: Way, clients: usize, (rounds, requests): (usize, usize)) {
        let mut measured: [Vec<Round>; CASES.len()] = Default::default();
        // The first warms up.
        for round in 0..=rounds {
            for (n, (case, _)) in CASES.into_iter().enumerate() {
                let measuring = self.round((way, case), clients, requests);
                if round > 0 {
                    measured[n].push(measuring);
                }
            }
        }
        let per_second = |n: usize| median(measured[n].iter().map(|round| round.per_second));
        for (n, (_, name)) in CASES.into_iter().enumerate() {
            // Of each round to the bare one beside it, so that what disturbs both cancels out.
            let beside = measured[n].iter().zip(&measured[0]);
            let ratio = median(beside.map(|(this, bare)| this.per_second / bare.per_second));
            let p50 = median(measured[n].iter().map(|round| round.p50));
            let p99 = median(measured[n].iter().map(|round| round.p99));
            let per_second = per_second(n);
            println!(
                "{clients:>7}  {name:<17}  {per_second:>10.0}  {ratio:>5.2}  {p50:>7.1?}  {p99:>7.1?}"
            );
        }
    }
}

/// Sends the requests with these numbers, and returns the time that each took.
async fn ask(mut client: Client, case: Case, numbers: std::ops::Range<usize>) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(numbers.len());
    for n in numbers {
        let key = match case {
            Case::Bare | Case::NoKey => None,
            Case::Fresh => Some(format!("key-{n}")),
            Case::Replayed => Some("replayed".to_owned()),
        };
        let sent = Instant::now();
        client.send(key).await;
        latencies.push(sent.elapsed());
    }
    latencies
}

fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

fn main() {
    // As criterion does it: a run that only shows that it runs.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let extent = if is_test { (1, 64) } else { (61, 1600) };
    let mut bench = Bench::new();
    for (way, title) in [(Way::Sockets, "over sockets"), (Way::Calls, "in the process")] {
        println!("{title}\nclients  case               requests/s  ratio      p50      p99");
        for clients in CLIENTS {
            bench.compare(way, clients, extent);
        }
    }
}
