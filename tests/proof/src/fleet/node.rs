//! A node: it does with its store what its parent tells it, and replies with the store's answers.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use refrain::{
    Attempt, Error, Fingerprint, Key, Operation, Outcome, Permit, Record, Result, Scope, Store,
};
use refrain_postgres::Postgres;
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::words::{Answer, Ask, Begin, Call, Name, Number, READY, Reply, Seen};

const ADDRESS: &str = "REFRAIN_FLEET_ADDRESS";
const NODE: &str = "REFRAIN_FLEET_NODE";
const SCHEMA: &str = "REFRAIN_FLEET_SCHEMA";
const TTL: &str = "REFRAIN_FLEET_TTL";

/// The lease of a node.
pub(super) const LEASE: Duration = Duration::from_millis(400);
/// The time that the database may take for one call.
pub(super) const PATIENCE: Duration = Duration::from_millis(600);
const CONNECTIONS: usize = 6;

/// The settings of a node, which it gets through its environment.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) address: String,
    pub(super) node: String,
    pub(super) schema: String,
    pub(super) ttl: Duration,
}

/// Returns true if this process was started to be a node.
pub fn is_node() -> bool {
    std::env::var_os(NODE).is_some()
}

impl Settings {
    /// The environment that gives a new process these settings.
    pub(super) fn environment(&self) -> [(&'static str, String); 4] {
        [
            (ADDRESS, self.address.clone()),
            (NODE, self.node.clone()),
            (SCHEMA, self.schema.clone()),
            (TTL, self.ttl.as_millis().to_string()),
        ]
    }

    fn from_environment() -> io::Result<Self> {
        let setting = |name| std::env::var(name).map_err(|_| io::Error::other(name));
        let ttl = setting(TTL)?.parse().map_err(|_| io::Error::other(TTL))?;
        let (address, node, schema) = (setting(ADDRESS)?, setting(NODE)?, setting(SCHEMA)?);
        Ok(Self { address, node, schema, ttl: Duration::from_millis(ttl) })
    }

    /// The builder of the node's store.
    pub(super) fn builder(&self) -> refrain_postgres::Builder {
        Postgres::builder()
            .schema(&self.schema)
            .node(&self.node)
            .ttl(self.ttl)
            .lease(LEASE)
            .patience(PATIENCE)
            .connections(CONNECTIONS)
    }
}

/// Works until standard input ends.
///
/// # Errors
///
/// If the environment is not as a parent sets it, or the store cannot be opened.
pub fn node_main() -> io::Result<()> {
    // A node that is stopped does not notice that its parent has gone.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let settings = Settings::from_environment()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = settings.builder().connect(&settings.address).await;
        let store = store.map_err(io::Error::other)?;
        say(READY);
        let mut calls = calls()?;
        let node = Arc::new(Node { store, held: Mutex::default() });
        while let Some(call) = calls.recv().await {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.reply(call).await });
        }
        Ok(())
    })
}

