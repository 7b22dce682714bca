//! refrain itself, through its public API.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Response;
use refrain::clock::{Clock, Reading, SystemClock};
use refrain::{Builder, Fingerprint, Operation, Outcome, Scope, Store};

use super::{Kind, Rival, Session};
use crate::workload::Name;

const MIB: u64 = 1024 * 1024;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// The size of a log of which a million records of 1 KiB make some fifty segments.
const SMALL_LOG: u64 = 26 * MIB;
/// The size of a log that is full about twice a second.
const BUSY_LOG: u64 = 32 * MIB;
/// The size of a log that is never full in a round.
const CALM_LOG: u64 = 2048 * MIB;
/// The interval at which an hour passes where hours fly, so that records expire after some five
/// seconds.
const TICK: Duration = Duration::from_millis(200);

pub struct Refrain {
    store: Store,
    clock: Shifted,
    durable: bool,
    /// A handle that each open session holds, for counting the sessions.
    sessions: Arc<()>,
}

/// The machine's clock, moved ahead.
#[derive(Debug, Clone)]
struct Shifted {
    system: SystemClock,
    ahead_secs: Arc<AtomicU64>,
}

impl Shifted {
    fn advance(&self, by: Duration) {
        self.ahead_secs.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for Shifted {
    fn read(&self) -> Reading {
        let ahead = Duration::from_secs(self.ahead_secs.load(Ordering::Relaxed));
        let now = self.system.read();
        Reading { boot: now.boot + ahead, wall: now.wall + ahead, ..now }
    }
}

impl Refrain {
    pub fn open(kind: Kind, directory: &Path) -> Result<Self> {
        let clock = Shifted { system: SystemClock::new(), ahead_secs: Arc::default() };
        let sized = |builder: Builder| match kind {
            Kind::RefrainSegments => builder.log_bytes(SMALL_LOG),
            Kind::RefrainBusy => builder.log_bytes(BUSY_LOG),
            Kind::RefrainCalm => builder.log_bytes(CALM_LOG),
            _ => builder,
        };
        let store = sized(Store::builder().clock(clock.clone())).open(directory.join("store"))?;
        let sessions = Arc::new(());
        if kind == Kind::RefrainBusy {
            let (store, clock, sessions) =
                (store.clone(), clock.clone(), Arc::downgrade(&sessions));
            thread::spawn(move || {
                while let Some(sessions) = sessions.upgrade() {
                    thread::sleep(TICK);
                    // This thread's handle, the store's, and those of sessions: without a session
                    // no hour passes, so that others are not disturbed.
                    if Arc::strong_count(&sessions) > 2 {
                        clock.advance(HOUR);
                        store.reap().expect("the disk takes it");
                    }
                }
            });
        }
        Ok(Self { store, clock, durable: kind == Kind::RefrainDurable, sessions })
    }
}

impl Rival for Refrain {
    fn session(&self, body_bytes: usize) -> Result<Box<dyn Session>> {
        let response = Response::builder()
            .header("content-type", "application/json")
            .body(Bytes::from(crate::workload::body(body_bytes)))?;
        Ok(Box::new(Handle {
            store: self.store.clone(),
            response,
            durable: self.durable,
            old: Scope::new([Name::OLD]),
            new: Scope::new([Name::NEW]),
            fingerprint: Fingerprint::of(["POST", "/v1/calls"]),
            _open: Arc::clone(&self.sessions),
        }))
    }

    fn settle(&self) -> Result<()> {
        // At the end of its hour a log is sealed, full or not; a log that has just been frozen may
        // be on its way to the reaper.
        self.clock.advance(HOUR);
        loop {
            self.store.reap()?;
            if self.store.stats().log_records == 0 {
                return Ok(());
            }
        }
    }

    fn expire(&self, _: usize) -> Result<usize> {
        let before = self.store.stats().segments_dropped;
        self.clock.advance(25 * HOUR);
        self.store.reap()?;
        Ok(usize::try_from(self.store.stats().segments_dropped - before)?)
    }

    fn facts(&self) -> Vec<(String, f64)> {
        let stats = self.store.stats();
        let records = stats.segment_records as f64;
        vec![
            ("segments".into(), stats.segments as f64),
            ("segment records".into(), records),
            ("log records".into(), stats.log_records as f64),
            ("segment lookups".into(), stats.segment_lookups as f64),
            ("filter bytes per sealed record".into(), stats.filter_bytes as f64 / records.max(1.0)),
            ("entries per batch".into(), stats.entries as f64 / stats.batches.max(1) as f64),
        ]
    }
}

struct Handle {
    store: Store,
    response: Response<Bytes>,
    durable: bool,
    old: Scope,
    new: Scope,
    /// Any fingerprint: a server spends the same on fingerprints with every store.
    fingerprint: Fingerprint,
    _open: Arc<()>,
}

impl Handle {
    fn operation(&self, name: &Name) -> Result<Operation> {
        let scope = if name.bytes[0] == Name::OLD { self.old } else { self.new };
        let operation = Operation::new(scope, name.key().parse()?, self.fingerprint);
        Ok(if self.durable { operation.durable() } else { operation })
    }
}

impl Session for Handle {
    fn record(&mut self, name: &Name, body: &[u8]) -> Result<()> {
        debug_assert_eq!(self.response.body().len(), body.len());
        let operation = self.operation(name)?;
        // While sealing is behind, this waits.
        let permit = match self.store.begin(&operation).wait() {
            Ok(Outcome::Execute(permit)) => permit,
            Ok(other) => bail!("the key is known: {other:?}"),
            Err(error) => return Err(error).context("begin"),
        };
        permit.complete(&self.response).wait()?;
        Ok(())
    }

    fn replay(&mut self, name: &Name) -> Result<bool> {
        match self.store.begin(&self.operation(name)?).wait()? {
            Outcome::Replay(record) => Ok(record.response().is_some()),
            // Unknown; dropping the permit frees the key.
            Outcome::Execute(_) => Ok(false),
            other => bail!("neither known nor unknown: {other:?}"),
        }
    }
}
