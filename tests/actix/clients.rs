//! Real clients and workers: connections that end, and servers that stop.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::UPGRADE;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use bytes::Bytes;
use refrain::server::IdempotencyLayer;
use refrain::server::actix::Idempotency;
use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::kit::on_worker;

/// A server, with one worker unless told, whose handler says when it was entered and is left when the test says
/// so.
struct Gate {
    address: SocketAddr,
    handle: ServerHandle,
    store: Store,
    steps: Steps,
}

#[derive(Clone)]
struct Steps {
    entered: Arc<Semaphore>,
    leave: Arc<Semaphore>,
    /// Connections whose future has ended or was dropped.
    gone: Arc<Semaphore>,
    runs: Arc<AtomicUsize>,
    /// The workers that were asked.
    workers: Arc<Mutex<HashSet<ThreadId>>>,
}

/// Notes that the future of a connection's request is gone.
struct Gone(Arc<Semaphore>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

async fn place(steps: web::Data<Steps>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let run = steps.runs.fetch_add(1, Ordering::SeqCst);
    steps.entered.add_permits(1);
    steps.leave.acquire().await.unwrap().forget();
    let peer = request.peer_addr().unwrap().ip();
    HttpResponse::Created().body(format!("run {run} for {peer} of {} bytes", body.len()))
}

impl Gate {
    /// Starts the server on the current system.
    fn open(configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer) -> Self {
        Self::with_workers(1, configure)
    }

    fn with_workers(
        workers: usize,
        configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
    ) -> Self {
        let store = Store::builder().open_in_memory().unwrap();
        let steps = Steps {
            entered: Arc::new(Semaphore::new(0)),
            leave: Arc::new(Semaphore::new(0)),
            gone: Arc::new(Semaphore::new(0)),
            runs: Arc::default(),
            workers: Arc::default(),
        };
        let idempotency = Idempotency::new(configure(IdempotencyLayer::new(store.clone())));
        let data = web::Data::new(steps.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .wrap(idempotency.clone())
                .wrap_fn(|request, service| {
                    let steps = request.app_data::<web::Data<Steps>>().unwrap();
                    steps.workers.lock().unwrap().insert(std::thread::current().id());
                    let gone = Gone(steps.gone.clone());
                    let answering = actix_web::dev::Service::call(service, request);
                    async move {
                        let _gone = gone;
                        answering.await
                    }
                })
                .route("/", web::post().to(place))
                .route("/", web::get().to(upgraded))
                .route("/closing", web::post().to(closing))
        });
        let server = server.workers(workers).disable_signals().shutdown_timeout(60);
        let server = server.bind("127.0.0.1:0").unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        rt::spawn(server);
        Self { address, handle, store, steps }
    }

    async fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn ask(&self, request: &str) -> String {
        read(self.connect(request).await).await
    }

    async fn enter(&self) {
        self.steps.entered.acquire().await.unwrap().forget();
    }

    fn leave(&self) {
        self.steps.leave.add_permits(1);
    }

    async fn until_gone(&self) {
        self.steps.gone.acquire().await.unwrap().forget();
    }

    /// Waits until so many requests run or wait.
    async fn until_in_flight(&self, requests: usize) {
        while self.store.stats().in_flight != requests {
            tokio::task::yield_now().await;
        }
    }

    fn runs(&self) -> usize {
        self.steps.runs.load(Ordering::SeqCst)
    }
}

async fn upgraded() -> HttpResponse {
    HttpResponse::SwitchingProtocols().upgrade("echo").finish()
}

async fn closing() -> HttpResponse {
    HttpResponse::Ok().force_close().body("closing")
}

