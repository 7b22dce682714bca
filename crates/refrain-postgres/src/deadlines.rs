//! The callers that wait for an outcome, each of which is told at its deadline that it is late.
//!
//! Whatever keeps a job from its outcome, be it the queue, a silent connection or the database, its
//! caller has an answer in time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::job::{Reply, SharedReply};
use crate::trouble::Trouble;

pub(crate) struct Deadlines {
    /// The time from a job's start to its deadline, the same for all, so that they come in order.
    patience: Duration,
    waiting: Mutex<VecDeque<Waiting>>,
}

struct Waiting {
    deadline: Instant,
    reply: Weak<Mutex<dyn Reply>>,
}

impl Deadlines {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, waiting: Mutex::default() }
    }

    /// Returns the deadline of what starts now.
    pub(crate) fn next(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// Has the reply told once the deadline is over, if there is no outcome by then.
    pub(crate) fn watch(&self, deadline: Instant, reply: &SharedReply) {
        let mut waiting = self.waiting();
        while waiting.front().is_some_and(|first| first.reply.strong_count() == 0) {
            waiting.pop_front();
        }
        waiting.push_back(Waiting { deadline, reply: Arc::downgrade(reply) });
    }

    /// Tells all in their time, for ever, with the trouble that there is then.
    pub(crate) async fn keep(&self, late: impl Fn() -> Trouble) {
        loop {
            let next = self.waiting().front().map(|first| first.deadline);
            // What is added meanwhile is due later.
            tokio::time::sleep_until(next.unwrap_or_else(|| self.next())).await;
            for Waiting { reply, .. } in self.take_due() {
                if let Some(reply) = reply.upgrade() {
                    reply.lock().expect("nobody panics here").tell(late());
                }
            }
        }
    }

    fn take_due(&self) -> Vec<Waiting> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        let due = waiting.iter().take_while(|waiting| waiting.deadline <= now).count();
        waiting.drain(..due).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().expect("nobody panics here")
    }
}
