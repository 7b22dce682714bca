//! What operators ask for, over a real socket and a real port.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use refrain::admin::{Admin, Blob, Code, Entry, Mandate, Note, Response, Socket, Token, Verdict};
use refrain::{Fingerprint, Operation, Outcome, Permit, Scope, Store};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const TOKEN: &str = "0123456789abcdef";

fn begin(store: &Store, key: &str) -> Permit {
    let fingerprint = Fingerprint::of(["POST", key]);
    let operation = Operation::new(scope(), key.parse().unwrap(), fingerprint).durable();
    match store.begin(&operation).wait().unwrap() {
        Outcome::Execute(permit) => permit,
        other => panic!("{other:?}"),
    }
}

fn complete(store: &Store, key: &str, body: Vec<u8>) {
    let response = http::Response::new(Bytes::from(body));
    begin(store, key).complete(&response).wait().unwrap();
}

fn scope() -> Scope {
    Scope::from_api_key("sk_live_51")
}

/// A store with a port that answers operators.
struct Desk {
    store: Store,
    address: SocketAddr,
    _runtime: Runtime,
}

impl Desk {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = Store::builder().open_in_memory().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(Admin::new(store.clone()).serve_tcp(listener, Token::new(TOKEN).unwrap()));
        Self { store, address, _runtime: runtime }
    }

    /// Sends a request, with the token, and returns the connection.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n");
        let length = format!("content-length: {}\r\n", body.len());
        let token = format!("authorization: Bearer {TOKEN}\r\n");
        write!(stream, "{head}{token}{length}{headers}\r\n{body}").unwrap();
        stream
    }

    fn get(&self, path: &str) -> (u16, Value) {
        answer(self.send("GET", path, "", ""))
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let json = "content-type: application/json\r\n";
        answer(self.send("POST", path, json, &body.to_string()))
    }
}

fn answer(mut stream: impl Read) -> (u16, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}

#[test]
fn a_page_of_another_site_cannot_act() {
    let desk = Desk::new();
    complete(&desk.store, "key-1", b"done".to_vec());
    let forget = json!({ "scope": scope(), "key": "key-1" });
    // A form of another site has no other media types than such.
    let plain = "content-type: text/plain\r\n";
    let (status, refusal) = answer(desk.send("POST", "/v1/forget", plain, &forget.to_string()));
    assert_eq!((status, &refusal["code"]), (400, &"bad_request".into()));
    assert!(desk.store.get(scope(), &"key-1".parse().unwrap()).wait().unwrap().is_some());
    assert_eq!(desk.post("/v1/forget", &forget), (200, json!({ "unnoted": null })));
    assert!(desk.store.get(scope(), &"key-1".parse().unwrap()).wait().unwrap().is_none());
    let (status, refusal) = desk.post("/v1/forget", &forget);
    assert_eq!((status, &refusal["code"]), (404, &"not_found".into()));
}

#[test]
fn what_cannot_be_used_is_refused_and_said() {
    let desk = Desk::new();
    for path in [
        "/v1/entry",
        "/v1/entry?scope=ab&key=k",
        "/v1/entry?scope=&key=",
        "/v1/records?after_scope=ab",
        "/v1/records?unknown=1",
        "/v1/records?limit=-1",
        &format!("/v1/records?after_scope={}", scope()),
        "/v1/records?after_key=k",
        &format!("/v1/records?scope={}&after_scope={}&after_key=k", scope(), "f".repeat(64)),
    ] {
        let (status, refusal) = desk.get(path);
        assert_eq!((status, &refusal["code"]), (400, &"bad_request".into()), "{path}");
        assert!(!refusal["message"].as_str().unwrap().is_empty(), "{path}");
    }
    for body in [json!({}), json!(null), json!({ "scope": scope(), "key": "k", "verdict": "no" })] {
        let (status, refusal) = desk.post("/v1/resolve", &body);
        assert_eq!((status, &refusal["code"]), (400, &"bad_request".into()), "{body}");
    }
    let (status, refusal) = desk.post("/v1/backup", &json!({ "path": "/tmp/never" }));
    assert_eq!((status, &refusal["code"]), (403, &"socket_only".into()));
}