/// Reads until the connection ends.
async fn read(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Ends a connection with a reset.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

const HEAD: &str = "Host: x\r\nAuthorization: Bearer sk_live_51\r\nIdempotency-Key: a\r\n";

fn post() -> String {
    format!("POST / HTTP/1.1\r\n{HEAD}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}")
}

fn operation() -> Operation {
    let scope = Scope::from_api_key("sk_live_51");
    Operation::new(scope, "a".parse().unwrap(), Fingerprint::of_request("POST", "/", ["{}"]))
}

#[test]
fn a_request_runs_once_and_is_replayed_over_a_connection() {
    on_worker(async {
        let gate = Gate::open(|layer| layer);
        gate.leave();
        let first = gate.ask(&post()).await;
        assert!(first.starts_with("HTTP/1.1 201 Created\r\n"), "{first}");
        assert!(first.ends_with("\r\n\r\nrun 0 for 127.0.0.1 of 2 bytes"), "{first}");
        let again = gate.ask(&post()).await;
        assert!(again.contains("\r\nidempotency-replay: true\r\n"), "{again}");
        assert!(again.contains("\r\ncontent-length: 30\r\n"), "{again}");
        assert!(again.ends_with("\r\n\r\nrun 0 for 127.0.0.1 of 2 bytes"), "{again}");
        gate.handle.stop(true).await;
    });
}

#[test]
fn p1_a_key_that_comes_to_two_workers_runs_once() {
    on_worker(async {
        let gate = Gate::with_workers(2, |layer| layer);
        let first = gate.connect(&post()).await;
        gate.enter().await;
        let second = gate.connect(&post()).await;
        gate.until_in_flight(2).await;
        gate.leave();
        for (client, is_replay) in [(first, false), (second, true)] {
            let answer = read(client).await;
            assert_eq!(answer.contains("idempotency-replay: true"), is_replay, "{answer}");
            assert!(answer.ends_with("run 0 for 127.0.0.1 of 2 bytes"), "{answer}");
        }
        assert_eq!((gate.runs(), gate.steps.workers.lock().unwrap().len()), (1, 2));
        gate.handle.stop(true).await;
    });
}

/// Workers have other runtimes where the server was started by tokio.
#[tokio::test]
async fn a_server_that_tokio_runs_runs_a_request_once_too() {
    let store = Store::builder().open_in_memory().unwrap();
    let idempotency = Idempotency::new(IdempotencyLayer::new(store));
    let server = HttpServer::new(move || {
        App::new().wrap(idempotency.clone()).route("/", web::post().to(|| async { "placed" }))
    });
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    let running = tokio::spawn(server);
    for is_replay in [false, true] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(post().as_bytes()).await.unwrap();
        let answer = read(stream).await;
        assert_eq!(answer.contains("idempotency-replay: true"), is_replay, "{answer}");
        assert!(answer.ends_with("placed"), "{answer}");
    }
    handle.stop(true).await;
    running.await.unwrap().unwrap();
}

#[test]
fn p15_a_handler_goes_on_after_its_connection_was_reset() {
    on_worker(async {
        let gate = Gate::open(|layer| layer);
        let client = gate.connect(&post()).await;
        gate.enter().await;
        reset(client);
        gate.until_gone().await;
        let retry = gate.connect(&post()).await;
        gate.until_in_flight(2).await;
        gate.leave();
        let retry = read(retry).await;
        assert!(retry.contains("idempotency-replay: true"), "{retry}");
        assert!(retry.ends_with("run 0 for 127.0.0.1 of 2 bytes"), "{retry}");
        assert_eq!(gate.runs(), 1);
        gate.handle.stop(true).await;
    });
}

#[test]
fn p15_a_request_that_waits_is_not_run_for_a_client_that_is_gone() {
    on_worker(async {
        let gate = Gate::open(|layer| layer);
        let scope = Scope::from_api_key("sk_live_51");
        let running =
            Operation::new(scope, "a".parse().unwrap(), Fingerprint::of(["another request"]));
        let Ok(Outcome::Execute(held)) = gate.store.begin(&running).await else {
            panic!("it is new")
        };
        let client = gate.connect(&post()).await;
        gate.until_in_flight(2).await;
        reset(client);
        gate.until_gone().await;
        held.release().await.unwrap();
        gate.until_in_flight(0).await;
        assert_eq!(gate.runs(), 0);
        gate.handle.stop(true).await;
    });
}

#[test]
fn p10_a_worker_that_stops_waits_for_the_run_of_a_client_that_is_there() {
    on_worker(async {
        let gate = Gate::open(|layer| layer);
        let client = gate.connect(&post()).await;
        gate.enter().await;
        let stopped = gate.handle.stop(true);
        gate.leave();
        assert!(read(client).await.ends_with("run 0 for 127.0.0.1 of 2 bytes"));
        stopped.await;
        let outcome = gate.store.begin(&operation()).await.unwrap();
        assert!(matches!(outcome, Outcome::Replay(_)), "{outcome:?}");
    });
}

