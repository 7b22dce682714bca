//! Histories compared with the model: random long ones, and all short ones.

use refrain::Error;

use crate::chance::Chance;
use crate::history::History;
use crate::model::{Name, TTL};
use crate::step::{End, Judgement, Step, any_steps};
use crate::trial::{self, Failure};

/// Steps of a long history.
const STEPS: usize = 100;
const NAMES: [Name; 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// Lives through a long history.
///
/// # Errors
///
/// If the store's answer differs from the model's.
pub fn long(seed: u64) -> Result<u64, Failure> {
    trial::run(
        || format!("histories --seed {seed}"),
        || live(&any_steps(STEPS, &mut Chance::new(seed))).map(|()| 1),
    )
}

/// The number of beginnings of two steps.
pub fn beginnings() -> u64 {
    (first_steps().len() * alphabet().len()) as u64
}

/// Lives through all histories of up to four steps with one of the beginnings.
///
/// Histories whose first step is on another key are left out: they are the same with the names
/// exchanged.
///
/// # Errors
///
/// If the store's answer differs from the model's.
pub fn short(beginning: u64) -> Result<u64, Failure> {
    let alphabet = alphabet();
    let beginning = usize::try_from(beginning).unwrap_or_default();
    let one = first_steps()[beginning / alphabet.len()];
    let two = alphabet[beginning % alphabet.len()];
    let again = || format!("short --seed {beginning}");
    trial::run(again, || {
        for three in &alphabet {
            for four in &alphabet {
                let steps = [one, two, *three, *four];
                live(&steps).map_err(|what| format!("{steps:?}: {what}"))?;
            }
        }
        Ok((alphabet.len() * alphabet.len()) as u64)
    })
}

/// The steps of which short histories consist.
fn alphabet() -> Vec<Step> {
    let mut steps = vec![
        Step::Advance { hours: 25 },
        Step::Reap,
        Step::Restart { cleanly: false },
        Step::EndAll { first: 0 },
    ];
    for name in NAMES {
        let begin = |body, durable, end| Step::Begin { name, body, durable, ttl: TTL, end };
        steps.extend([
            begin(0, false, End::Complete),
            begin(0, true, End::Hold),
            begin(1, true, End::Drop),
            Step::Resume { name, body: 1, judgement: Judgement::Retry(End::Complete) },
            Step::Forget { name },
        ]);
    }
    steps
}

fn first_steps() -> Vec<Step> {
    let is_first = |step: &Step| match step {
        Step::Begin { name, .. } | Step::Resume { name, .. } | Step::Forget { name } => {
            *name == NAMES[0]
        }
        _ => true,
    };
    alphabet().into_iter().filter(is_first).collect()
}

/// Takes the steps, asks about every key, and asks again in a new process.
///
/// # Errors
///
/// An error of the store.
///
/// # Panics
///
/// If the store's answer differs from the model's.
pub fn live(steps: &[Step]) -> Result<(), String> {
    let failed = |error: Error| format!("on a sound disk: {error:?}");
    let mut history = History::new(0);
    history.open().map_err(failed)?;
    for step in steps {
        history.step_on_a_sound_disk(*step)?;
    }
    history.look().map_err(failed)?;
    history.kill();
    history.open().and_then(|()| history.look()).map_err(failed)
}
