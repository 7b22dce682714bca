//! The parts of the measurement, each with its rounds interleaved: one of each store, and again.

use std::path::Path;

use anyhow::{Context, Result};

use crate::guest::Guest;
use crate::host::Expired;
use crate::measure::Measured;
use crate::results::{Completes, Expiry, Lookups, Reopening, Results, Space, What};
use crate::rivals::Kind;
use crate::workload::mix;

pub const KIB: usize = 1024;
pub const BODIES: [usize; 3] = [200, KIB, 16 * KIB];
pub const COMMITTERS: [usize; 4] = [1, 8, 64, 256];
/// Where one number stands for all.
pub const USUAL: usize = 64;
/// Stores that records are asked for.
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
/// Those with as much to hold, and the limits, which hold nothing.
const COMMITTING: [Kind; 11] = [
    Kind::Refrain,
    Kind::RefrainDurable,
    Kind::Redb,
    Kind::Rocksdb,
    Kind::Fjall,
    Kind::Sqlite,
    Kind::Lmdb,
    Kind::Redis,
    Kind::Postgres,
    Kind::Append,
    Kind::Fdatasync,
];
/// Those whose logs are used again, once there are old ones.
const RECYCLING: [Kind; 3] = [Kind::Refrain, Kind::RefrainDurable, Kind::Rocksdb];
/// As many as several logs hold, of refrain's and of RocksDB's.
const WARM_RECORDS: u64 = 450_000;
/// Committers beside an expiry.
const BESIDE: usize = 8;
/// Lookups of a round.
const LOOKUPS: u64 = 20_000;
/// Keys that no store knows.
const UNKNOWN: u64 = 1 << 50;

/// How much is measured.
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

    /// Starts those that there are; the others are skipped, with a reason.
    fn start(&self, kinds: &[Kind], part: &str, results: &mut Results) -> Result<Vec<Guest>> {
        let directory = self.directory.join(part);
        let mut guests = Vec::new();
        for &kind in kinds.iter().filter(|kind| self.wants(**kind)) {
            match Guest::start(kind, &directory) {
                Ok(guest) => guests.push(guest),
                Err(error) => {
                    say(&format!("skipped: {}: {error:#}", kind.name()));
                    results.skipped.retain(|(skipped, _)| *skipped != kind);
                    results.skipped.push((kind, format!("{error:#}")));
                }
            }
        }
        Ok(guests)
    }

    /// New records that come in before anything is measured.
    fn warmed(&self) -> u64 {
        WARM_RECORDS.saturating_sub(self.records)
    }

    fn fill(&self, guest: &mut Guest, body_bytes: usize) -> Result<()> {
        if !matches!(guest.kind, Kind::Append | Kind::Fdatasync) {
            say(&format!("{}: {} records of {body_bytes} B", guest.kind.name(), self.records));
            guest.fill(0, self.records, body_bytes)?;
            guest.settle()?;
            if RECYCLING.contains(&guest.kind) {
                guest.warm(self.warmed(), body_bytes)?;
                guest.settle()?;
            }
        }
        Ok(())
    }
}

pub fn say(what: &str) {
    eprintln!("-- {what}");
}

/// Completes per second, the space they take, reopening, and expiry: on the same records, in this order.
pub fn stores(plan: &Plan<'_>, results: &mut Results) -> Result<()> {
    let mut guests = plan.start(&COMMITTING, "stores", results)?;
    let mut before = Vec::new();
    for guest in &mut guests {
        before.push(guest.measure()?.memory);
        plan.fill(guest, KIB)?;
    }
    for (guest, before) in guests.iter_mut().zip(before) {
        results.space.push(space(plan, guest, before)?);
    }
    for &body_bytes in plan.bodies {
        for committers in COMMITTERS {
            say(&format!("{committers} committers, {body_bytes} B"));
            results.completes.extend(completes(plan, &mut guests, committers, body_bytes)?);
        }
    }
    guests.retain(|guest| STORES.contains(&guest.kind));
    for guest in guests {
        let kind = guest.kind;
        say(&format!("{}: kill, reopen, expire", kind.name()));
        let mut guest = guest.kill_and_reopen()?;
        let millis = guest.opened_in;
        let records = plan.records;
        results.reopenings.push(Reopening { kind, records, body_bytes: KIB, millis });
        let expired: Expired = guest.expire(BESIDE, KIB, plan.millis)?;
        results.expiries.push(Expiry { kind, committers: BESIDE, expired });
    }
    Ok(())
}

