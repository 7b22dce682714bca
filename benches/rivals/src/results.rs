//! The results, as they are kept in `results.json`.

use serde::{Deserialize, Serialize};

use crate::Part;
use crate::host::Expired;
use crate::parts::KIB;
use crate::rivals::Kind;
use crate::workload::{Looked, Ran};

#[derive(Default, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    /// True for a quick run, which has too little of everything to be judged.
    pub quick: bool,
    /// Records in the store before the measurement.
    pub records: u64,
    pub rounds: usize,
    pub skipped: Vec<(Kind, String)>,
    pub completes: Vec<Completes>,
    pub space: Vec<Space>,
    pub lookups: Vec<Lookups>,
    /// Segments that refrain asked for each key that is unknown.
    pub segments_asked: Option<f64>,
    pub reopenings: Vec<Reopening>,
    pub expiries: Vec<Expiry>,
}

impl Results {
    /// Forgets the results of a part, which is measured anew.
    pub fn forget(&mut self, part: Part) {
        let is_stall = |kind| matches!(kind, Kind::RefrainBusy | Kind::RefrainCalm);
        match part {
            Part::Stores => {
                self.completes.retain(|it| is_stall(it.kind));
                self.reopenings.retain(|it| it.body_bytes != KIB);
                self.expiries.clear();
            }
            Part::Space => self.space.clear(),
            Part::Lookups => self.lookups.clear(),
            Part::Reopening => self.reopenings.retain(|it| it.body_bytes == KIB),
            Part::Stalls => self.completes.retain(|it| !is_stall(it.kind)),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
pub struct Machine {
    pub date: String,
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub file_system: String,
    pub versions: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
pub struct Completes {
    pub kind: Kind,
    pub committers: usize,
    pub body_bytes: usize,
    pub rounds: Vec<Ran>,
}

impl Completes {
    pub fn per_second(&self) -> f64 {
        median(self.rounds.iter().map(Ran::per_second))
    }

    pub fn cpu_us(&self) -> f64 {
        median(self.rounds.iter().map(|ran| ran.cpu_us))
    }

    pub fn p50_us(&self) -> f64 {
        median(self.rounds.iter().map(|ran| ran.p50_us))
    }

    pub fn p99_us(&self) -> f64 {
        median(self.rounds.iter().map(|ran| ran.p99_us))
    }
}

/// The space of a record with a body of this size.
#[derive(Serialize, Deserialize)]
pub struct Space {
    pub kind: Kind,
    pub body_bytes: usize,
    pub written: f64,
    pub on_disk: f64,
    /// The space in segments, for refrain.
    pub sealed: Option<f64>,
    pub memory: f64,
    pub facts: Vec<(String, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    Hit,
    HitInLog,
    HitInOldest,
    Miss,
}

#[derive(Serialize, Deserialize)]
pub struct Lookups {
    pub kind: Kind,
    pub what: What,
    pub rounds: Vec<Looked>,
}

impl Lookups {
    pub fn ns(&self) -> f64 {
        median(self.rounds.iter().map(|looked| looked.ns))
    }

    pub fn cpu_ns(&self) -> f64 {
        median(self.rounds.iter().map(|looked| looked.cpu_ns))
    }
}

#[derive(Serialize, Deserialize)]
pub struct Reopening {
    pub kind: Kind,
    pub records: u64,
    pub body_bytes: usize,
    pub millis: f64,
}

#[derive(Serialize, Deserialize)]
pub struct Expiry {
    pub kind: Kind,
    pub committers: usize,
    pub expired: Expired,
}

impl Results {
    pub fn completes(
        &self,
        kind: Kind,
        committers: usize,
        body_bytes: usize,
    ) -> Option<&Completes> {
        let is_it = |it: &&Completes| {
            (it.kind, it.committers, it.body_bytes) == (kind, committers, body_bytes)
        };
        self.completes.iter().find(is_it)
    }

    pub fn lookups(&self, kind: Kind, what: What) -> Option<&Lookups> {
        self.lookups.iter().find(|it| (it.kind, it.what) == (kind, what))
    }

    /// The lookups of a store, to be added to.
    pub fn lookups_of(&mut self, kind: Kind, what: What) -> &mut Lookups {
        let at = self.lookups.iter().position(|it| (it.kind, it.what) == (kind, what));
        let at = at.unwrap_or_else(|| {
            self.lookups.push(Lookups { kind, what, rounds: Vec::new() });
            self.lookups.len() - 1
        });
        &mut self.lookups[at]
    }

    pub fn space(&self, kind: Kind) -> Option<&Space> {
        self.space.iter().find(|it| it.kind == kind)
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