#[test]
fn without_the_token_only_the_probes_answer() {
    let desk = Desk::new();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(desk.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        answer(stream)
    };
    assert_eq!(ask("/healthz"), (200, "ok\n".into()));
    assert_eq!(ask("/readyz"), (200, "ok\n".into()));
    for path in ["/v1/status", "/v1/records", "/v1/in-flight", "/nothing", "/healthz/../v1/status"]
    {
        let (status, refusal) = ask(path);
        assert_eq!((status, &refusal["code"]), (401, &"unauthorized".into()), "{path}");
    }
    desk.store.close(Duration::ZERO).wait().unwrap();
    assert_eq!(ask("/healthz"), (503, "stopped: store is stopped\n".into()));
    assert_eq!(ask("/readyz").0, 503);
    let (status, refusal) = desk.get(&format!("/v1/entry?scope={}&key=k", scope()));
    assert_eq!((status, &refusal["code"]), (503, &"stopped".into()));
}

#[test]
fn interrupted_keys_are_listed_and_found_beyond_a_page() {
    let store = Store::builder().open_in_memory().unwrap();
    for n in 0..600 {
        drop(begin(&store, &format!("order-{n}")));
    }
    let admin = Admin::new(store);
    assert_eq!(admin.interrupted(None).count(), 600);
    for n in [9, 599] {
        let key = format!("order-{n}").parse().unwrap();
        assert!(matches!(admin.find(scope(), &key).unwrap(), Some(Entry::Interrupted(_))), "{n}");
    }
}

#[test]
fn metrics_are_those_that_the_server_gives() {
    let ask = |admin: Admin| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let request = axum::extract::Request::get("/metrics").body(axum::body::Body::empty());
        let answer = tower::ServiceExt::oneshot(admin.router(), request.unwrap());
        let (parts, body) = runtime.block_on(answer).unwrap().into_parts();
        let body = runtime.block_on(axum::body::to_bytes(body, 1000)).unwrap();
        (parts.status.as_u16(), body)
    };
    let admin = Admin::new(Store::builder().open_in_memory().unwrap());
    assert_eq!(ask(admin.clone()).0, 404);
    let answer = ask(admin.metrics(|| "refrain_failed_total 0\n".to_owned()));
    assert_eq!(answer, (200, "refrain_failed_total 0\n".into()));
}

/// The descriptors are the store's too.
#[test]
fn connections_that_ask_nothing_take_a_bounded_number_of_places() {
    let desk = Desk::new();
    let served = |stream: &mut TcpStream| {
        write!(stream, "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 15]).unwrap();
    };
    let idle: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(desk.address).unwrap();
            served(&mut stream);
            stream
        })
        .collect();
    let mut next = TcpStream::connect(desk.address).unwrap();
    write!(next, "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    next.set_nonblocking(true).unwrap();
    assert_eq!(next.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    next.set_nonblocking(false).unwrap();
    drop(idle);
    next.read_exact(&mut [0; 15]).unwrap();
}

#[test]
fn lists_that_nobody_reads_keep_others_out_and_never_the_store() {
    let desk = Desk::new();
    for n in 0..200 {
        complete(&desk.store, &format!("key-{n:03}"), vec![b'x'; 100_000]);
    }
    // Each has read its head and takes no more: 20 MB do not fit into the buffers of a connection.
    let stalled: Vec<_> = (0..4)
        .map(|_| {
            let mut reader = BufReader::new(desk.send("GET", "/v1/records?responses=true", "", ""));
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, "HTTP/1.1 200 OK\r\n");
            reader
        })
        .collect();
    let (status, refusal) = desk.get("/v1/records");
    assert_eq!((status, &refusal["code"]), (503, &"busy".into()));
    complete(&desk.store, "key-after", b"done".to_vec());
    assert_eq!(desk.get("/v1/status").0, 200);
    drop(stalled);
    // Their places are free once they are seen to be gone.
    while desk.get("/v1/records?limit=1").0 == 503 {
        std::thread::yield_now();
    }
}

