//! The steps that histories are made of: all that may happen to a store.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::chance::Chance;
use crate::model::{HOUR, Name, TTL};

/// The end of a run.
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
    /// The run goes on, until another step ends it or the process dies.
    Hold,
}

/// The judgement on an interrupted run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The run stays interrupted.
    Leave,
    /// The run had this response.
    Complete,
    /// The run did nothing.
    Release,
    /// The operation runs again, and ends so.
    Retry(End),
}

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A request comes, and ends so if it gets to run.
    Begin {
        /// The request's key.
        name: Name,
        /// The request's body.
        body: u8,
        /// True if the claim is durable.
        durable: bool,
        /// The time that the record is kept.
        ttl: Duration,
        /// The end of the run.
        end: End,
    },
    /// One of the runs that go on ends.
    EndHeld {
        /// The number of the run.
        which: u8,
        /// The end of the run.
        end: End,
    },
    /// All runs that go on end at once, in their own ways.
    EndAll {
        /// The end of the first run; the others follow in turn.
        first: u8,
    },
    /// Many requests for new keys are done at once.
    Burst {
        /// The number of requests.
        count: u8,
    },
    /// A run that goes on stores a recovery point.
    Checkpoint {
        /// The number of the run.
        which: u8,
    },
    /// An interrupted run is judged; if there is none, the step is a lookup.
    Resume {
        /// The run's key.
        name: Name,
        /// The request's body.
        body: u8,
        /// The judgement.
        judgement: Judgement,
    },
    /// A durable claim is given up while it is being made.
    GiveUp {
        /// The claim's key.
        name: Name,
    },
    /// A key is forgotten.
    Forget {
        /// The key.
        name: Name,
    },
    /// Time passes.
    Advance {
        /// The number of hours.
        hours: u8,
    },
    /// The wall clock steps away from the right time.
    Wall {
        /// The number of hours, back if negative.
        hours: i8,
    },
    /// The background thread does all that is due.
    Reap,
    /// The bytes of what is not live any more are removed.
    Purge,
    /// The process ends, and a new one opens the store.
    Restart {
        /// True if the process could close the store.
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
        1 => Just(Step::Purge),
        2 => any::<bool>().prop_map(|cleanly| Step::Restart { cleanly }),
    ]
}

/// Any steps.
pub fn any_steps(count: usize, chance: &mut Chance) -> Vec<Step> {
    draw(step(), count, chance)
}

/// The steps that the bytes choose, four bytes a step.
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
            10 if how & 3 == 0 => Self::Purge,
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

/// Steps without those of the wall clock, so that a cut can come after: over a reboot, the wall
/// clock decides.
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
