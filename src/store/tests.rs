//! P10 and P11: whichever change of the disk fails, nothing acknowledged is lost.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::*;
use crate::clock::SimulatedClock;
use crate::disk::{Faults, FaultyDisk, MemoryDisk};
use crate::{Fingerprint, Outcome};

const HOUR: Duration = Duration::from_secs(60 * 60);

struct Machine {
    disk: Arc<MemoryDisk>,
    clock: SimulatedClock,
    acknowledged: Vec<String>,
}

fn operation(name: &str) -> Operation {
    Operation::new(Scope::new("s"), name.parse().unwrap(), Fingerprint::of([name]))
}

impl Machine {
    fn new() -> Self {
        let (disk, clock) = (Arc::default(), SimulatedClock::new());
        Self { disk, clock, acknowledged: Vec::new() }
    }

    fn open(&self, faults: Arc<Faults>) -> Result<Store> {
        Store::builder()
            .log_bytes(256 * 1024)
            .max_response_bytes(32 * 1024)
            .max_open_claims(8)
            .clock(self.clock.clone())
            .open_on(Arc::new(FaultyDisk::new(Arc::clone(&self.disk), faults)))
    }

    /// A day in the life of a store, up to its first trouble.
    fn live(&mut self, faults: &Arc<Faults>) -> Result<()> {
        let store = self.open(Arc::clone(faults))?;
        for hour in 0..3 {
            for n in 0..4 {
                let name = format!("key-{hour}-{n}");
                let mut operation = operation(&name);
                operation.durable = n % 2 == 0;
                let Outcome::Execute(permit) = store.begin(&operation).wait()? else {
                    panic!("{name} is new");
                };
                let body = name.repeat(n * 700);
                permit.complete(&Response::new(Bytes::from(body))).wait()?;
                self.acknowledged.push(name);
            }
            self.clock.advance(HOUR);
            store.reap()?;
        }
        store.close(Duration::ZERO).map(drop)
    }

    /// A new process finds all that was acknowledged.
    fn check(&self, context: &str) {
        let store = self.open(Faults::at(u64::MAX, false, io::ErrorKind::Other));
        let store = store.unwrap_or_else(|error| panic!("{context}: {error:?}"));
        for name in &self.acknowledged {
            match store.begin(&operation(name)).wait() {
                Ok(Outcome::Replay(_)) => {}
                other => panic!("{context}: {name} became {other:?}"),
            }
        }
        store.verify().unwrap_or_else(|error| panic!("{context}: {error:?}"));
    }
}

#[test]
fn p10_whichever_change_fails_nothing_acknowledged_is_lost() {
    for for_good in [false, true] {
        let mut points = 0;
        for fail_at in 0.. {
            let faults = Faults::at(fail_at, for_good, io::ErrorKind::Other);
            let mut machine = Machine::new();
            // Trouble in sealing is told by `reap`, and the rest by what was being done.
            let _ = machine.live(&faults);
            if !faults.has_failed() {
                break;
            }
            points += 1;
            machine.check(&format!("change {fail_at} failed, for good: {for_good}"));
        }
        assert!(points > 100, "only {points} changes");
    }
}

#[test]
fn p10_after_a_failed_commit_the_store_takes_no_work_and_keeps_the_key_locked() {
    let mut failed = 0;
    for fail_at in 0..60 {
        let machine = Machine::new();
        let faults = Faults::at(fail_at, false, io::ErrorKind::Other);
        // Earlier changes belong to the opening, which is another test's business.
        let Ok(store) = machine.open(faults) else { continue };
        let Ok(Outcome::Execute(permit)) = store.begin(&operation("a")).wait() else { continue };
        if permit.complete(&Response::new(Bytes::new())).wait().is_ok() {
            continue;
        }
        failed += 1;
        let again = store.begin(&operation("a")).wait();
        let other = store.begin(&operation("b")).wait();
        assert!(matches!(again, Err(Error::Stopped { source: Some(_) })), "{again:?}");
        assert!(matches!(other, Err(Error::Stopped { source: Some(_) })), "{other:?}");
        assert!(matches!(store.close(HOUR), Err(Error::Stopped { source: Some(_) })));
    }
    assert!(failed > 0, "no commit failed");
}

#[test]
fn p11_a_full_disk_refuses_new_keys_and_finishes_those_in_flight() {
    for fail_at in 0..40 {
        let faults = Faults::at(fail_at, true, io::ErrorKind::StorageFull);
        let machine = Machine::new();
        let Ok(store) = machine.open(Arc::clone(&faults)) else { continue };
        let mut permits = Vec::new();
        let refused = loop {
            match store.begin(&operation(&format!("key-{}", permits.len()))).wait() {
                Ok(Outcome::Execute(permit)) => permits.push(permit),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Full), "{refused:?}");
        // The blocks of logs are allocated: real disks do not run out of room in the middle of one.
        if !faults.has_failed() {
            for permit in permits {
                permit.complete(&Response::new(Bytes::new())).wait().unwrap();
            }
        }
    }
}
