//! The plan of a group of histories, which its seed decides: requests of clients, and faults.

use std::time::Duration;

use super::node::LEASE;
use crate::chance::Chance;

/// The nodes of a group.
pub(super) const NODES: usize = 3;
/// The histories of a group, which share its nodes and its faults, and nothing else.
pub(super) const HISTORIES: usize = 40;
/// Clients of a history, each with one request at a time.
const CLIENTS: usize = 3;
const STEPS: usize = 10;
/// The time from a group's start to its last fault.
const SPAN: Duration = Duration::from_secs(4);
/// Faults that may happen at the same time.
const TRACKS: usize = 2;
/// The retentions of a group's store. Records of the shorter one expire while the histories go on.
const RETENTIONS: [u64; 3] = [3_000, 3_000, 3_600_000];
/// The TTLs of a history: the shortest, and by how much more one may be.
const TTLS: [(u64, u64); 4] = [(20, 200), (200, 1_000), (500, 2_000), (3_000, 1)];

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) retention: Duration,
    pub(super) histories: Vec<History>,
    pub(super) tracks: Vec<Vec<Fault>>,
}

#[derive(Debug)]
pub(super) struct History {
    pub(super) number: u64,
    pub(super) keys: u32,
    pub(super) clients: Vec<Client>,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) keys: u32,
    /// The shortest TTL of its operations, and by how much more it may be.
    pub(super) ttls: (u64, u64),
    /// The chance of each step.
    pub(super) steps: Vec<Chance>,
}

/// A fault, after a pause since the one before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) pause: Duration,
    pub(super) kind: Kind,
    pub(super) node: usize,
    pub(super) lasts: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// SIGKILL, and a new process after a while.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Stop,
    /// The node's connections are reset, and new ones refused for a while.
    Cut,
    /// The network keeps what is sent for a while, in both directions.
    Stall,
    /// The database ends the node's connections.
    Terminate,
    /// All nodes are cut off.
    Outage,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Kill, Self::Stop, Self::Cut, Self::Stall, Self::Terminate, Self::Outage];

    /// The plural that figures name it by.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kills",
            Self::Stop => "stops",
            Self::Cut => "cuts",
            Self::Stall => "stalls",
            Self::Terminate => "terminations",
            Self::Outage => "outages",
        }
    }
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let retention = RETENTIONS[chance.below(RETENTIONS.len())];
        let histories = (0..HISTORIES as u64).map(|number| history(number, &mut chance)).collect();
        let tracks = (0..TRACKS).map(|_| track(&mut chance)).collect();
        Self { retention: Duration::from_millis(retention), histories, tracks }
    }
}

fn history(number: u64, chance: &mut Chance) -> History {
    let keys = 1 + u32::from(chance.one_in(3));
    let ttls = TTLS[chance.below(TTLS.len())];
    let clients = (0..CLIENTS)
        .map(|client| Client {
            name: format!("h{number}-{client}"),
            keys,
            ttls,
            steps: (0..STEPS).map(|_| Chance::new(chance.draw())).collect(),
        })
        .collect();
    History { number, keys, clients }
}

fn track(chance: &mut Chance) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut time = Duration::ZERO;
    while time < SPAN {
        let fault = fault(chance);
        time += fault.pause + fault.lasts;
        faults.push(fault);
    }
    faults
}

fn fault(chance: &mut Chance) -> Fault {
    let lease = LEASE.as_millis() as usize;
    let kind = match chance.below(14) {
        0..=2 => Kind::Kill,
        3..=5 => Kind::Stop,
        6..=8 => Kind::Cut,
        9..=11 => Kind::Stall,
        12 => Kind::Terminate,
        _ => Kind::Outage,
    };
    // Shorter than a lease, about as long, and longer.
    let lasts = match kind {
        Kind::Terminate => 0,
        _ => [lease / 4, lease, 3 * lease][chance.below(3)] + chance.below(lease),
    };
    let millis = |count: usize| Duration::from_millis(count as u64);
    Fault {
        pause: millis(50 + chance.below(500)),
        kind,
        node: chance.below(NODES),
        lasts: millis(lasts),
    }
}
