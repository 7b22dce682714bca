//! One store in a process of its own, which takes its commands from standard input, one a line.
//!
//! So each store's memory and writes are its own, and the store can be killed.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::measure::{Measured, cpu_time, measure};
use crate::rivals::{Kind, Rival};
use crate::workload::{self, Looked, Name, Ran, Until};

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Old records, from `first` on.
    Fill {
        first: u64,
        count: u64,
        body_bytes: usize,
    },
    /// New records, from `first` on.
    Warm {
        first: u64,
        count: u64,
        body_bytes: usize,
    },
    /// Finish the work that is owed for the records so far.
    Settle,
    /// New records for so long.
    Run {
        first: u64,
        committers: usize,
        body_bytes: usize,
        millis: u64,
    },
    /// Look for old keys of a range, which may be unknown.
    LookUp {
        first: u64,
        end: u64,
        count: u64,
    },
    Measure,
    /// Record new keys undisturbed for so long, and then while all old records are deleted.
    Expire {
        first: u64,
        committers: usize,
        body_bytes: usize,
        millis: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Opened { millis: f64 },
    Done,
    Ran(Ran),
    LookedUp(Looked),
    Measured(Measured),
    Expired(Expired),
    Failed(String),
}

/// The cost of expiry to those who record meanwhile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Expired {
    pub seconds: f64,
    /// True if no old record was left when the time for expiry was over.
    pub complete: bool,
    pub undisturbed: Ran,
    pub beside: Ran,
}

/// The time that an expiry may take: stores that look for old records among deleted ones become
/// slower and slower.
const EXPIRE_WITHIN: Duration = Duration::from_secs(60);
/// Records deleted in one transaction, where expiry is one.
const EXPIRE_AT_ONCE: usize = 1000;

pub fn serve(kind: Kind, directory: &Path) -> Result<()> {
    let began = Instant::now();
    let opened = kind.open(directory);
    let millis = began.elapsed().as_secs_f64() * 1000.0;
    let rival = match opened {
        Ok(rival) => rival,
        Err(error) => return answer(&Reply::Failed(format!("{error:#}"))),
    };
    answer(&Reply::Opened { millis })?;
    let host = Host { rival, directory: directory.to_owned() };
    for line in std::io::stdin().lock().lines() {
        let reply = host.reply(serde_json::from_str(&line?)?);
        answer(&reply.unwrap_or_else(|error| Reply::Failed(format!("{error:#}"))))?;
    }
    Ok(())
}

fn answer(reply: &Reply) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(reply)?)?;
    Ok(out.flush()?)
}

struct Host {
    rival: Arc<dyn Rival>,
    directory: PathBuf,
}

impl Host {
    fn reply(&self, request: Request) -> Result<Reply> {
        Ok(match request {
            Request::Fill { first, count, body_bytes } => {
                self.fill(Name::OLD, first, count, body_bytes)?;
                Reply::Done
            }
            Request::Warm { first, count, body_bytes } => {
                self.fill(Name::NEW, first, count, body_bytes)?;
                Reply::Done
            }
            Request::Settle => {
                self.rival.settle()?;
                Reply::Done
            }
            Request::Run { first, committers, body_bytes, millis } => Reply::Ran(self.run(
                first,
                committers,
                body_bytes,
                Duration::from_millis(millis),
            )?),
            Request::LookUp { first, end, count } => {
                let mut session = self.rival.session(0)?;
                Reply::LookedUp(workload::look_up(&mut *session, first..end, count)?)
            }
            Request::Measure => Reply::Measured(measure(&*self.rival, &self.directory)?),
            Request::Expire { first, committers, body_bytes, millis } => {
                Reply::Expired(self.expire(first, committers, body_bytes, millis)?)
            }
        })
    }

    fn fill(&self, scope: u8, first: u64, count: u64, body_bytes: usize) -> Result<()> {
        let until = Until::Count(count);
        workload::run(&self.rival, scope, first, FILLERS, body_bytes, until).map(drop)
    }

    fn run(&self, first: u64, committers: usize, body_bytes: usize, time: Duration) -> Result<Ran> {
        let until = Until::Time(time);
        let before = cpu_time(&*self.rival)?;
        let ran = workload::run(&self.rival, Name::NEW, first, committers, body_bytes, until)?;
        let cpu = cpu_time(&*self.rival)?.saturating_sub(before);
        Ok(Ran { cpu_us: cpu.as_secs_f64() * 1e6 / ran.records.max(1) as f64, ..ran })
    }

    fn expire(
        &self,
        first: u64,
        committers: usize,
        body_bytes: usize,
        millis: u64,
    ) -> Result<Expired> {
        let undisturbed = self.run(first, committers, body_bytes, Duration::from_millis(millis))?;
        let stop = Arc::new(AtomicBool::new(false));
        let beside = {
            let (rival, stop) = (Arc::clone(&self.rival), Arc::clone(&stop));
            let first = first + undisturbed.records + committers as u64;
            thread::spawn(move || {
                let until = Until::Told(&stop);
                workload::run(&rival, Name::NEW, first, committers, body_bytes, until)
            })
        };
        let began = Instant::now();
        let mut expired = Ok(1);
        while matches!(expired, Ok(1..)) && began.elapsed() < EXPIRE_WITHIN {
            expired = self.rival.expire(EXPIRE_AT_ONCE);
        }
        let seconds = began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let beside = beside.join().ok().context("a committer panicked")??;
        let complete = expired? == 0;
        Ok(Expired { seconds, complete, undisturbed, beside })
    }
}

/// Committers that fill a store.
const FILLERS: usize = 256;
