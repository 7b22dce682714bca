//! The parts of the measurement, each with its rounds interleaved: one of each store, and again.

use std::path::Path;

use anyhow::{Context, Result};

use crate::guest::Guest;
use crate::host::Expired;
use crate::measure::Measured;
use crate::results::{Completes, Expiry, Reopening, Results, Space, What};
use crate::rivals::Kind;
use crate::workload::mix;

pub const KIB: usize = 1024;
pub const BODIES: [usize; 3] = [200, KIB, 16 * KIB];
pub const COMMITTERS: [usize; 4] = [1, 8, 64, 256];
/// The number of committers where one number stands for all.
pub const USUAL: usize = 64;
/// Stores whose records are measured.
const STORES: [Kind; 8] = [
    Kind::Refrain,
    Kind::Redb,
    Kind::Rocksdb,
    Kind::Fjall,
    Kind::Sqlite,
    Kind::Lmdb,
    Kind::Redis,
    Kind::Postgres,
];
/// Others that completes are compared with: the last two are limits, and hold nothing.
const BESIDES: [Kind; 3] = [Kind::RefrainDurable, Kind::Append, Kind::Fdatasync];
/// Stores whose logs are used again, once there are old ones.
const RECYCLING: [Kind; 3] = [Kind::Refrain, Kind::RefrainDurable, Kind::Rocksdb];
/// As many records as several logs hold, of refrain's and of RocksDB's.
const WARM_RECORDS: u64 = 450_000;
/// The divisor of a run's time for larger bodies: what such a run writes stays on the disk.
const LARGE_SHARE: u64 = 4;
/// Committers beside an expiry.
const BESIDE: usize = 8;
/// Lookups of a round.
const LOOKUPS: u64 = 20_000;
/// Keys that no store knows.
const UNKNOWN: u64 = 1 << 50;

/// The amount of measuring.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub directory: &'a Path,
    pub records: u64,
    pub rounds: usize,
    pub millis: u64,
    /// Records whose bytes are counted.
    pub counted: u64,
    /// Stores of small records that are killed, by their records.
    pub killed: &'a [u64],
    pub bodies: &'a [usize],
    pub only: &'a [Kind],
}

