//! The example `accounts`, killed at each step of a transfer: money moves exactly once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../kit/mod.rs"]
mod kit;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use kit::room::until;
use kit::server::{Server, runtime};

/// The longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(30);

/// A node of the example.
struct Node {
    address: String,
    process: Child,
    stdout: BufReader<ChildStdout>,
}

impl Node {
    fn start(program: &PathBuf, database: &str, stop_at: &str) -> Self {
        let mut process = Command::new(program)
            .args([database, "127.0.0.1:0"])
            .env("ACCOUNTS_STOP_AT", stop_at)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let mut node = Self { address: String::new(), process, stdout };
        node.address = node.says("listening on ");
        node
    }

    /// Reads up to a line that begins so, and returns the rest of it.
    fn says(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some(rest) = line.trim_end().strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks for a transfer of 5. None if the connection broke.
fn transfer(node: &str, key: &str) -> Option<(u16, bool, String)> {
    let body = r#"{"from": 1, "to": 2, "amount": 5}"#;
    let mut stream = TcpStream::connect(node).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        stream,
        "POST /transfers HTTP/1.1\r\nhost: bank\r\nconnection: close\r\n\
         authorization: Bearer me\r\nidempotency-key: {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.contains("idempotency-replay: true"), body.to_owned()))
}

/// Builds the example and returns its path.
fn example() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", "accounts", "--features", "server"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .status()
        .unwrap();
    assert!(built.success());
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/accounts")
}

fn balances() -> (i64, i64) {
    let client = kit::room::client();
    let asked = client.query("SELECT balance FROM accounts ORDER BY id", &[]);
    let rows = runtime().block_on(asked).unwrap();
    (rows[0].get(0), rows[1].get(0))
}

#[test]
fn money_moves_exactly_once_whenever_its_node_is_killed() {
    let program = example();
    let database = Server::shared().address();
    let survivor = Node::start(&program, &database, "");
    let steps = ["before_begin", "after_update", "after_complete", "after_commit"];
    for (moved, step) in (0..).zip(steps) {
        let before = balances();
        assert_eq!(before, (100 - 5 * moved, 100 + 5 * moved), "{step}");
        let mut victim = Node::start(&program, &database, step);
        let asked = {
            let node = victim.address.clone();
            std::thread::Builder::new().spawn(move || transfer(&node, step)).unwrap()
        };
        victim.says("at ");
        victim.kill();
        assert_eq!(asked.join().unwrap(), None, "nobody was answered");
        let is_committed = step == "after_commit";
        until("the database has noticed", || {
            let after = balances();
            after == if is_committed { (before.0 - 5, before.1 + 5) } else { before }
        });

        // The client asks again, of whoever answers, until it is told.
        let mut told = None;
        until("the transfer is answered", || {
            told = transfer(&survivor.address, step).filter(|(status, ..)| *status == 201);
            told.is_some()
        });
        let (_, is_replayed, receipt) = told.unwrap();
        assert_eq!(is_replayed, is_committed, "{step}");
        assert!(receipt.starts_with("5 from 1 to 2, by "), "{receipt}");
        assert_eq!(balances(), (before.0 - 5, before.1 + 5), "{step}");

        // And a node that was started anew says the same.
        let again = Node::start(&program, &database, "");
        assert_eq!(transfer(&again.address, step), Some((201, true, receipt)));
        assert_eq!(balances().0 + balances().1, 200);
    }
}
