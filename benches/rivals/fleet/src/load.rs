//! Requests, so many in flight, and what they cost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use refrain::Store;
use tokio::task::JoinSet;

use crate::cpu;
use crate::pooled::Pooled;
use crate::refrain_store;
use crate::server::Server;

const BODY_BYTES: usize = 1024;
/// Keys that are done before, to be replayed.
const DONE: u64 = 20_000;
/// The time at the start of each measurement that is not counted.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// A claim of a fresh key and its completion, both durable.
    Fresh,
    /// A request whose key is done.
    Replay,
}

pub enum Contender {
    /// With keys of its own, since two of them share a table.
    Refrain(Store, u8),
    Pooled(Pooled),
}

impl Contender {
    /// Completes the keys that are replayed.
    pub async fn prepare(&self) -> Result<()> {
        let body = body();
        let keys = AtomicU64::new(0);
        let fill = async || {
            loop {
                let key = keys.fetch_add(1, Ordering::Relaxed);
                if key >= DONE {
                    return Ok(());
                }
                self.run(key, &body).await?;
            }
        };
        let (a, b, c, d) = tokio::join!(fill(), fill(), fill(), fill());
        a.and(b).and(c).and(d)
    }

    async fn run(&self, key: u64, body: &Bytes) -> Result<()> {
        match self {
            Self::Refrain(store, salt) => refrain_store::run(store, *salt, key, body).await,
            Self::Pooled(pooled) => pooled.run(key, body).await,
        }
    }

    async fn replay(&self, key: u64) -> Result<()> {
        match self {
            Self::Refrain(store, salt) => refrain_store::replay(store, *salt, key).await,
            Self::Pooled(pooled) => pooled.replay(key).await,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Microseconds of processor time a request.
    pub own_us: f64,
    pub server_us: f64,
}

static FRESH: AtomicU64 = AtomicU64::new(1 << 40);

pub async fn run(
    server: &Server,
    contender: &Arc<Contender>,
    work: Work,
    in_flight: usize,
    seconds: f64,
) -> Result<Figures> {
    requests(contender, work, in_flight, WARM_UP).await?;
    let before = (cpu::own(), cpu::tree(server.postmaster));
    let started = Instant::now();
    let latencies = requests(contender, work, in_flight, Duration::from_secs_f64(seconds)).await?;
    let took = started.elapsed().as_secs_f64();
    let count = latencies.len() as f64;
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Figures {
        per_second: count / took,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        own_us: (cpu::own() - before.0) * 1e6 / count,
        server_us: (cpu::tree(server.postmaster) - before.1) * 1e6 / count,
    })
}

/// Latencies in microseconds of so many requests in flight for so long.
async fn requests(
    contender: &Arc<Contender>,
    work: Work,
    in_flight: usize,
    time: Duration,
) -> Result<Histogram<u64>> {
    let until = Instant::now() + time;
    let mut running = JoinSet::new();
    for _ in 0..in_flight {
        running.spawn(one_at_a_time(Arc::clone(contender), work, until));
    }
    let mut all = Histogram::new(3)?;
    while let Some(latencies) = running.join_next().await {
        all.add(latencies??)?;
    }
    Ok(all)
}

async fn one_at_a_time(
    contender: Arc<Contender>,
    work: Work,
    until: Instant,
) -> Result<Histogram<u64>> {
    let body = body();
    let mut latencies = Histogram::new(3)?;
    while Instant::now() < until {
        let started = Instant::now();
        match work {
            Work::Fresh => contender.run(FRESH.fetch_add(1, Ordering::Relaxed), &body).await?,
            Work::Replay => contender.replay(fastrand::u64(..DONE)).await?,
        }
        latencies.record(u64::try_from(started.elapsed().as_micros())?)?;
    }
    Ok(latencies)
}

pub fn body() -> Bytes {
    // Like JSON with ids in it.
    let text: String = (0u64..)
        .map(|n| format!("{{\"id\":\"{:016x}\"}},", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .take(BODY_BYTES / 20)
        .collect();
    text.into_bytes().into_iter().cycle().take(BODY_BYTES).collect::<Vec<u8>>().into()
}

/// The medians of the rounds.
pub fn medians(figures: &[Figures]) -> Median {
    let median = |of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Median(Figures {
        per_second: median(|figures| figures.per_second),
        p50_ms: median(|figures| figures.p50_ms),
        p99_ms: median(|figures| figures.p99_ms),
        own_us: median(|figures| figures.own_us),
        server_us: median(|figures| figures.server_us),
    })
}

pub struct Median(Figures);

impl fmt::Display for Median {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { per_second, p50_ms, p99_ms, own_us, server_us } = self.0;
        write!(
            f,
            "{per_second:>8.0}/s   p50 {p50_ms:>7.2} ms   p99 {p99_ms:>7.2} ms   \
             processor us a request: {own_us:>5.0} here, {server_us:>5.0} in the server"
        )
    }
}
