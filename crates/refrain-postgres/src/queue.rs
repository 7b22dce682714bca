//! Group commit by the client: claims and completions that wait go into one statement.
//!
//! ```text
//!  few in flight:   each at once, a plain prepared statement on a connection of its own
//!  many in flight:  queue ──► up to 256 at a time ──► one of two lanes
//! ```
//!
//! A batch of one costs more than a plain statement, and lanes queue behind each other's sync, so
//! batches begin where there are enough operations to fill them.
//!
//! A claim finds out in one statement that a key is new, and in two that it is not; a read that
//! comes first does the reverse. What most of the latest keys were decides.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batch::{Answers, Round};
use crate::deadlines::Deadlines;
use crate::job::{Job, Outcome, Reply, Work};
use crate::pool::Pool;
use crate::ring::Ring;
use crate::session::Session;
use crate::statements::Statements;
use crate::trouble::Trouble;

/// Operations in flight up to which each has a connection of its own.
const SINGLES: usize = 16;
/// Connections that batches of one kind share.
const LANES: usize = 2;
/// Operations in a batch.
const BATCH: usize = 256;
/// Pauses between the tries of one batch.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

pub(crate) struct Queue {
    runtime: Handle,
    pool: Arc<Pool>,
    session: Arc<Session>,
    statements: Arc<Statements>,
    ring: Arc<Ring>,
    deadlines: Arc<Deadlines>,
    known: Share,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_flight: usize,
    reads: Waiting,
    writes: Waiting,
}

/// The jobs that wait for the lanes of one kind.
#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    lanes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Finds, and claims whose keys are probably known.
    Read,
    Write,
}

impl Queue {
    pub(crate) fn new(
        runtime: Handle,
        pool: Arc<Pool>,
        session: Arc<Session>,
        statements: Arc<Statements>,
        ring: Arc<Ring>,
        deadlines: Arc<Deadlines>,
    ) -> Self {
        let (known, state) = (Share::default(), Mutex::default());
        Self { runtime, pool, session, statements, ring, deadlines, known, state }
    }

    /// Does the work, and waits for its outcome.
    pub(crate) async fn run(
        self: &Arc<Self>,
        work: Work,
        until: Option<Instant>,
    ) -> Result<Outcome, Trouble> {
        let (reply, outcome) = oneshot::channel();
        self.submit(Job::new(work, until, Some(reply)));
        outcome.await.unwrap_or(Err(Trouble::Closed))
    }

    /// Does the work, and has the reply told at its deadline if the outcome is not known by then.
    pub(crate) fn run_in_time(self: &Arc<Self>, work: Work, reply: impl Reply + 'static) {
        let deadline = self.deadlines.next();
        let job = Job::new(work, Some(deadline), reply);
        self.deadlines.watch(deadline, &job.reply);
        self.submit(job);
    }

    fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state();
        state.in_flight += 1;
        let kind = match job.work {
            Work::Find(_) => Kind::Read,
            // Replays pass by writes that pile up.
            Work::Claim(_) if self.known.is_large() || state.writes.jobs.len() > BATCH => {
                Kind::Read
            }
            Work::Claim(_) | Work::Complete(_) => Kind::Write,
        };
        if state.in_flight <= SINGLES && state.reads.jobs.is_empty() && state.writes.jobs.is_empty()
        {
            drop(state);
            let queue = Arc::clone(self);
            self.runtime.spawn(async move { queue.do_at_once(kind, job).await });
            return;
        }
        self.enqueue(state, kind, [job]);
    }

    fn enqueue(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        kind: Kind,
        jobs: impl IntoIterator<Item = Job>,
    ) {
        let waiting = state.of(kind);
        waiting.jobs.extend(jobs);
        if waiting.lanes < LANES && !waiting.jobs.is_empty() {
            waiting.lanes += 1;
            drop(state);
            let queue = Arc::clone(self);
            self.runtime.spawn(async move { queue.lane(kind).await });
        }
    }

    async fn do_at_once(self: Arc<Self>, kind: Kind, job: Job) {
        let left = match kind {
            Kind::Read => self.do_all(Kind::Read, vec![job]).await,
            Kind::Write => vec![job],
        };
        if !left.is_empty() {
            self.do_all(Kind::Write, left).await;
        }
    }

    /// Takes batch after batch until nothing waits.
    async fn lane(self: Arc<Self>, kind: Kind) {
        loop {
            let batch = {
                let mut state = self.state();
                let waiting = state.of(kind);
                if waiting.jobs.is_empty() {
                    waiting.lanes -= 1;
                    return;
                }
                let size = waiting.jobs.len().min(BATCH);
                waiting.jobs.drain(..size).collect()
            };
            let left = self.do_all(kind, batch).await;
            if !left.is_empty() {
                self.enqueue(self.state(), Kind::Write, left);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics here")
    }

    /// Sends the jobs until each has its reply, and returns the claims whose keys a read has not
    /// found.
    async fn do_all(&self, kind: Kind, mut jobs: Vec<Job>) -> Vec<Job> {
        let (mut pause, longest) = PAUSES;
        let mut unknown = Vec::new();
        loop {
            // A claim that was sent before may have taken effect all the same.
            for job in jobs.extract_if(.., |job| job.is_over()) {
                self.reply(&job, Err(Trouble::Slow));
            }
            if jobs.is_empty() {
                return unknown;
            }
            match self.round(kind, &jobs).await {
                Ok(answers) if kind == Kind::Read => {
                    unknown.extend(self.settle_known(jobs, &answers));
                    return unknown;
                }
                Ok(answers) => jobs = self.settle(jobs, &answers),
                Err(trouble) if trouble.is_transient() => {
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(longest);
                    if kind == Kind::Write {
                        jobs = self.settle_claims_by_reading(jobs).await;
                    }
                }
                Err(trouble) if jobs.len() == 1 => {
                    let job = jobs.pop().expect("there is one");
                    self.reply(&job, Err(trouble));
                }
                // One of them is to blame, and answers for itself alone.
                Err(_) => {
                    for job in jobs.drain(..) {
                        unknown.extend(Box::pin(self.do_all(kind, vec![job])).await);
                    }
                }
            }
        }
    }

    /// Replies to the claims whose keys are known: a database that cannot be written to, being full
    /// or a standby, can still be read.
    async fn settle_claims_by_reading(&self, jobs: Vec<Job>) -> Vec<Job> {
        let is_claim = |job: &Job| matches!(job.work, Work::Claim(_));
        let (claims, mut others): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_claim);
        if claims.is_empty() {
            return others;
        }
        others.extend(match self.round(Kind::Read, &claims).await {
            Ok(answers) => self.settle_known(claims, &answers),
            Err(_) => claims,
        });
        others
    }

    async fn round(&self, kind: Kind, jobs: &[Job]) -> Result<Answers, Trouble> {
        let mut link = self.pool.take().await?;
        let round = Round {
            link: &link,
            statements: &self.statements,
            ring: &self.ring,
            session: self.session.id(),
        };
        let sent = match kind {
            Kind::Read => round.read(jobs).await,
            Kind::Write => round.write(jobs).await,
        };
        if let Err(trouble) = &sent
            && trouble.wants_new_link()
        {
            link.discard();
        }
        sent
    }

    /// Replies to the jobs whose outcome is known, and returns the others.
    fn settle(&self, jobs: Vec<Job>, answers: &Answers) -> Vec<Job> {
        let mut again = Vec::new();
        for job in jobs {
            match answers.outcome(&job.work) {
                Some(outcome) => self.reply(&job, Ok(outcome)),
                None => again.push(job),
            }
        }
        again
    }

    /// Replies to all but the claims whose keys were not found, and returns those.
    fn settle_known(&self, jobs: Vec<Job>, answers: &Answers) -> Vec<Job> {
        let mut unknown = Vec::new();
        for job in jobs {
            match (answers.outcome(&job.work), &job.work) {
                (Some(Outcome::Unknown), Work::Claim(_)) | (None, _) => unknown.push(job),
                (Some(outcome), _) => self.reply(&job, Ok(outcome)),
            }
        }
        unknown
    }

    fn reply(&self, job: &Job, outcome: Result<Outcome, Trouble>) {
        self.state().in_flight -= 1;
        match &outcome {
            Ok(Outcome::Won) => self.known.count(false),
            Ok(Outcome::Known(_)) => self.known.count(true),
            _ => {}
        }
        job.reply.lock().expect("nobody panics here").settle(outcome);
    }
}

impl State {
    fn of(&mut self, kind: Kind) -> &mut Waiting {
        match kind {
            Kind::Read => &mut self.reads,
            Kind::Write => &mut self.writes,
        }
    }
}

/// The share of claims, among the latest, whose keys were known: in parts of [`WHOLE`](Self::WHOLE).
#[derive(Default)]
struct Share(AtomicU32);

impl Share {
    const WHOLE: u32 = 1 << 16;
    /// The weight of the latest claim.
    const PART: u32 = 32;

    /// Counts a claim. Of two threads that count at once one may go uncounted, which does no harm.
    fn count(&self, is_known: bool) {
        let share = self.0.load(Ordering::Relaxed);
        let rest = share - share / Self::PART;
        let part = if is_known { Self::WHOLE / Self::PART } else { 0 };
        self.0.store(rest + part, Ordering::Relaxed);
    }

    fn is_large(&self) -> bool {
        self.0.load(Ordering::Relaxed) > Self::WHOLE / 2
    }
}