#[test]
fn a_list_goes_on_behind_a_place_and_ends_with_its_length() {
    let desk = Desk::new();
    for n in 0..5 {
        complete(&desk.store, &format!("key-{n}"), b"done".to_vec());
    }
    let (_, body) = desk.get(&format!("/v1/records?scope={}&after_key=key-1&limit=2", scope()));
    // Between the lines are the lengths of the chunks.
    let lines = body.as_str().unwrap().lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let items: Vec<_> = lines.iter().filter_map(|line| line["item"]["key"].as_str()).collect();
    assert_eq!(items, ["key-2", "key-3"]);
    assert_eq!(lines.last().unwrap()["end"], 2);
}

#[test]
fn a_response_that_the_store_would_not_keep_is_no_verdict() {
    let store = Store::builder().max_response_bytes(1000).open_in_memory().unwrap();
    drop(begin(&store, "key-1"));
    let admin = Admin::new(store);
    let key = "key-1".parse().unwrap();
    let mandate = Mandate { who: "alice".into(), why: "ticket\n81".into() };
    let resolve = |verdict: &Verdict| admin.resolve(scope(), &key, verdict, &mandate);
    let response = |bytes: usize| Response {
        status: 201,
        headers: Vec::new(),
        trailers: Vec::new(),
        body: Blob(vec![b'x'; bytes].into()),
    };
    let refused = resolve(&Verdict::Complete(response(1001))).unwrap_err();
    assert_eq!(refused.code, Code::BadRequest);
    assert!(matches!(admin.find(scope(), &key).unwrap(), Some(Entry::Interrupted(_))));
    resolve(&Verdict::Complete(response(1000))).unwrap();
    let Some(Entry::Completed(found)) = admin.find(scope(), &key).unwrap() else { panic!() };
    assert_eq!(found.response.unwrap().unwrap(), response(1000));
    let refused = resolve(&Verdict::Release).unwrap_err();
    assert_eq!(refused.code, Code::NotInterrupted);
    // What was refused before it began is not noted.
    let notes = admin.audit().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    let noted = (&notes[0].act[..], &notes[0].mandate.who[..], &notes[0].mandate.why[..]);
    assert_eq!(noted, ("complete", "alice", "ticket81"));
    assert_eq!(
        (notes[0].scope, notes[0].key_hash.clone()),
        (Some(scope()), Some(Note::hash_of(&key)))
    );
}

#[test]
fn a_socket_is_for_its_user_and_takes_the_place_of_a_dead_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let path = Socket::path_in(directory.path().join("store"));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let entered = runtime.enter();
    // One that is left behind: it is bound, and nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let socket = Socket::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Socket::bind(&path).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let serving = runtime.spawn(Admin::new(store).serve_socket(socket));
    let ask = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        write!(stream, "GET /v1/status HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        answer(stream)
    };
    assert_eq!(ask().1["process"], std::process::id());
    serving.abort();
    assert!(runtime.block_on(serving).unwrap_err().is_cancelled());
    assert!(!path.exists(), "it goes with its server");
    // Another store's socket is at the path of one whose directory was moved.
    let old = Socket::bind(&path).unwrap();
    std::fs::rename(&path, directory.path().join("moved.sock")).unwrap();
    let new = Socket::bind(&path).unwrap();
    drop(old);
    assert!(path.exists());
    drop(new);
    assert!(!path.exists());
    let file = directory.path().join("notes");
    std::fs::write(&file, "mine").unwrap();
    assert_eq!(Socket::bind(&file).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    drop(entered);
}
