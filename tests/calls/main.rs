//! The reference server as a process, over real sockets, killed for real.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api;
mod binary;
mod client;
mod crash;
mod failures;
mod flight;
mod grammar;
mod ids;
mod replay;
mod server;
mod stopping;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

const BODY: &str = r#"{"caller_id": "+14155551234", "destination": "+14155556789"}"#;
const KEY: &str = "9b8cfa7a-1c2d-4a88-b3c0-1d2e3f4a5b6c";

struct Server {
    child: Child,
    address: String,
}

/// Where servers of one test keep their store and their journal.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn start(&self, options: &[&str]) -> Server {
        let mut child = Command::new(binary::path())
            .args(["--listen", "127.0.0.1:0", "--store"])
            .arg(self.0.path().join("store"))
            .arg("--journal")
            .arg(self.journal_path())
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Server { child, address }
    }

    fn journal_path(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    /// How many times a handler ran.
    fn executions(&self) -> usize {
        fs::read_to_string(self.journal_path()).unwrap_or_default().lines().count()
    }
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find_map(|header| header.split_once(": ").filter(|(n, _)| *n == name));
        found.map(|(_, value)| value)
    }

    fn is_replay(&self) -> bool {
        self.header("idempotency-replay") == Some("true")
    }

    fn code(&self) -> &str {
        self.body.split(r#""code":""#).nth(1).unwrap_or_default().split('"').next().unwrap()
    }
}

impl Server {
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!(
            "content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn call(&self, token: &str, key: &str, body: &str) -> Answer {
        let token = format!("Bearer {token}");
        let headers = [("authorization", token.as_str()), ("idempotency-key", key)];
        receive(self.send("POST", "/v1/calls", &headers, body)).unwrap()
    }

    /// Waits until a request with this key is in its handler. Asking must not run it: a body that is
    /// refused frees the key at once, should it come first.
    fn until_running(&self, key: &str) {
        while self.call("A", key, "{}").code() != "idempotency_in_progress" {
            thread::yield_now();
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and says whether it ended well.
    fn terminate(mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn receive(mut stream: TcpStream) -> Option<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, headers: lines.map(str::to_owned).collect(), body: body.to_owned() })
}

#[test]
fn the_contracts_example_is_placed_once_and_replayed_over_a_kill() {
    let home = Home::new();
    let server = home.start(&[]);
    let first = server.call("A", KEY, BODY);
    assert_eq!((first.status, first.is_replay()), (201, false));
    let lasting = |answer: &Answer| {
        let is_lasting = |header: &&String| {
            !["date: ", "x-request-id: ", "idempotency-replay: "]
                .iter()
                .any(|name| header.starts_with(name))
        };
        answer.headers.iter().filter(is_lasting).cloned().collect::<Vec<_>>()
    };
    let again = server.call("A", KEY, BODY);
    assert_eq!((again.status, &again.body, again.is_replay()), (201, &first.body, true));
    assert_eq!(lasting(&again), lasting(&first));
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));

    let other = server.call("A", KEY, &BODY.replace("6789", "0000"));
    let named = format!(r#""conflicts_with":"{}""#, first.header("x-request-id").unwrap());
    assert_eq!((other.status, other.code()), (409, "idempotency_conflict"));
    assert!(other.body.contains(&named), "{}", other.body);
    assert!(!server.call("B", KEY, BODY).is_replay(), "another token is another key");
    server.kill();

    let server = home.start(&[]);
    let after = server.call("A", KEY, BODY);
    assert_eq!((after.status, &after.body, after.is_replay()), (201, &first.body, true));
    assert_eq!(lasting(&after), lasting(&first));
    assert_eq!(home.executions(), 2);
}

