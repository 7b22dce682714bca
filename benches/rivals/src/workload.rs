//! The work of every store: record an answer under a new key, durably, and find it again.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::rivals::{Rival, Session};

/// The bytes of a record besides its body: fingerprint, request id, times, status, a header.
pub const META_BYTES: usize = 84;
/// A committer needs little.
const STACK_BYTES: usize = 256 * 1024;

/// One request: its owner, and its key, as random as clients make theirs.
#[derive(Clone)]
pub struct Name {
    /// In place of an API key's SHA-256 one byte again and again, then the idempotency key.
    pub bytes: [u8; 32 + 36],
}

impl Name {
    /// The scope of the records that are there before, and expire.
    pub const OLD: u8 = 0x51;
    /// The scope of the records that come in.
    pub const NEW: u8 = 0xa2;

    pub fn of(scope: u8, n: u64) -> Self {
        let mut bytes = [scope; 68];
        let digits = format!("{:016x}{:016x}", mix(n), mix(!n));
        let mut at = 32;
        for (from, to) in [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)] {
            bytes[at..at + to - from].copy_from_slice(&digits.as_bytes()[from..to]);
            at += to - from;
            if at < bytes.len() {
                bytes[at] = b'-';
                at += 1;
            }
        }
        Self { bytes }
    }

    pub fn key(&self) -> &str {
        std::str::from_utf8(&self.bytes[32..]).expect("it is made of digits")
    }
}

/// The last step of splitmix64: one to one, and without a pattern.
pub fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// A body that does not compress.
pub fn body(bytes: usize) -> Vec<u8> {
    (0..bytes.div_ceil(8) as u64).flat_map(|n| mix(n).to_le_bytes()).take(bytes).collect()
}

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ran {
    pub records: u64,
    pub seconds: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// The processor time of all its processes, the committers' among them, for a record.
    pub cpu_us: f64,
}

impl Ran {
    pub fn per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

/// The condition for the end of a run.
#[derive(Clone, Copy)]
pub enum Until<'a> {
    Count(u64),
    Time(Duration),
    Told(&'a AtomicBool),
}

/// The interval at which a run checks whether it is told to end.
const POLL: Duration = Duration::from_millis(1);

/// Records new keys from `first` on with this many committers at once, each of which waits for a
/// record to be durable before it begins the next.
pub fn run(
    rival: &Arc<dyn Rival>,
    scope: u8,
    first: u64,
    committers: usize,
    body_bytes: usize,
    until: Until<'_>,
) -> Result<Ran> {
    let next = Arc::new(AtomicU64::new(first));
    let stop = Arc::new(AtomicBool::new(false));
    let start = Arc::new(Barrier::new(committers + 1));
    let body: Arc<[u8]> = body(body_bytes).into();
    let end = match until {
        Until::Count(count) => first + count,
        Until::Time(_) | Until::Told(_) => u64::MAX,
    };
    let threads: Vec<_> = (0..committers)
        .map(|_| {
            let (rival, body) = (Arc::clone(rival), Arc::clone(&body));
            let (next, stop, start) = (Arc::clone(&next), Arc::clone(&stop), Arc::clone(&start));
            let committer = move || -> Result<Histogram<u64>> {
                let session = rival.session(body.len());
                start.wait();
                let mut session = session?;
                let mut took = Histogram::new(3)?;
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= end {
                        break;
                    }
                    let name = Name::of(scope, n);
                    let began = Instant::now();
                    session.record(&name, &body)?;
                    took.record(u64::try_from(began.elapsed().as_nanos())?)?;
                }
                Ok(took)
            };
            thread::Builder::new().stack_size(STACK_BYTES).spawn(committer)
        })
        .collect::<std::io::Result<_>>()?;
    start.wait();
    let began = Instant::now();
    match until {
        Until::Count(_) => {}
        Until::Time(time) => thread::sleep(time),
        Until::Told(told) => {
            while !told.load(Ordering::Relaxed) {
                thread::sleep(POLL);
            }
        }
    }
    stop.store(!matches!(until, Until::Count(_)), Ordering::Relaxed);
    let mut took = Histogram::<u64>::new(3)?;
    for thread in threads {
        took.add(thread.join().expect("a committer does not panic")?)?;
    }
    let us = |ns: u64| ns as f64 / 1000.0;
    Ok(Ran {
        records: took.len(),
        seconds: began.elapsed().as_secs_f64(),
        p50_us: us(took.value_at_quantile(0.5)),
        p99_us: us(took.value_at_quantile(0.99)),
        max_us: us(took.max()),
        cpu_us: 0.0,
    })
}

/// The cost of a lookup, on one thread.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Looked {
    pub found: u64,
    pub ns: f64,
    pub cpu_ns: f64,
}

/// Looks up `count` keys of a range, in no order.
pub fn look_up(session: &mut dyn Session, names: Range<u64>, count: u64) -> Result<Looked> {
    let width = names.end - names.start;
    let names: Vec<_> =
        (0..count).map(|n| Name::of(Name::OLD, names.start + mix(n) % width)).collect();
    let mut found = 0;
    let (cpu, began) = (cpu_time(), Instant::now());
    for name in &names {
        found += u64::from(session.replay(name)?);
    }
    let (wall, cpu) = (began.elapsed(), cpu_time() - cpu);
    let each = |time: Duration| time.as_nanos() as f64 / count as f64;
    Ok(Looked { found, ns: each(wall), cpu_ns: each(cpu) })
}

/// The processor time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
