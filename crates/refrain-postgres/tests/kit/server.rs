//! A server of the tests' own.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};

use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

/// A server that ends with the program: its script reads from a pipe that the program holds.
pub(crate) struct Server {
    pub(crate) port: u16,
    script: Mutex<Script>,
}

struct Script {
    _process: Child,
    orders: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// The server that all tests of this program share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&["max_connections=400"]))
    }

    pub(crate) fn start(settings: &[&str]) -> Self {
        let port = free_port();
        let binaries = binaries().expect(
            "these tests need PostgreSQL's server: install postgresql, or name the directory of \
             its binaries in REFRAIN_POSTGRES",
        );
        let mut process = Command::new(script())
            .arg(binaries)
            .arg(port.to_string())
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let replies = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut script = Script { _process: process, orders, replies };
        script.until_done();
        Self { port, script: Mutex::new(script) }
    }

    /// Kills the server by SIGKILL.
    pub(crate) fn crash(&self) {
        self.order("crash");
    }

    /// Starts a server that has crashed.
    pub(crate) fn restart(&self) {
        self.order("start");
    }

    /// Starts a standby, which follows the server through another port. Returns the standby's own
    /// port. The server is shut down for a moment.
    pub(crate) fn start_standby(&self, through: u16) -> u16 {
        let port = free_port();
        self.order(&format!("standby {port} {through}"));
        port
    }

    pub(crate) fn promote_standby(&self) {
        self.order("promote");
    }

    /// Returns once the order has been carried out.
    fn order(&self, order: &str) {
        let mut script = self.script.lock().unwrap();
        writeln!(script.orders, "{order}").unwrap();
        script.until_done();
    }

    pub(crate) fn address(&self) -> String {
        address(self.port)
    }

    /// Runs statements beside the stores.
    pub(crate) fn run(&self, statements: &str) {
        let (port, statements) = (self.port, statements.to_owned());
        wait(async move { connect(port).await.unwrap().batch_execute(&statements).await.unwrap() });
    }

    /// Asks for one truth value.
    pub(crate) fn tells(&self, query: &str) -> bool {
        tells(self.port, query)
    }
}

/// Asks the server on a port for one truth value.
pub(crate) fn tells(port: u16, query: &str) -> bool {
    let query = query.to_owned();
    wait(async move {
        let client = connect(port).await.unwrap();
        client.query_one(&query, &[]).await.unwrap().get(0)
    })
}

impl Script {
    fn until_done(&mut self) {
        let reply = self.replies.next().expect("PostgreSQL does as it is told").unwrap();
        assert_eq!(reply, "done");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn address(port: u16) -> String {
    format!("postgres://refrain@127.0.0.1:{port}/postgres?sslmode=disable")
}

pub(crate) async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&address(port), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The runtime of what the tests themselves do.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

/// Waits for a future on that runtime, also where the caller is in another.
pub(crate) fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (reply, answer) = mpsc::channel();
    runtime().spawn(async move { reply.send(future.await) });
    answer.recv().expect("the future does not panic")
}

/// The directory of the newest installed version's binaries, or the one in `REFRAIN_POSTGRES`.
pub(crate) fn binaries() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("REFRAIN_POSTGRES") {
        return Some(named.into());
    }
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    installed.map(|entry| entry.path().join("bin")).filter(|bin| bin.is_dir()).max()
}

/// The script beside these files, also for a program of another package.
fn script() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = package.join("tests/server.sh");
    if own.exists() {
        return own;
    }
    package.join("../../crates/refrain-postgres/tests/server.sh")
}
