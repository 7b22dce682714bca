//! A running reference server, and the directory that outlives it.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Body;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::binary;
use crate::client::{self, Answer, CALL, keyed};

/// How long anything may take before the test has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// How long to leave a condition alone before it is looked at again.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// What survives the server: its store and its journal.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Server {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.expect("it says where it listens").parse().unwrap();
        Server { child, address }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary::path());
        command.args(["--listen", "127.0.0.1:0", "--store"]).arg(self.0.path().join("store"));
        command.arg("--journal").arg(self.journal_path()).args(arguments);
        command
    }

    /// What reached the carrier, in order.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.journal_path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.0.path().join("journal")
    }
}

/// A process that serves. Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn send<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        within(client::send(self.address, request)).await.unwrap()
    }

    /// Places a call under a key.
    pub(crate) async fn place(&self, key: &str, body: &str) -> Answer {
        self.send(keyed(key, body)).await
    }

    /// Has a client place the example's call under a key, and returns once its handler runs. The
    /// server must have a shorter `--wait` than `--latency`.
    pub(crate) async fn hold(&self, key: &str, request_id: &str) -> JoinHandle<Option<Answer>> {
        let address = self.address;
        let mut request = keyed(key, CALL);
        request.headers_mut().insert("x-request-id", request_id.parse().unwrap());
        // It may find the key held by the question below, hence the patience.
        let holder =
            tokio::spawn(async move { client::send_patiently(address, request).await.ok() });
        within(async {
            // A body that is refused before it has any effect, should the key be free.
            while self.place(key, "{}").await.code() != "idempotency_in_progress" {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
        // In the strict mode the claim may still be on its way to the disk. This makes another, and
        // frees it, both of them later.
        self.place("another-key", "{}").await;
        holder
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) async fn exit(mut self) -> ExitStatus {
        within(async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(PAUSE).await,
                }
            }
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it does not take so long")
}

/// A body without more to it than its bytes.
pub(crate) fn whole(body: &str) -> Full<Bytes> {
    Full::new(Bytes::copy_from_slice(body.as_bytes()))
}
