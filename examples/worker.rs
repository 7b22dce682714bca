//! A worker that places a call for each of its jobs, and may be killed at any moment.
//!
//! ```text
//! cargo run --release -p refrain-examples --example calls -- --listen 127.0.0.1:8080 --store DIR
//! cargo run --release -p refrain-examples --features client --example worker -- \
//!     --server http://127.0.0.1:8080 --journal DIR --results FILE invoice-41 invoice-42
//! ```
//!
//! Started again with the same jobs, it continues where it stopped. The results have the outcomes
//! that are known. The journal has the key and the request of each job without an outcome, and the
//! server runs each key once. An answer that says nothing of the job, such as 401 or 500, is no
//! outcome: the job stays open, and the worker fails when it has tried the others. While the server
//! is away, the worker retries silently for about half a minute.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use refrain::client::{Body, Call, ClientLayer, Failure, Journal, JournalEntry, JournalError};
use tower::{Layer, ServiceExt};

/// Places a call for each job, once.
#[derive(Parser)]
#[command(name = "worker", version)]
struct Options {
    /// The address of the reference server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: Uri,
    /// The directory of the journal. It is created if it is missing; its parent must exist.
    #[arg(long)]
    journal: PathBuf,
    /// The file of the results, a line for each job.
    #[arg(long)]
    results: PathBuf,
    /// The time that an answer may take.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Stops for ever at this step of each job, to be killed there.
    #[arg(long, value_enum)]
    stop_at: Option<Step>,
    /// The names of the jobs.
    #[arg(required = true)]
    jobs: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The key is in the journal, and nothing was sent.
    Keyed,
    /// The answer has arrived, and only this process has it.
    Answered,
    /// The answer is in the results, and the job is still in the journal.
    Recorded,
}

type Sender = refrain::client::Client<Client<HttpConnector, Body>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match work(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |&cause| cause.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            tell(&format!("{error}{causes}"));
            ExitCode::FAILURE
        }
    }
}

fn tell(line: &str) {
    // If the other end is closed, nobody reads it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

async fn work(options: &Options) -> Result<(), Box<dyn Error>> {
    let journal = Journal::open(&options.journal)?;
    // One connection for each attempt, because a worker's calls are rare.
    let hyper = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let layer = ClientLayer::new().attempt_timeout(options.timeout).max_attempts(10);
    let client = layer.layer(hyper);
    let mut open = 0;
    for job in &options.jobs {
        if options.is_known(job)? {
            // The process that wrote the line may have been killed before the line was durable.
            File::open(&options.results)?.sync_all()?;
            journal.done(job).await?;
        } else if let Err(reason) = settle(options, &client, &journal, job).await? {
            open += 1;
            tell(&format!("{job} stays open: {reason}"));
        }
    }
    for job in journal.jobs().await?.iter().filter(|job| !options.jobs.contains(&job.name)) {
        tell(&format!("{} has been open for {:?}: {:?}", job.name, job.age, job.state));
    }
    if open > 0 { Err(format!("{open} jobs stay open").into()) } else { Ok(()) }
}

/// Places the call of a job, and keeps its outcome; or returns the reason why that is not known.
async fn settle(
    options: &Options,
    client: &Sender,
    journal: &Journal,
    job: &str,
) -> Result<Result<(), String>, Box<dyn Error>> {
    let order = r#"{"caller_id": "+14155551234", "destination": "+14155556789"}"#;
    let entry = match journal.key_for(job, order).await {
        Ok(entry) => entry,
        Err(error @ JournalError::WindowPassed { .. }) => {
            let advice = "find out what became of it, and write that into the results";
            return Ok(Err(format!("{error}; {advice}")));
        }
        Err(error) => return Err(error.into()),
    };
    options.reach(Step::Keyed).await;
    let outcome = match place(options, client.clone(), &entry).await? {
        Ok(outcome) => outcome,
        Err(reason) => return Ok(Err(reason)),
    };
    options.reach(Step::Answered).await;
    // The outcome is kept first; only then is the job done.
    options.record(job, &outcome)?;
    options.reach(Step::Recorded).await;
    entry.done().await?;
    Ok(Ok(()))
}

impl Options {
    fn is_known(&self, job: &str) -> std::io::Result<bool> {
        match std::fs::read(&self.results).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        {
            // A line without an end was written by a process that was killed.
            Ok(results) => Ok(results.split_inclusive('\n').any(|line| {
                line.ends_with('\n')
                    && line.strip_prefix(job).is_some_and(|rest| rest.starts_with(": "))
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Appends a line. It is durable when this returns.
    fn record(&self, job: &str, outcome: &str) -> std::io::Result<()> {
        let mut results = File::options().append(true).create(true).open(&self.results)?;
        // On a line of its own, even after a line that a killed process did not finish.
        let end = match std::fs::read(&self.results)?.last() {
            None | Some(b'\n') => "",
            Some(_) => "\n",
        };
        results.write_all(format!("{end}{job}: {outcome}\n").as_bytes())?;
        results.sync_all()?;
        // The name of a new file must be durable too.
        match self.results.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }

    async fn reach(&self, step: Step) {
        if self.stop_at == Some(step) {
            // The process that kills this one reads this line first.
            let _ = writeln!(std::io::stdout(), "stopped");
            std::future::pending::<()>().await;
        }
    }
}

/// Sends the job's request under its key, and returns the outcome; or the reason why it is not
/// known.
async fn place(
    options: &Options,
    client: Sender,
    entry: &JournalEntry,
) -> Result<Result<String, String>, Box<dyn Error>> {
    let uri = format!("{}v1/calls", options.server);
    let request = Request::post(uri)
        .header("authorization", "Bearer YOUR_API_KEY")
        .header("content-type", "application/json")
        .header("idempotency-key", entry.key().as_str())
        .body(Full::new(Bytes::clone(entry.request())))?;
    match client.oneshot(request).await {
        Ok(response) => {
            let call = response.extensions().get::<Call>().cloned().unwrap_or_default();
            let status = response.status();
            let body = response.into_body().collect().await?;
            let replayed = if call.is_replay() { ", replayed" } else { "" };
            // On one line.
            let body = String::from_utf8_lossy(&body.to_bytes()).escape_debug().to_string();
            let answer = format!("{status}{replayed} {body}");
            Ok(if is_outcome(status) { Ok(answer) } else { Err(answer) })
        }
        Err(error) => match error.failure() {
            // It may have been placed or not, and sending it once more would not tell. The key is for
            // the person who finds out.
            Failure::Interrupted { .. } | Failure::OutcomeUnknown => {
                Ok(Ok(format!("unknown, under key {}: {error}", entry.key().as_str())))
            }
            Failure::ResultUnavailable { .. } => Ok(Ok(format!("placed: {error}"))),
            _ => Err(error.into()),
        },
    }
}

/// Returns true if the answer says what became of the job: it was placed, or it is wrong. Any other
/// is about the worker or the server, and a later attempt may have another.
fn is_outcome(status: StatusCode) -> bool {
    let is_temporary = matches!(status.as_u16(), 401 | 403 | 407 | 408 | 421 | 423 | 425 | 429);
    status.is_success() || (status.is_client_error() && !is_temporary)
}