impl Plan<'_> {
    fn wants(&self, kind: Kind) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }

    /// Starts the stores that this machine has; the others are skipped, with a reason.
    fn start(&self, kinds: &[Kind], part: &str, results: &mut Results) -> Vec<Guest> {
        let directory = self.directory.join(part);
        let wanted = kinds.iter().filter(|kind| self.wants(**kind));
        wanted
            .filter_map(|kind| match Guest::start(*kind, &directory) {
                Ok(guest) => Some(guest),
                Err(error) => {
                    skip(*kind, &error, results);
                    None
                }
            })
            .collect()
    }

    /// New records that come in before completes are measured.
    fn warmed(&self, kind: Kind) -> u64 {
        if RECYCLING.contains(&kind) { WARM_RECORDS.saturating_sub(self.records) } else { 0 }
    }

    /// Makes room on the disk for the next part.
    fn remove(&self, part: &str) -> Result<()> {
        match std::fs::remove_dir_all(self.directory.join(part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn fill_and_warm(&self, guest: &mut Guest) -> Result<()> {
        self.fill(guest, KIB)?;
        if self.warmed(guest.kind) > 0 {
            guest.warm(self.warmed(guest.kind), KIB)?;
            guest.settle()?;
        }
        Ok(())
    }

    fn fill(&self, guest: &mut Guest, body_bytes: usize) -> Result<()> {
        if !matches!(guest.kind, Kind::Append | Kind::Fdatasync) {
            say(&format!("{}: {} records of {body_bytes} B", guest.kind.name(), self.records));
            guest.fill(0, self.records, body_bytes)?;
            guest.settle()?;
        }
        Ok(())
    }
}

pub fn say(what: &str) {
    eprintln!("-- {what}");
}

fn skip(kind: Kind, error: &anyhow::Error, results: &mut Results) {
    say(&format!("skipped: {}: {error:#}", kind.name()));
    results.skipped.push((kind, format!("{error:#}")));
}

/// Does something with each store, and goes on without those that fail.
fn each(
    guests: &mut Vec<Guest>,
    results: &mut Results,
    mut run: impl FnMut(&mut Guest, &mut Results) -> Result<()>,
) {
    guests.retain_mut(|guest| match run(guest, results) {
        Ok(()) => true,
        Err(error) => {
            skip(guest.kind, &error, results);
            false
        }
    });
}

/// Completes per second, reopening, and expiry: on the same records, in this order.
pub fn stores(plan: &Plan<'_>, results: &mut Results) -> Result<()> {
    let mut guests = plan.start(&[&STORES[..], &BESIDES].concat(), "stores", results);
    each(&mut guests, results, |guest, _| plan.fill_and_warm(guest));
    for &body_bytes in plan.bodies {
        for committers in COMMITTERS {
            say(&format!("{committers} committers, {body_bytes} B"));
            let all = completes(plan, &mut guests, committers, body_bytes, results);
            results.completes.extend(all);
        }
    }
    guests.retain(|guest| STORES.contains(&guest.kind));
    for guest in guests {
        let kind = guest.kind;
        say(&format!("{}: kill, reopen, expire", kind.name()));
        if let Err(error) = kill_and_expire(plan, guest, results) {
            skip(kind, &error, results);
        }
    }
    plan.remove("stores")
}

fn kill_and_expire(plan: &Plan<'_>, guest: Guest, results: &mut Results) -> Result<()> {
    let (kind, records) = (guest.kind, plan.records);
    let mut guest = guest.kill_and_reopen()?;
    let millis = guest.opened_in;
    results.reopenings.push(Reopening { kind, records, body_bytes: KIB, millis });
    let expired: Expired = guest.expire(BESIDE, KIB, plan.millis)?;
    results.expiries.push(Expiry { kind, committers: BESIDE, expired });
    Ok(())
}

fn completes(
    plan: &Plan<'_>,
    guests: &mut Vec<Guest>,
    committers: usize,
    body_bytes: usize,
    results: &mut Results,
) -> Vec<Completes> {
    let mut all: Vec<_> = guests
        .iter()
        .map(|guest| Completes { kind: guest.kind, committers, body_bytes, rounds: Vec::new() })
        .collect();
    let millis = if body_bytes > KIB { plan.millis / LARGE_SHARE } else { plan.millis };
    for round in 0..plan.rounds as u64 {
        // Each after another one each time: what a store leaves to be done, its neighbour pays for.
        guests.sort_by_key(|guest| mix(mix(guest.kind as u64) + round));
        each(guests, results, |guest, _| {
            let ran = guest.run(committers, body_bytes, millis)?;
            let its = all.iter_mut().find(|completes| completes.kind == guest.kind);
            its.context("there is one for each")?.rounds.push(ran);
            Ok(())
        });
    }
    // One that failed has its reason instead.
    all.retain(|completes| completes.rounds.len() == plan.rounds);
    all
}

/// Measures the space that records take, one store at a time: another's writes would count.
pub fn space(plan: &Plan<'_>, results: &mut Results) -> Result<()> {
    for kind in [&STORES[..], &BESIDES].concat() {
        let mut guests = plan.start(&[kind], "space", results);
        each(&mut guests, results, |guest, results| {
            let empty = guest.measure()?.memory;
            plan.fill_and_warm(guest)?;
            results.space.push(taken(plan, guest, empty)?);
            Ok(())
        });
        drop(guests);
        plan.remove("space")?;
    }
    Ok(())
}

/// Measures the space after filling, and the bytes written for one more record, with all that
/// follows.
fn taken(plan: &Plan<'_>, guest: &mut Guest, memory_before: u64) -> Result<Space> {
    let before = guest.measure()?;
    guest.run(USUAL, KIB, plan.millis)?;
    guest.settle()?;
    let start = guest.measure()?;
    let mut records = 0;
    while records < plan.counted {
        records += guest.run(USUAL, KIB, plan.millis)?.records;
    }
    guest.settle()?;
    let end = guest.measure()?;
    let filled = (plan.records + plan.warmed(guest.kind)) as f64;
    let sealed = before
        .fact("segment records")
        .filter(|count| *count > 0.0)
        .map(|count| before.in_segments as f64 / count);
    Ok(Space {
        kind: guest.kind,
        body_bytes: KIB,
        written: (end.written - start.written) as f64 / records as f64,
        on_disk: before.on_disk as f64 / filled,
        sealed,
        memory: before.memory.saturating_sub(memory_before) as f64 / filled,
        facts: end.facts,
    })
}

/// Lookups, where refrain has its records in some fifty segments and a log.
pub fn lookups(plan: &Plan<'_>, results: &mut Results) -> Result<()> {
    let kinds = STORES.map(|kind| match kind {
        Kind::Refrain => Kind::RefrainSegments,
        other => other,
    });
    let mut guests = plan.start(&kinds, "lookups", results);
    let in_log = plan.records..plan.records + plan.records / 100;
    each(&mut guests, results, |guest, _| {
        plan.fill(guest, KIB)?;
        guest.fill(in_log.start, in_log.end - in_log.start, KIB)
    });
    let places: [(What, u64, u64); 4] = [
        (What::Hit, 0, plan.records),
        (What::HitInLog, in_log.start, in_log.end),
        (What::HitInOldest, 0, plan.records / 100),
        (What::Miss, UNKNOWN, 2 * UNKNOWN),
    ];
    // The first round warms.
    for round in 0..=plan.rounds {
        each(&mut guests, results, |guest, results| {
            for (what, first, end) in places {
                let looked = guest.look_up(first, end, LOOKUPS)?;
                let expected = if what == What::Miss { 0 } else { LOOKUPS };
                anyhow::ensure!(looked.found == expected, "{what:?}: {} found", looked.found);
                if round > 0 {
                    results.lookups_of(guest.kind, what).rounds.push(looked);
                }
            }
            Ok(())
        });
    }
    each(&mut guests, results, |guest, results| match guest.kind {
        Kind::RefrainSegments => {
            results.segments_asked = Some(segments_asked(guest)?);
            Ok(())
        }
        _ => Ok(()),
    });
    drop(guests);
    plan.remove("lookups")
}

/// Segments that are asked for each key that is unknown.
fn segments_asked(guest: &mut Guest) -> Result<f64> {
    let asked = |measured: &Measured| measured.fact("segment lookups").unwrap_or_default();
    let before = guest.measure()?;
    guest.look_up(UNKNOWN, 2 * UNKNOWN, LOOKUPS)?;
    let after = guest.measure()?;
    let facts = after.facts.iter().map(|(name, n)| format!("{name} {n:.2}"));
    say(&format!("refrain: {}", facts.collect::<Vec<_>>().join(", ")));
    Ok((asked(&after) - asked(&before)) / LOOKUPS as f64)
}

/// Opening after a kill, with many small records.
pub fn reopening(plan: &Plan<'_>, results: &mut Results) -> Result<()> {
    const BODY_BYTES: usize = 200;
    for &records in plan.killed {
        for mut guest in plan.start(&[Kind::Refrain], "killed", results) {
            let kind = guest.kind;
            say(&format!("{}: {records} records of {BODY_BYTES} B, then kill", kind.name()));
            guest.fill(0, records, BODY_BYTES)?;
            let guest = guest.kill_and_reopen()?;
            let millis = guest.opened_in;
            results.reopenings.push(Reopening { kind, records, body_bytes: BODY_BYTES, millis });
        }
        plan.remove("killed")?;
    }
    Ok(())
}

/// The tail of latencies while files come and go, and where none does.
pub fn stalls(plan: &Plan<'_>, results: &mut Results) -> Result<()> {
    let mut guests = plan.start(&[Kind::RefrainBusy, Kind::RefrainCalm], "stalls", results);
    // The first round warms.
    completes(&Plan { rounds: 1, ..*plan }, &mut guests, USUAL, KIB, results);
    say("stalls");
    let all = completes(plan, &mut guests, USUAL, KIB, results);
    results.completes.extend(all);
    Ok(())
}
