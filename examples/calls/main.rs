//! The reference server: an API that places calls, each of them once.
//!
//! ```text
//! cargo run --release -p refrain-examples --example calls -- --listen 127.0.0.1:8080 --store DIR
//! ```
//!
//! With `--features postgres`, several of them share a store: `--store postgres://USER@HOST/NAME`.
//!
//! [`app`] joins the layers, [`calls`] handles requests, and [`carrier`] is the world outside: its
//! journal has two lines for an effect that happens twice.

mod account;
mod advice;
mod app;
mod book;
mod calls;
mod carrier;
mod failure;
mod manner;
mod number;
mod operators;
mod process;
mod readiness;
mod recorder;
mod refusal;
mod storage;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use refrain::Store;
use refrain::server::{IdempotencyLayer, KeepPolicy, OnInterrupted};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::carrier::Carrier;
use crate::failure::Failure;
use crate::manner::Manner;
use crate::operators::Operators;
use crate::storage::Storage;

/// The time that clients may take to finish their requests once the server stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
/// The time that handlers whose clients are gone may take after that.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// Places calls over HTTP, once for each idempotency key. The calls themselves are in memory: after
/// a restart their answers are replayed, and a lookup finds none of them.
#[derive(Parser)]
#[command(name = "calls", version)]
struct Options {
    /// The IP address and port to listen on; port 0 takes any that is free.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    storage: Storage,
    #[command(flatten)]
    operators: Operators,
    /// The time that a request waits for another one that holds its key.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// The time that the carrier takes to answer.
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Refuses a retry after a crash in mid-handler instead of running the handler again.
    #[arg(long)]
    strict: bool,
    /// The dialect of the server.
    #[arg(long, value_enum, default_value = "revdesk")]
    dialect: Manner,
    /// The answers that are kept and replayed.
    #[arg(long, value_enum, default_value = "success")]
    store_policy: Kept,
    /// A file to which the carrier appends a line for each request that reaches it.
    #[arg(long)]
    journal: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kept {
    /// 2xx and 3xx.
    Success,
    /// Those, and 4xx that the same request would get again.
    Deterministic,
    /// All.
    All,
}

impl From<Kept> for KeepPolicy {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Success => Self::Success,
            Kept::Deterministic => Self::Deterministic,
            Kept::All => Self::All,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal, and closes the store.
async fn serve(options: Options) -> Result<(), Failure> {
    process::raise_open_files();
    process::outlive_file_sizes().map_err(Failure::Signals)?;
    let recorder = options.operators.record_metrics()?;
    let store = options.storage.open().await?;
    let mut layer =
        IdempotencyLayer::new(store.clone()).wait(options.wait).keep(options.store_policy.into());
    if options.strict {
        layer = layer.on_interrupted(OnInterrupted::Refuse);
    }
    let carrier = Carrier::new(options.latency, options.journal)?;
    let app = app::router(layer, store.clone(), carrier, options.dialect);
    let failed = |source| Failure::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let desk = options.operators.open(options.storage.directory()).await?;
    let stop = Stop::listen().map_err(Failure::Signals)?;
    announce(address).map_err(Failure::Announce)?;

    let (draining, drain) = oneshot::channel::<()>();
    let stopped = async move {
        stop.requested().await;
        drop(draining);
    };
    let overdue = async move {
        // Nothing is ever sent: this ends when the sender is dropped.
        let _ = drain.await;
        tokio::time::sleep(DRAIN_WITHIN).await;
    };
    tokio::select! {
        served = axum::serve(listener, app).with_graceful_shutdown(stopped) => {
            served.map_err(Failure::Serve)?;
        }
        // A client that never ends its request must not keep the server from ending.
        () = overdue => {}
        never = desk.serve(store.clone(), recorder) => match never {},
    }
    close(store).await
}

/// Prints the address that the server listens on, which port 0 leaves open.
fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    out.flush()
}

/// Waits for the handlers that still run.
async fn close(store: Store) -> Result<(), Failure> {
    match store.close(CLOSE_WITHIN).await.map_err(Failure::Close)? {
        0 => Ok(()),
        stragglers => {
            failure::warn(&format!("{stragglers} requests were cut off"));
            Ok(())
        }
    }
}

/// The signals that stop the server.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn requested(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