#[test]
fn p8_two_hundred_concurrent_requests_run_once() {
    let home = Home::new();
    let server = home.start(&["--latency", "300ms"]);
    let answers: Vec<Answer> = thread::scope(|threads| {
        let calls: Vec<_> =
            (0..200).map(|_| threads.spawn(|| server.call("A", KEY, BODY))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(home.executions(), 1);
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.body == answers[0].body));
    assert_eq!(answers.iter().filter(|answer| answer.is_replay()).count(), 199);
}

#[test]
fn p15_a_client_that_hangs_up_cancels_nothing() {
    let home = Home::new();
    let server = home.start(&["--latency", "2s", "--wait", "200ms"]);
    let headers = [("authorization", "Bearer A"), ("idempotency-key", KEY)];
    let stream = server.send("POST", "/v1/calls", &headers, BODY);
    server.until_running(KEY);
    drop(stream);
    let retry = loop {
        let answer = server.call("A", KEY, BODY);
        if answer.code() != "idempotency_in_progress" {
            break answer;
        }
    };
    assert_eq!((retry.status, retry.is_replay(), home.executions()), (201, true, 1));
}

#[test]
fn p7_after_a_kill_in_mid_handler_the_retry_runs_or_is_told() {
    for (strict, status, code) in [(false, 201, ""), (true, 409, "idempotency_interrupted")] {
        let home = Home::new();
        let mut options = vec!["--latency", "1h", "--wait", "200ms"];
        let mut quick = vec![];
        if strict {
            options.push("--strict");
            quick.push("--strict");
        }
        let server = home.start(&options);
        let headers = [("authorization", "Bearer A"), ("idempotency-key", KEY)];
        let stream = server.send("POST", "/v1/calls", &headers, BODY);
        server.until_running(KEY);
        server.kill();
        drop(stream);
        let retry = home.start(&quick).call("A", KEY, BODY);
        assert_eq!((retry.status, retry.code()), (status, code), "strict: {strict}");
    }
}

#[test]
fn p9_a_key_runs_afresh_once_its_ttl_is_over() {
    let home = Home::new();
    let server = home.start(&["--ttl", "500ms"]);
    assert!(!server.call("A", KEY, BODY).is_replay());
    while server.call("A", KEY, BODY).is_replay() {
        thread::yield_now();
    }
    assert_eq!(home.executions(), 2);
}

#[test]
fn a_refused_call_frees_its_key() {
    let home = Home::new();
    let server = home.start(&[]);
    let invalid = server.call("A", KEY, &BODY.replace("+14155551234", "4155551234"));
    assert_eq!((invalid.status, invalid.code()), (400, "validation_error"));
    assert!(invalid.body.contains("Expected +<country><number>"), "{}", invalid.body);
    assert_eq!(home.executions(), 0);
    let unverified = server.call("A", KEY, &BODY.replace("+1415555123", "+1999555123"));
    assert_eq!((unverified.status, unverified.code()), (422, "caller_id_not_verified"));
    assert_eq!(home.executions(), 1, "the carrier was asked");
    assert_eq!(server.call("A", KEY, BODY).status, 201);
}

#[test]
fn every_error_comes_in_the_envelope_with_a_request_id() {
    let home = Home::new();
    let server = home.start(&[]);
    let bearer = [("authorization", "Bearer A")];
    let send = |method, path, headers: &[(&str, &str)], body| {
        receive(server.send(method, path, headers, body)).unwrap()
    };
    for (answer, status, code) in [
        (send("POST", "/v1/calls", &[], BODY), 401, "unauthorized"),
        (send("POST", "/v1/calls", &bearer, "{"), 400, "validation_error"),
        (send("GET", "/v1/calls/none", &bearer, ""), 404, "not_found"),
        (send("GET", "/nowhere", &bearer, ""), 404, "not_found"),
        (server.call("A", "a b", BODY), 400, "idempotency_key_invalid"),
    ] {
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
        assert!(answer.header("x-request-id").is_some(), "{}", answer.body);
    }
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    let home = Home::new();
    let server = home.start(&["--latency", "2s", "--wait", "200ms"]);
    let headers = [("authorization", "Bearer A"), ("idempotency-key", KEY)];
    let stream = server.send("POST", "/v1/calls", &headers, BODY);
    server.until_running(KEY);
    assert!(server.terminate());
    let answer = receive(stream).unwrap();
    assert_eq!((answer.status, answer.is_replay()), (201, false));
    assert!(home.start(&[]).call("A", KEY, BODY).is_replay());
}
