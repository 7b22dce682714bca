//! P2, P10, P11 and P12: whichever change of the disk fails, and wherever the power is cut, nothing
//! acknowledged is lost and the store opens unaided.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::*;
use crate::clock::SimulatedClock;
use crate::disk::{Chance, CrashDisk, Faults, FaultyDisk, MemoryDisk};
use crate::{Fingerprint, Outcome};

/// Power cuts that are simulated.
const CUTS: usize = 400;
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
            for n in 0..4_usize {
                let name = format!("key-{hour}-{n}");
                let mut operation = operation(&name);
                operation.durable = n.is_multiple_of(2);
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
    for fail_at in 0..100 {
        let machine = Machine::new();
        let faults = Faults::at(fail_at, false, io::ErrorKind::Other);
        // Earlier changes belong to the opening, which is another test's business, and to what the
        // reaper does about it.
        let Ok(store) = machine.open(faults) else { continue };
        if store.reap().is_err() {
            continue;
        }
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
    assert_eq!(failed, 2, "its write, and its sync");
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

/// The prepared log was left alone, and opening wanted room for another: a server on a full disk
/// could not be restarted.
#[test]
fn p12_a_store_on_a_full_disk_opens_again_and_again() {
    const SMALLEST: u64 = 256 * 1024;
    let disk = Arc::<MemoryDisk>::default();
    let open = |room| {
        let disk = FaultyDisk::new(Arc::clone(&disk), Faults::room(room));
        Store::builder().log_bytes(2 * SMALLEST).open_on(Arc::new(disk))
    };
    let run = |store: &Store, name: &str| {
        let Ok(Outcome::Execute(permit)) = store.begin(&operation(name)).wait() else {
            panic!("{name} is new")
        };
        permit.complete(&Response::new(Bytes::from(name.to_owned()))).wait().unwrap();
    };
    let mut names = vec!["roomy".to_owned()];
    run(&open(u64::MAX).unwrap(), &names[0]);
    // The first time there is a prepared log, and not even a smaller one could be made.
    for room in [0, SMALLEST, SMALLEST, SMALLEST] {
        let store = open(room).unwrap();
        for name in &names {
            assert!(matches!(store.begin(&operation(name)).wait(), Ok(Outcome::Replay(_))));
        }
        names.push(format!("full-{}", names.len()));
        run(&store, names.last().unwrap());
        store.verify().unwrap();
    }
    let store = open(u64::MAX).unwrap();
    run(&store, "roomy-again");
    assert!(store.stats().next_log_ready);
}

/// A store on a disk that remembers, and what was acknowledged after how many changes.
struct Recorded {
    disk: Arc<CrashDisk>,
    clock: SimulatedClock,
    acknowledged: Vec<(usize, String)>,
    claimed: Vec<(usize, String)>,
}

impl Recorded {
    fn open(disk: &Arc<CrashDisk>, clock: &SimulatedClock) -> Result<Store> {
        Store::builder()
            .log_bytes(256 * 1024)
            .max_response_bytes(32 * 1024)
            .max_open_claims(16)
            .clock(clock.clone())
            .open_on(Arc::clone(disk) as Arc<dyn Disk>)
    }

    /// Opens, runs, seals, restarts, and leaves some claims open.
    fn live() -> Self {
        let disk = Arc::new(CrashDisk::new(Default::default()));
        let clock = SimulatedClock::new();
        let (acknowledged, claimed) = (Vec::new(), Vec::new());
        let mut recorded = Self { disk, clock, acknowledged, claimed };
        for restart in 0..3 {
            let store = Self::open(&recorded.disk, &recorded.clock).unwrap();
            for hour in 0..2 {
                for n in 0..5_usize {
                    recorded.run(&store, format!("key-{restart}-{hour}-{n}"), n);
                }
                recorded.clock.advance(HOUR);
                store.reap().unwrap();
            }
            recorded.run(&store, format!("key-{restart}-last"), 1);
        }
        recorded
    }

    fn run(&mut self, store: &Store, name: String, n: usize) {
        let mut operation = operation(&name);
        operation.durable = n.is_multiple_of(2);
        let Ok(Outcome::Execute(permit)) = store.begin(&operation).wait() else {
            panic!("{name} is new");
        };
        if operation.durable {
            self.claimed.push((self.disk.changes(), name.clone()));
        }
        if n == 4 {
            return drop(permit);
        }
        let body = name.repeat(n * 500);
        permit.complete(&Response::new(Bytes::from(body))).wait().unwrap();
        self.acknowledged.push((self.disk.changes(), name));
    }

    /// Opens what a cut left, and holds it against what had been acknowledged by then.
    fn check(&self, disk: &Arc<CrashDisk>, cut: usize, context: &str) {
        let store = Self::open(disk, &self.clock);
        let store = store.unwrap_or_else(|error| panic!("{context}: {error:?}"));
        for (_, name) in self.acknowledged.iter().filter(|(at, _)| *at <= cut) {
            match store.begin(&operation(name)).wait() {
                Ok(Outcome::Replay(_)) => {}
                other => panic!("{context}: {name} was acknowledged and became {other:?}"),
            }
        }
        for (_, name) in self.claimed.iter().filter(|(at, _)| *at <= cut) {
            match store.begin(&operation(name)).wait() {
                Ok(Outcome::Replay(_) | Outcome::Interrupted(_)) => {}
                other => panic!("{context}: {name} was claimed and became {other:?}"),
            }
        }
    }
}

#[test]
fn p2_p12_a_power_cut_anywhere_loses_nothing_acknowledged() {
    let recorded = Recorded::live();
    let changes = recorded.disk.changes();
    assert!(changes > 300, "only {changes} changes");
    let mut chance = Chance(1);
    for round in 0..CUTS {
        let cut = usize::try_from(chance.below(changes as u64 + 1)).unwrap();
        let context = format!("cut {round} after change {cut} of {changes}");
        let disk = Arc::new(CrashDisk::new(recorded.disk.cut(cut, &mut chance)));
        if round % 2 == 0 {
            // The power fails again while the store is being opened.
            let _ = Recorded::open(&disk, &recorded.clock);
            let again = usize::try_from(chance.below(disk.changes() as u64 + 1)).unwrap();
            let disk = Arc::new(CrashDisk::new(disk.cut(again, &mut chance)));
            recorded.check(&disk, cut, &format!("{context}, and again after {again}"));
        } else {
            recorded.check(&disk, cut, &context);
        }
    }
    // A kill keeps what the page cache has.
    let disk = Arc::new(CrashDisk::new(recorded.disk.image()));
    recorded.check(&disk, changes, "killed");
}
