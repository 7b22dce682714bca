//! The retry policy of a call, for `tower::retry`.
//!
//! A lost attempt is repeated if it is transient, if attempts are left, if the pause ends before
//! the deadline, and if the budget has a retry left: in this order, so that the reason for stopping
//! is the first that applies.

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

/// The largest random extra of a pause, as a share of the pause.
const JITTER: f64 = 0.5;

/// The retry state of one call: pauses, budget, attempts and deadline.
#[derive(Clone)]
pub(super) struct Patience {
    backoff: ExponentialBackoff,
    chance: HasherRng,
    budget: Arc<dyn Budget + Send + Sync>,
    max_attempts: u32,
    ends: Instant,
}

impl Patience {
    /// Creates the policy of one call, which ends at `ends`.
    pub(super) fn new(options: &ClientOptions, ends: Instant) -> Self {
        let (shortest, longest) = options.backoff;
        // No jitter from tower, which adds it only to the fraction of a second; `next` adds its
        // own.
        let maker = ExponentialBackoffMaker::new(shortest, longest, 0.0, HasherRng::new());
        let backoff = maker.expect("`ClientLayer::backoff` checks the order").make_backoff();
        let budget = Arc::clone(&options.budget);
        // Each call has a generator of its own, or all calls would pause for the same time.
        let chance = HasherRng::new();
        Self { backoff, chance, budget, max_attempts: options.max_attempts, ends }
    }

    /// Returns the time of the next attempt, or the reason for not retrying.
    fn next(&mut self, lost: &Lost) -> Result<Instant, Stop> {
        if !lost.transient {
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