/// The lines of standard input, read by a thread of their own.
fn calls() -> io::Result<mpsc::UnboundedReceiver<Call>> {
    let (send, calls) = mpsc::unbounded_channel();
    let read = move || {
        for line in io::stdin().lock().lines() {
            let Ok(call) = line.and_then(|line| Ok(serde_json::from_str(&line)?)) else { return };
            if send.send(call).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("calls".into()).spawn(read)?;
    Ok(calls)
}

fn say(line: &str) {
    // A parent that is gone has ended this process too.
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
    let _ = io::stdout().flush();
}

struct Node {
    store: Store,
    /// By the number of the call that was answered with them.
    held: Mutex<HashMap<Number, Held>>,
}

enum Held {
    Permit(Permit),
    Attempt(Attempt),
}

impl Node {
    async fn reply(&self, Call { number, ask }: Call) {
        #[expect(clippy::disallowed_methods, reason = "the time of a call is judged")]
        let since = Instant::now();
        let answer = self.answer(number, ask).await.unwrap_or_else(refusal);
        let took_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let reply = Reply { number, took_ms, answer };
        say(&serde_json::to_string(&reply).expect("a reply is plain data"));
    }

    async fn answer(&self, number: Number, ask: Ask) -> Result<Answer> {
        match ask {
            Ask::Begin(begin) => self.begin(number, &begin).await,
            Ask::Get { name } => {
                let (scope, key) = address(name);
                let found = self.store.get(scope, &key).await?;
                Ok(found.map_or(Answer::NoRecord, |record| Answer::Record(seen(&record))))
            }
            Ask::Complete { held, response } => {
                let ticket = match (self.take(held), response.map(whole)) {
                    (Held::Permit(permit), Some(response)) => permit.complete(&response),
                    (Held::Permit(permit), None) => permit.complete_without_response(),
                    (Held::Attempt(attempt), Some(response)) => attempt.complete(&response),
                    (Held::Attempt(attempt), None) => attempt.complete_without_response(),
                };
                Ok(Answer::Record(seen(&ticket.await?)))
            }
            Ask::Release { held } => {
                let ticket = match self.take(held) {
                    Held::Permit(permit) => permit.release(),
                    Held::Attempt(attempt) => attempt.release(),
                };
                ticket.await.map(|()| Answer::Done)
            }
            Ask::Interrupt { held } => match self.take(held) {
                Held::Permit(permit) => permit.interrupt().await.map(|()| Answer::Done),
                Held::Attempt(_) => Ok(Answer::Wrong("an attempt is interrupted already".into())),
            },
            Ask::Checkpoint { held, data } => {
                let ticket = match self.held.lock().get_mut(&held) {
                    Some(Held::Permit(permit)) => permit.checkpoint(data),
                    _ => return Ok(Answer::Wrong("no permit is held".into())),
                };
                ticket.await.map(|()| Answer::Done)
            }
            Ask::Retry { held } => match self.take(held) {
                Held::Attempt(attempt) => Ok(self.hold(held, attempt.retry().await?)),
                Held::Permit(_) => Ok(Answer::Wrong("a permit runs already".into())),
            },
            Ask::Drop { held } => {
                drop(self.take(held));
                Ok(Answer::Done)
            }
            Ask::InFlight => Ok(Answer::Count(self.store.stats().in_flight)),
        }
    }

    async fn begin(&self, number: Number, begin: &Begin) -> Result<Answer> {
        let mut waiting = self.store.begin(&operation(begin));
        let deadline = Duration::from_millis(begin.deadline_ms);
        if let Some(gone_after) = begin.gone_after_ms.map(Duration::from_millis) {
            return match tokio::time::timeout(gone_after, waiting).await {
                Ok(outcome) => Ok(self.outcome(number, outcome?)),
                Err(_) => Ok(Answer::Gone),
            };
        }
        let outcome = match tokio::time::timeout(deadline, &mut waiting).await {
            Ok(outcome) => outcome,
            Err(_) => {
                waiting.give_up();
                waiting.await
            }
        };
        Ok(self.outcome(number, outcome?))
    }

    fn outcome(&self, number: Number, outcome: Outcome) -> Answer {
        match outcome {
            Outcome::Execute(permit) => self.hold(number, permit),
            Outcome::Interrupted(attempt) => {
                let answer = Answer::Interrupted {
                    request: attempt.request_id().to_string(),
                    attempt: attempt.number(),
                    checkpoints: texts(attempt.checkpoints()),
                };
                self.held.lock().insert(number, Held::Attempt(attempt));
                answer
            }
            Outcome::Replay(record) => Answer::Record(seen(&record)),
            Outcome::Conflict { original, .. } => {
                Answer::Conflict { original: original.to_string() }
            }
            Outcome::InFlight { holder } => Answer::InFlight { holder: holder.to_string() },
        }
    }

    fn hold(&self, number: Number, permit: Permit) -> Answer {
        let answer =
            Answer::Run { attempt: permit.attempt(), checkpoints: texts(permit.checkpoints()) };
        self.held.lock().insert(number, Held::Permit(permit));
        answer
    }

    fn take(&self, number: Number) -> Held {
        self.held.lock().remove(&number).expect("a parent names what it holds")
    }
}

fn refusal(error: Error) -> Answer {
    match error {
        Error::Fenced => Answer::Fenced,
        Error::Limit { .. } => Answer::Limited,
        Error::Unavailable { source, .. } => Answer::Unavailable(source.to_string()),
        error => Answer::Wrong(format!("{error:?}")),
    }
}

fn address((history, key): Name) -> (Scope, Key) {
    let key = format!("key-{key}").parse().expect("letters, digits and a dash");
    (Scope::from_api_key(format!("history {history}")), key)
}

fn operation(begin: &Begin) -> Operation {
    let (scope, key) = address(begin.name);
    let operation = Operation::new(scope, key, Fingerprint::of([[begin.fingerprint]]))
        .request_id(begin.request.parse().expect("a parent names requests"))
        .ttl(Duration::from_millis(begin.ttl_ms));
    if begin.is_durable { operation.durable() } else { operation }
}

fn texts(checkpoints: &[Bytes]) -> Vec<String> {
    checkpoints.iter().map(|data| String::from_utf8_lossy(data).into_owned()).collect()
}

/// A response of several parts, each of which must come back.
fn whole(text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = StatusCode::CREATED;
    let length = response.body().len().into();
    response.headers_mut().insert("x-length", length);
    response
}

fn seen(record: &Record) -> Seen {
    let response = record.response().map(|response| {
        let body = String::from_utf8_lossy(response.body()).into_owned();
        let expected = whole(body.clone());
        let is_whole =
            response.status() == expected.status() && response.headers() == expected.headers();
        if is_whole { body } else { format!("damaged: {response:?}") }
    });
    Seen {
        request: record.request_id().to_string(),
        response,
        completed_ms: millis(record.completed_at()),
        expires_ms: millis(record.expires_at()),
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