/// A worker counts connections, and its tasks are dropped with it.
#[test]
fn p15_a_worker_that_stops_leaves_the_key_of_a_run_without_a_client_claimed() {
    for durable in [false, true] {
        on_worker(async {
            let gate = Gate::open(|layer| layer.durable(durable));
            let client = gate.connect(&post()).await;
            gate.enter().await;
            reset(client);
            gate.until_gone().await;
            gate.handle.stop(true).await;
            let mut begin = gate.store.begin(&operation());
            if !durable {
                begin.give_up();
            }
            let outcome = begin.await.unwrap();
            assert_eq!(matches!(outcome, Outcome::InFlight { .. }), !durable, "{outcome:?}");
            assert_eq!(matches!(outcome, Outcome::Interrupted(_)), durable, "{outcome:?}");
        });
    }
}

/// The order that the guide tells.
#[test]
fn p15_a_store_that_is_closed_before_the_server_stops_waits_for_runs_without_clients() {
    on_worker(async {
        let gate = Gate::open(|layer| layer);
        let client = gate.connect(&post()).await;
        gate.enter().await;
        reset(client);
        gate.until_gone().await;
        let closing = gate.store.close(Duration::from_secs(60));
        assert!(gate.ask(&post()).await.contains("idempotency_unavailable"));
        gate.leave();
        assert_eq!(closing.await.unwrap(), 0);
        assert_eq!(gate.store.stats().entries, 1);
        gate.handle.stop(true).await;
    });
}

#[test]
fn a_client_that_sends_all_of_a_body_that_is_too_large_gets_the_answer() {
    on_worker(async {
        let gate = Gate::open(|layer| layer.max_request_bytes(1024));
        let body = "x".repeat(4 * 1024 * 1024);
        for head in [format!("Content-Length: {}\r\n", body.len()), String::new()] {
            let body = match head.is_empty() {
                false => body.clone(),
                true => format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            };
            let coding = if head.is_empty() { "Transfer-Encoding: chunked\r\n" } else { "" };
            let request = format!("POST / HTTP/1.1\r\n{HEAD}{head}{coding}\r\n");
            let mut client = gate.connect(&request).await;
            client.write_all(body.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            client.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 413");
        }
        assert_eq!(gate.runs(), 0);
        gate.handle.stop(true).await;
    });
}

/// Actix gives leave before any middleware is asked.
#[test]
fn a_client_that_waits_for_leave_to_send_too_much_gets_leave_the_answer_and_the_end() {
    on_worker(async {
        let gate = Gate::open(|layer| layer.max_request_bytes(1024));
        let length = "Content-Length: 4096\r\nExpect: 100-continue\r\n\r\n";
        let mut client = gate.connect(&format!("POST / HTTP/1.1\r\n{HEAD}{length}")).await;
        let (leave, mut given) = ("HTTP/1.1 100 Continue\r\n\r\n", [0; 25]);
        client.read_exact(&mut given).await.unwrap();
        assert_eq!(std::str::from_utf8(&given), Ok(leave));
        client.write_all(&[b'x'; 4096]).await.unwrap();
        client.shutdown().await.unwrap();
        let answer = read(client).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert_eq!(gate.runs(), 0);
        gate.handle.stop(true).await;
    });
}

#[test]
fn a_connection_serves_on_after_a_refusal_and_after_a_run() {
    on_worker(async {
        let gate = Gate::open(|layer| layer);
        gate.leave();
        let kept = "Content-Length: 2\r\n\r\n{}";
        let refused = format!("POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: a\r\n{kept}");
        let run = format!("POST / HTTP/1.1\r\n{HEAD}{kept}");
        let answers = gate.ask(&format!("{refused}{run}{}", post())).await;
        let statuses = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]);
        assert_eq!(statuses.collect::<Vec<_>>(), ["401", "201", "201"], "{answers}");
        gate.handle.stop(true).await;
    });
}

#[test]
fn what_a_handler_says_of_the_connection_is_kept() {
    on_worker(async {
        let gate = Gate::open(|layer| layer);
        let mut client = gate
            .connect("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            .await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        assert!(head.contains(&format!("\r\n{UPGRADE}: echo\r\n")), "{head}");
        drop(client);
        let post = format!("POST /closing HTTP/1.1\r\n{HEAD}Content-Length: 0\r\n\r\n");
        let answer = gate.ask(&post).await;
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        gate.handle.stop(false).await;
    });
}
