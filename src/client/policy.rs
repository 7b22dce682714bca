//! When a call is tried again, for `tower::retry`.

use std::pin::Pin;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tower::retry::Policy;
use tower::retry::backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff};
use tower::retry::budget::Budget;
use tower::util::rng::{HasherRng, Rng};

use super::ClientOptions;
use super::attempt::{Answered, Lost, Outgoing};
use super::error::Stop;

/// A pause is up to this much longer.
const JITTER: f64 = 0.5;

/// The patience of one call.
#[derive(Clone)]
pub(super) struct Patience {
    backoff: ExponentialBackoff,
    chance: HasherRng,
    budget: Arc<dyn Budget + Send + Sync>,
    max_attempts: u32,
    ends: Instant,
}

impl Patience {
    pub(super) fn new(options: &ClientOptions, ends: Instant) -> Self {
        let (shortest, longest) = options.backoff;
        // What it would add by chance it adds to fractions of seconds alone.
        let maker = ExponentialBackoffMaker::new(shortest, longest, 0.0, HasherRng::new());
        let backoff = maker.expect("the layer has seen to the order").make_backoff();
        let budget = Arc::clone(&options.budget);
        // Each call has its own chance: a clone of one would pause as long as the others.
        let chance = HasherRng::new();
        Self { backoff, chance, budget, max_attempts: options.max_attempts, ends }
    }

    /// When the next attempt may begin, or why there is none.
    fn next(&mut self, lost: &Lost) -> Result<Instant, Stop> {
        if !lost.passes {
            return Err(Stop::Final);
        }
        if lost.attempts >= self.max_attempts {
            return Err(Stop::Attempts);
        }
        let now = Instant::now();
        let told = now.checked_add(lost.retry_after.unwrap_or_default());
        let Some(told) = told else { return Err(Stop::Deadline) };
        let pause = self.backoff.next_backoff().deadline().duration_since(now);
        let at = (now + pause + pause.mul_f64(JITTER * self.chance.next_f64())).max(told);
        if at >= self.ends {
            return Err(Stop::Deadline);
        }
        if self.budget.withdraw() { Ok(at) } else { Err(Stop::Budget) }
    }
}

impl Policy<Outgoing, Answered, Box<Lost>> for Patience {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        request: &mut Outgoing,
        result: &mut Result<Answered, Box<Lost>>,
    ) -> Option<Self::Future> {
        let lost = match result {
            Ok(_) => {
                self.budget.deposit();
                return None;
            }
            Err(lost) => lost,
        };
        match self.next(lost) {
            Ok(at) => {
                request.attempt += 1;
                Some(Box::pin(sleep_until(at)))
            }
            Err(stop) => {
                lost.stop = stop;
                None
            }
        }
    }

    fn clone_request(&mut self, request: &Outgoing) -> Option<Outgoing> {
        request.again()
    }
}
