//! A running reference server, and what outlives it.

use std::ffi::OsStr;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::Deref;
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

/// The time that anything may take before the test has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause between two looks at a condition.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// The lease in a database: long enough for a busy machine, and shorter than the default `--wait`.
const LEASE: &str = "2s";

/// The store and the journal, which survive the server. The store is a directory, or is in the
/// database whose address is in `REFRAIN_CALLS_STORE`.
pub(crate) struct Home {
    dir: TempDir,
    database: Option<String>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::over(std::env::var("REFRAIN_CALLS_STORE").ok())
    }

    pub(crate) fn over(database: Option<String>) -> Self {
        // Its name is the schema's too.
        let dir = tempfile::Builder::new().prefix("home_").tempdir().unwrap();
        Self { dir, database }
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Server {
        Server::start(self.command(arguments))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        match &self.database {
            Some(address) => self.command_over(address, arguments),
            None => self.command_with_store(self.store_path(), arguments),
        }
    }

    /// The command of a server whose store is in a database.
    pub(crate) fn command_over(&self, address: &str, arguments: &[&str]) -> Command {
        let mut command = self.command_with_store(address, arguments);
        command.args(["--schema", &self.schema()]);
        if !arguments.contains(&"--lease") {
            command.args(["--lease", LEASE]);
        }
        command
    }

    fn command_with_store(&self, store: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary::path());
        command.args(["--listen", "127.0.0.1:0", "--store"]).arg(store);
        command.arg("--journal").arg(self.journal_path()).args(arguments);
        command
    }

    /// Waits until a claim that a server has made is in the database too, by asking another server.
    /// A directory has no other.
    pub(crate) async fn until_claimed(&self, key: &str) {
        if self.database.is_some() {
            self.start(&["--wait", "1ms"]).until_in_progress(key).await;
        }
    }

    /// A schema of this home's own.
    pub(crate) fn schema(&self) -> String {
        self.dir.path().file_name().unwrap().to_str().unwrap().to_lowercase()
    }

    /// The lines that reached the carrier, in order.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.journal_path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The directory of the store, unless it is in a database.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.dir.path().join("journal")
    }
}

/// The address of a server that requests are sent to.
#[derive(Clone, Copy)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
}

impl Door {
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
        self.hold_with(key, request_id, CALL).await
    }

    pub(crate) async fn hold_with(
        &self,
        key: &str,
        request_id: &str,
        body: &str,
    ) -> JoinHandle<Option<Answer>> {
        let address = self.address;
        let mut request = keyed(key, body);
        request.headers_mut().insert("x-request-id", request_id.parse().unwrap());
        // It may find the key held by the question below, hence the patience.
        let holder =
            tokio::spawn(async move { client::send_patiently(address, request).await.ok() });
        self.until_in_progress(key).await;
        // In the strict mode the claim may still be on its way to the disk. This makes another, and
        // frees it, both of them later.
        self.place("another-key", "{}").await;
        holder
    }

    /// Waits until the server says that a request with the key is running.
    async fn until_in_progress(&self, key: &str) {
        within(async {
            // A body that is refused before it has any effect, should the key be free.
            while self.place(key, "{}").await.code() != "idempotency_in_progress" {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
    }
}

/// A process that serves. Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    door: Door,
}

impl Server {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.expect("it says where it listens").parse().unwrap();
        Self { child, door: Door { address } }
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

impl Deref for Server {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns true if homes are in a database, to which the test at hand does not apply. If they are,
/// says so past the capture of a test's output.
pub(crate) fn is_skipped_over_a_database(reason: &str) -> bool {
    let is_skipped = std::env::var_os("REFRAIN_CALLS_STORE").is_some();
    if is_skipped {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    }
    is_skipped
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it does not take so long")
}

/// A body without more to it than its bytes.
pub(crate) fn whole(body: &str) -> Full<Bytes> {
    Full::new(Bytes::copy_from_slice(body.as_bytes()))
}