fn completes(
    plan: &Plan<'_>,
    guests: &mut [Guest],
    committers: usize,
    body_bytes: usize,
) -> Result<Vec<Completes>> {
    let mut all: Vec<_> = guests
        .iter()
        .map(|guest| Completes { kind: guest.kind, committers, body_bytes, rounds: Vec::new() })
        .collect();
    for round in 0..plan.rounds {
        // Each after another one each time: what a store leaves to be done, its neighbour pays for.
        let mut order: Vec<usize> = (0..guests.len()).collect();
        order.sort_by_key(|at| mix(((round * guests.len()) + at) as u64));
        for at in order {
            all[at].rounds.push(guests[at].run(committers, body_bytes, plan.millis)?);
        }
    }
    Ok(all)
}

/// What there is after filling, and what one more record has written, all that follows included.
fn space(plan: &Plan<'_>, guest: &mut Guest, memory_before: u64) -> Result<Space> {
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
    let warmed = if RECYCLING.contains(&guest.kind) { plan.warmed() } else { 0 };
    let filled = (plan.records + warmed) as f64;
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
    let mut guests = plan.start(&kinds, "lookups", results)?;
    let in_log = plan.records..plan.records + plan.records / 100;
    for guest in &mut guests {
        plan.fill(guest, KIB)?;
        guest.fill(in_log.start, in_log.end - in_log.start, KIB)?;
    }
    let places: [(What, u64, u64); 4] = [
        (What::Hit, 0, plan.records),
        (What::HitInLog, in_log.start, in_log.end),
        (What::HitInOldest, 0, plan.records / 100),
        (What::Miss, UNKNOWN, 2 * UNKNOWN),
    ];
    let mut all: Vec<_> = guests
        .iter()
        .flat_map(|guest| {
            places.map(|(what, ..)| Lookups { kind: guest.kind, what, rounds: Vec::new() })
        })
        .collect();
    // The first round warms.
    for round in 0..=plan.rounds {
        let mut lookups = all.iter_mut();
        for guest in &mut guests {
            for (what, first, end) in places {
                let looked = guest.look_up(first, end, LOOKUPS)?;
                let expected = if what == What::Miss { 0 } else { LOOKUPS };
                anyhow::ensure!(looked.found == expected, "{}: {what:?}", guest.kind.name());
                let lookups = lookups.next().context("there is one for each")?;
                if round > 0 {
                    lookups.rounds.push(looked);
                }
            }
        }
    }
    results.lookups = all;
    if let Some(guest) = guests.iter_mut().find(|guest| guest.kind == Kind::RefrainSegments) {
        let before = guest.measure()?;
        guest.look_up(UNKNOWN, 2 * UNKNOWN, LOOKUPS)?;
        let after = guest.measure()?;
        let asked = |measured: &Measured| measured.fact("segment lookups").unwrap_or_default();
        results.segments_asked = Some((asked(&after) - asked(&before)) / LOOKUPS as f64);
        let facts = after.facts.iter().map(|(name, n)| format!("{name} {n:.2}"));
        say(&format!("refrain: {}", facts.collect::<Vec<_>>().join(", ")));
    }
    Ok(())
}

/// Opening after a kill, with many small records.
pub fn reopening(plan: &Plan<'_>, results: &mut Results) -> Result<()> {
    const BODY_BYTES: usize = 200;
    for &records in plan.killed {
        for mut guest in plan.start(&[Kind::Refrain], "killed", results)? {
            let kind = guest.kind;
            say(&format!("{}: {records} records of {BODY_BYTES} B, then kill", kind.name()));
            guest.fill(0, records, BODY_BYTES)?;
            let guest = guest.kill_and_reopen()?;
            let millis = guest.opened_in;
            results.reopenings.push(Reopening { kind, records, body_bytes: BODY_BYTES, millis });
        }
        std::fs::remove_dir_all(plan.directory.join("killed"))?;
    }
    Ok(())
}

/// The tail of latencies while files come and go, and where none does.
pub fn stalls(plan: &Plan<'_>, results: &mut Results) -> Result<()> {
    let mut guests = plan.start(&[Kind::RefrainBusy, Kind::RefrainCalm], "stalls", results)?;
    // The first round warms.
    completes(&Plan { rounds: 1, ..*plan }, &mut guests, USUAL, KIB)?;
    say("stalls");
    results.completes.extend(completes(plan, &mut guests, USUAL, KIB)?);
    Ok(())
}
