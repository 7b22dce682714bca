//! refrain over PostgreSQL beside the single statements that people write instead.
//!
//! ```text
//! cargo run --release --manifest-path benches/rivals/fleet/Cargo.toml
//! ```
//!
//! One server, which this program starts, serves all contenders. Rounds are interleaved: one of
//! each contender, and again. So whatever a shared machine does to one of them it does to all.

mod cpu;
mod load;
mod pooled;
mod refrain_store;
mod server;
mod steady;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use load::{Contender, Figures, Work};
use server::Server;

/// Measures refrain over PostgreSQL beside pooled single statements.
#[derive(Parser)]
struct Args {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests in flight.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    in_flight: Vec<usize>,
    /// The kinds of requests.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::Fresh, Work::Replay])]
    work: Vec<Work>,
    /// The contenders.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::value_variants().to_vec())]
    only: Vec<Kind>,
    /// Instead of all this, keeps a store at a steady state for so many minutes.
    #[arg(long)]
    steady: Option<u64>,
    /// Requests a second at the steady state.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// The seconds after which a record expires there.
    #[arg(long, default_value_t = 60)]
    ttl: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// refrain over PostgreSQL, as it comes.
    Refrain,
    /// The same on the runtime of the program.
    Guest,
    /// Prepared single statements on a pool of 16 connections.
    Pool16,
    /// The same on 32 connections.
    Pool32,
}

impl Kind {
    async fn open(self, server: &Server) -> Result<Contender> {
        Ok(match self {
            Self::Refrain => Contender::Refrain(refrain_store::open(server, false).await?, 0),
            Self::Guest => Contender::Refrain(refrain_store::open(server, true).await?, 1),
            Self::Pool16 => Contender::Pooled(pooled::Pooled::open(server, 16).await?),
            Self::Pool32 => Contender::Pooled(pooled::Pooled::open(server, 32).await?),
        })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let server = Server::start().await?;
    if let Some(minutes) = args.steady {
        return steady::run(&server, minutes, args.rate, Duration::from_secs(args.ttl)).await;
    }
    let mut contenders = Vec::new();
    for kind in &args.only {
        let contender = kind.open(&server).await?;
        if args.work.contains(&Work::Replay) {
            contender.prepare().await?;
        }
        contenders.push((*kind, Arc::new(contender)));
    }
    for work in &args.work {
        for in_flight in &args.in_flight {
            let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); contenders.len()];
            for _ in 0..args.rounds {
                for ((_, contender), figures) in contenders.iter().zip(&mut rounds) {
                    figures.push(
                        load::run(&server, contender, *work, *in_flight, args.seconds).await?,
                    );
                }
            }
            println!("{work:?}, {in_flight} in flight");
            for ((kind, _), figures) in contenders.iter().zip(&mut rounds) {
                println!("    {:8} {}", format!("{kind:?}"), load::medians(figures));
            }
        }
    }
    Ok(())
}
