//! A home with a store that was filled, and the runs of the command there.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::admin::{Admin, Socket};
use refrain::{Fingerprint, Operation, Outcome, Permit, Scope, Store};
use tempfile::TempDir;

/// The API key whose keys are in the store, and in the file `api-key`.
pub(crate) const API_KEY: &str = "sk_live_51";
/// Names the store that [`Holder`] holds to its process.
const HOLD: &str = "REFRAIN_TEST_HOLD";
/// Says how it is held.
const HOW: &str = "REFRAIN_TEST_HOW";
const SERVE: &str = "serve";

/// A directory with a store in `store`, where commands run.
pub(crate) struct Home(TempDir);

/// The end of a command.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) error: String,
}

impl Home {
    /// A home without a store.
    pub(crate) fn empty() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        std::fs::write(home.path().join("api-key"), format!("{API_KEY}\n")).unwrap();
        home
    }

    /// A home with a store in which each kind of key is.
    pub(crate) fn filled() -> Self {
        let home = Self::empty();
        let store = home.open();
        let json = Response::builder()
            .status(201)
            .header("content-type", "application/json")
            .body(r#"{"id":"call_81","to":"+14155556789","price":1.50}"#.into());
        complete(&store, "call-1", &json.unwrap());
        let text = Response::builder().status(402).header("content-type", "text/plain");
        complete(&store, "call-2", &text.body("the account is empty\n".into()).unwrap());
        complete(&store, "upload-7", &Response::new(Bytes::from_static(b"\xff\xd8\x1b[31m\xff")));
        begin(&store, "stream-3").complete_without_response().wait().unwrap();
        drop(begin(&store, "payment-9"));
        store.close(Duration::from_secs(10)).wait().unwrap();
        home
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(self.store()).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Runs the command on the store, off a terminal and without input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Runs the command with some input.
    pub(crate) fn run_with(&self, input: &str, arguments: &[&str]) -> Run {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that refuses its arguments may have ended before it reads.
        let written = child.stdin.take().unwrap().write_all(input.as_bytes());
        if let Err(error) = written {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        }
        Run::from(child.wait_with_output().unwrap())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refrain"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command.env("REFRAIN_STORE", "store").env("TZ", "UTC");
        command.env("USER", "alice").env_remove("SUDO_USER");
        command
    }
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// The output of a run that has done its work, and had nothing else to say.
    pub(crate) fn done(self) -> String {
        assert_eq!((self.code, self.error.as_str()), (0, ""), "{self:?}");
        self.out
    }

    /// The JSON of a run that has done its work.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// The one sentence of a run that ended with this code, and printed nothing.
    pub(crate) fn refusal(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        self.sentence()
    }

    /// The one sentence of a run that failed.
    pub(crate) fn sentence(self) -> String {
        let sentence = self.error.strip_prefix("refrain: ").expect("it says who it is");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        sentence.trim_end().to_owned()
    }
}

impl From<std::process::Output> for Run {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            bytes: output.stdout,
            error: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Claims a key durably, for the request that is named after it.
pub(crate) fn begin(store: &Store, key: &str) -> Permit {
    match store.begin(&operation(key)).wait().unwrap() {
        Outcome::Execute(permit) => permit,
        other => panic!("{key} is not new: {other:?}"),
    }
}

fn operation(key: &str) -> Operation {
    let fingerprint = Fingerprint::of(["POST", "/v1/calls", key]);
    let request = format!("req_{key}").parse().unwrap();
    Operation::new(scope(), key.parse().unwrap(), fingerprint).request_id(request).durable()
}

pub(crate) fn complete(store: &Store, key: &str, response: &Response<Bytes>) {
    begin(store, key).complete(response).wait().unwrap();
}

pub(crate) fn scope() -> Scope {
    Scope::from_api_key(API_KEY)
}

/// Another process that has the store open for as long as this lives.
pub(crate) struct Holder {
    pub(crate) process: Child,
    _input: ChildStdin,
}

impl Holder {
    /// One that answers nobody.
    pub(crate) fn of(store: &Path) -> Self {
        Self::start(store, "")
    }

    /// One that answers operators on the store's socket, and has `call-9` in flight.
    pub(crate) fn serving(store: &Path) -> Self {
        Self::start(store, SERVE)
    }

    fn start(store: &Path, how: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kit::holds_a_store_until_its_input_ends", "--nocapture"]);
        command.env(HOLD, store).env(HOW, how).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("it is open")));
        let input = process.stdin.take().unwrap();
        Self { process, _input: input }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process of a [`Holder`], and nothing in a run of the tests.
#[test]
fn holds_a_store_until_its_input_ends() {
    let Some(store) = std::env::var_os(HOLD) else { return };
    let open = Store::open_existing(&store).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _flight = std::env::var(HOW).is_ok_and(|how| how == SERVE).then(|| {
        let _entered = runtime.enter();
        let socket = Socket::bind(Socket::path_in(&store)).unwrap();
        runtime.spawn(Admin::new(open.clone()).serve_socket(socket));
        open.begin(&operation("call-9")).wait().unwrap()
    });
    println!("it is open");
    let _ = std::io::stdin().lines().count();
}
