//! The jobs that wait for the lanes of one kind, and when a lane has enough to do.
//!
//! ```text
//!  nothing is carried:     the first job opens a lane
//!  lanes carry batches:    another opens once as many wait as each of them carries
//!  a batch takes long:     it no longer counts
//! ```
//!
//! A statement costs nearly as much for a few operations as for many, and if a lane leaves at once
//! with the first few, all others wait for one more commit.

use std::collections::VecDeque;

use crate::job::Job;

/// Connections that batches of one kind share.
const LANES: usize = 3;
/// Operations in a batch, and bytes of their responses: a message of the protocol has a limit.
pub(crate) const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

#[derive(Default)]
pub(crate) struct Lanes {
    waiting: VecDeque<Job>,
    open: usize,
    /// Batches that are on their way and have not taken long yet, and the jobs in them.
    batches: usize,
    carried: usize,
}

impl Lanes {
    pub(crate) fn push(&mut self, jobs: impl IntoIterator<Item = Job>) {
        self.waiting.extend(jobs);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the job that has waited longest if it is over.
    pub(crate) fn pop_over(&mut self) -> Option<Job> {
        let is_over = self.waiting.front().is_some_and(Job::is_over);
        if is_over { self.waiting.pop_front() } else { None }
    }

    /// Returns whether the caller is to run another lane.
    pub(crate) fn open(&mut self) -> bool {
        let opens = self.open < LANES && self.is_enough();
        self.open += usize::from(opens);
        opens
    }

    /// The next batch of a lane that carries none. Without one, the lane is closed.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<Job>> {
        if !self.is_enough() {
            self.open -= 1;
            return None;
        }
        let mut bytes = 0;
        let fits = |job: &&Job| {
            bytes += job.work.bytes();
            bytes <= BATCH_BYTES
        };
        let size = self.waiting.iter().take(BATCH).take_while(fits).count().max(1);
        self.batches += 1;
        self.carried += size;
        Some(self.waiting.drain(..size).collect())
    }

    /// Counts a batch of so many jobs no longer: it is done, or takes long.
    pub(crate) fn count_out(&mut self, size: usize) {
        self.batches -= 1;
        self.carried -= size;
    }

    fn is_enough(&self) -> bool {
        !self.waiting.is_empty() && self.waiting.len() * self.batches >= self.carried
    }
}
