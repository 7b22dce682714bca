//! What may happen to a store: the steps that histories are made of.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::chance::Chance;
use crate::model::{HOUR, Name, TTL};

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a response.
    Complete,
    /// Done, with no response to replay.
    CompleteWithoutResponse,
    /// Nothing happened.
    Release,
    /// The permit is dropped.
    Drop,
    /// Nobody knows what happened.
    Interrupt,
    /// It goes on, until another step ends it or the process dies.
    Hold,
}

/// What is made of an interrupted run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It stays interrupted.
    Leave,
    /// It had this response.
    Complete,
    /// It did nothing.
    Release,
    /// It runs again, and ends so.
    Retry(End),
}

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A request comes, with what it wants, and ends so if it gets to run.
    Begin {
        /// Its key.
        name: Name,
        /// What it wants.
        body: u8,
        /// How it claims the key.
        durable: bool,
        /// How long its record is kept.
        ttl: Duration,
        /// How it ends.
        end: End,
    },
    /// One of the runs that go on ends.
    EndHeld {
        /// Which.
        which: u8,
        /// How.
        end: End,
    },
    /// All runs that go on end at once, in their own ways.
    EndAll {
        /// How the first ends, and the others in turn.
        first: u8,
    },
    /// Many requests for new keys are done at once.
    Burst {
        /// How many.
        count: u8,
    },
    /// A run that goes on stores a recovery point.
    Checkpoint {
        /// Which.
        which: u8,
    },
    /// An interrupted run is judged; if there is none, it is a look.
    Resume {
        /// Its key.
        name: Name,
        /// What the request wants.
        body: u8,
        /// The judgement.
        judgement: Judgement,
    },
    /// A durable claim is given up while it is being made.
    GiveUp {
        /// Its key.
        name: Name,
    },
    /// A key is forgotten.
    Forget {
        /// Which.
        name: Name,
    },
    /// Time passes.
    Advance {
        /// How much.
        hours: u8,
    },
    /// The wall clock steps, away from the right time by so much.
    Wall {
        /// How far.
        hours: i8,
    },
    /// The background thread does all that is due.
    Reap,
    /// The process ends, and a new one opens the store.
    Restart {
        /// Whether it could close it.
        cleanly: bool,
    },
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Complete),
        1 => Just(End::CompleteWithoutResponse),
        1 => Just(End::Release),
        2 => Just(End::Drop),
        1 => Just(End::Interrupt),
        3 => Just(End::Hold),
    ]
}

/// Steps on a few keys that are used over and over.
pub fn step() -> impl Strategy<Value = Step> {
    let name = || (0..2_u8, 0..2_u32);
    let ttl = prop_oneof![3 => Just(TTL), 1 => Just(2 * HOUR)];
    let judgement = prop_oneof![
        Just(Judgement::Leave),
        Just(Judgement::Complete),
        Just(Judgement::Release),
        end().prop_map(Judgement::Retry),
    ];
    prop_oneof![
        12 => (name(), 0..2_u8, any::<bool>(), ttl, end()).prop_map(
            |(name, body, durable, ttl, end)| Step::Begin { name, body, durable, ttl, end }
        ),
        4 => (any::<u8>(), end()).prop_map(|(which, end)| Step::EndHeld { which, end }),
        2 => any::<u8>().prop_map(|first| Step::EndAll { first }),
        2 => (1..12_u8).prop_map(|count| Step::Burst { count }),
        2 => any::<u8>().prop_map(|which| Step::Checkpoint { which }),
        6 => (name(), 0..2_u8, judgement)
            .prop_map(|(name, body, judgement)| Step::Resume { name, body, judgement }),
        1 => name().prop_map(|name| Step::GiveUp { name }),
        2 => name().prop_map(|name| Step::Forget { name }),
        3 => (1..30_u8).prop_map(|hours| Step::Advance { hours }),
        1 => (-48..48_i8).prop_map(|hours| Step::Wall { hours }),
        2 => Just(Step::Reap),
        2 => any::<bool>().prop_map(|cleanly| Step::Restart { cleanly }),
    ]
}

/// Any steps.
pub fn any_steps(count: usize, chance: &mut Chance) -> Vec<Step> {
    draw(step(), count, chance)
}

/// The steps that four bytes each choose.
pub fn decode(bytes: &[u8]) -> Vec<Step> {
    bytes.as_chunks().0.iter().map(|bytes| Step::choose(*bytes)).collect()
}

impl Step {
    fn choose([kind, key, how, much]: [u8; 4]) -> Self {
        let name = (key & 1, u32::from(key >> 1 & 1));
        let body = key >> 2 & 1;
        match kind % 12 {
            0..3 => Self::Begin {
                name,
                body,
                durable: key & 8 != 0,
                ttl: if key & 16 == 0 { TTL } else { 2 * HOUR },
                end: End::choose(how),
            },
            3 => Self::EndHeld { which: much, end: End::choose(how) },
            4 => Self::EndAll { first: much },
            5 => Self::Burst { count: much % 12 },
            6 => Self::Checkpoint { which: much },
            7 => Self::Resume { name, body, judgement: Judgement::choose(how) },
            8 => {
                if how & 1 == 0 {
                    Self::Forget { name }
                } else {
                    Self::GiveUp { name }
                }
            }
            9 if how & 3 == 0 => Self::Wall { hours: much.cast_signed() % 48 },
            9 => Self::Advance { hours: much % 30 },
            10 => Self::Reap,
            _ => Self::Restart { cleanly: how & 1 == 0 },
        }
    }
}

impl End {
    const ALL: [Self; 6] = [
        Self::Complete,
        Self::CompleteWithoutResponse,
        Self::Release,
        Self::Drop,
        Self::Interrupt,
        Self::Hold,
    ];

    fn choose(byte: u8) -> Self {
        Self::ALL[usize::from(byte) % Self::ALL.len()]
    }
}

impl Judgement {
    fn choose(byte: u8) -> Self {
        match byte % 4 {
            0 => Self::Leave,
            1 => Self::Complete,
            2 => Self::Release,
            _ => Self::Retry(End::choose(byte >> 2)),
        }
    }
}

/// Steps without those of the wall clock, which decides over a reboot, so that a cut can come after.
pub fn steps(count: usize, chance: &mut Chance) -> Vec<Step> {
    let leave_the_clock = |step: &Step| !matches!(step, Step::Wall { .. });
    draw(step().prop_filter("the wall clock decides", leave_the_clock), count, chance)
}

fn draw(step: impl Strategy<Value = Step>, count: usize, chance: &mut Chance) -> Vec<Step> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&chance.draw().to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = prop::collection::vec(step, count).new_tree(&mut runner);
    steps.expect("most steps are none of the wall clock").current()
}
