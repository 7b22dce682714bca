//! Group commit by the client: claims and completions that wait go into one statement.
//!
//! ```text
//!  few in flight:   each at once, a plain prepared statement on a connection of its own
//!  many in flight:  queue ──► up to 256 at a time ──► one of three lanes
//! ```
//!
//! A batch of a few costs more than plain statements do, and every commit waits for those before
//! it, so batches begin where there are enough operations to fill them, and go on through moments in
//! which there are not.
//!
//! A claim finds out in one statement that a key is new, and in two that it is not; a read that
//! comes first does the reverse. What most of the latest keys were decides.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batch::{Answers, Round};
use crate::deadlines::Deadlines;
use crate::job::{Job, Outcome, Reply, Work};
use crate::lanes::{BATCH, Lanes};
use crate::pool::Pool;
use crate::ring::Ring;
use crate::session::Session;
use crate::share::Share;
use crate::statements::Statements;
use crate::trouble::Trouble;

/// Operations in flight up to which each has a connection of its own.
const SINGLES: usize = 4;
/// How long more than these are remembered, and how long a batch may keep fewer jobs than it has
/// from a lane of their own.
const MOMENT: Duration = Duration::from_millis(100);
/// Pauses between the tries of one batch.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

pub(crate) struct Queue {
    pub(crate) runtime: Handle,
    pub(crate) pool: Arc<Pool>,
    pub(crate) session: Arc<Session>,
    pub(crate) statements: Arc<Statements>,
    pub(crate) ring: Arc<Ring>,
    deadlines: Arc<Deadlines>,
    known: Share,
    state: Mutex<State>,
    /// The latest trouble of a kind of statement, since one of that kind has succeeded.
    last_trouble: Mutex<Option<(Kind, Arc<Trouble>)>>,
}

#[derive(Default)]
struct State {
    in_flight: usize,
    /// Set while there are more than a few in flight, and for a moment after it.
    crowded_until: Option<Instant>,
    reads: Lanes,
    writes: Lanes,
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
        let (known, state, last_trouble) = Default::default();
        Self { runtime, pool, session, statements, ring, deadlines, known, state, last_trouble }
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

    /// Returns the reason why an outcome is late.
    pub(crate) fn late(&self) -> Trouble {
        let last_trouble = self.last_trouble();
        last_trouble.map_or(Trouble::Slow, |trouble| Trouble::SlowAfter(trouble.to_string()))
    }

    /// Returns the latest trouble, if no statement of its kind has succeeded since.
    pub(crate) fn last_trouble(&self) -> Option<Arc<Trouble>> {
        let last_trouble = self.last_trouble.lock().expect("nobody panics here");
        last_trouble.as_ref().map(|(_, trouble)| Arc::clone(trouble))
    }

    fn writes_fail(&self) -> bool {
        let last_trouble = self.last_trouble.lock().expect("nobody panics here");
        matches!(&*last_trouble, Some((Kind::Write, _)))
    }

    fn submit(self: &Arc<Self>, job: Job) {
        self.drop_over();
        let writes_fail = self.writes_fail();
        let mut state = self.state();
        state.in_flight += 1;
        let kind = match job.work {
            Work::Find(_) => Kind::Read,
            // Replays pass by writes that pile up, and by those that fail.
            Work::Claim(_)
                if writes_fail || self.known.is_large() || state.writes.waiting() > BATCH =>
            {
                Kind::Read
            }
            Work::Claim(_) | Work::Complete(_) => Kind::Write,
        };
        if state.is_crowded() {
            return self.enqueue(state, kind, [job]);
        }
        drop(state);
        self.spawn(kind, job);
    }

    /// Does a job by itself.
    fn spawn(self: &Arc<Self>, kind: Kind, job: Job) {
        let queue = Arc::clone(self);
        self.runtime.spawn(async move { queue.do_at_once(kind, job).await });
    }

    /// Gives up what has waited for a lane for too long, or the queue would grow for as long as the
    /// database is away.
    fn drop_over(&self) {
        let mut over = Vec::new();
        {
            let State { reads, writes, .. } = &mut *self.state();
            for lanes in [reads, writes] {
                over.extend(std::iter::from_fn(|| lanes.pop_over()));
            }
        }
        for job in over {
            self.reply(&job, Err(self.late()));
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        kind: Kind,
        jobs: impl IntoIterator<Item = Job>,
    ) {
        let lanes = state.of(kind);
        lanes.push(jobs);
        if lanes.open() {
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

    /// Takes batch after batch for as long as there is enough to do.
    async fn lane(self: Arc<Self>, kind: Kind) {
        let next_batch = || self.state().of(kind).next_batch();
        while let Some(batch) = next_batch() {
            let left = self.carry(kind, batch).await;
            if !left.is_empty() {
                self.enqueue(self.state(), Kind::Write, left);
            }
        }
    }

    /// Does the jobs of a batch. Those that wait meanwhile have a lane of their own once there are
    /// as many of them, or if it takes long.
    async fn carry(self: &Arc<Self>, kind: Kind, batch: Vec<Job>) -> Vec<Job> {
        let size = batch.len();
        let mut work = std::pin::pin!(self.do_all(kind, batch));
        let brief = tokio::time::timeout(MOMENT, &mut work).await;
        self.state().of(kind).count_out(size);
        match brief {
            Ok(left) => left,
            Err(_) => {
                self.enqueue(self.state(), kind, []);
                work.await
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics here")
    }

    /// Sends the jobs until each has its reply, and returns the claims whose keys a read has not
    /// found.
    async fn do_all(self: &Arc<Self>, kind: Kind, mut jobs: Vec<Job>) -> Vec<Job> {
        let (mut pause, longest) = PAUSES;
        loop {
            for job in jobs.extract_if(.., |job| job.is_over()) {
                self.reply(&job, Err(self.late()));
            }
            if jobs.is_empty() {
                return jobs;
            }
            let is_first = pause == PAUSES.0;
            match self.round(kind, &mut jobs).await {
                Ok(answers) if kind == Kind::Read => return self.reply_where_found(jobs, &answers),
                Ok(answers) => jobs = self.reply_where_known(jobs, &answers),
                Err(trouble) if !trouble.is_transient() => {
                    return self.blame(kind, jobs, trouble).await;
                }
                // The others need not wait for a row that one of them waits for.
                Err(trouble) if !is_first && trouble.may_be_of_one() && jobs.len() > 1 => {
                    jobs.drain(..).for_each(|job| self.spawn(kind, job));
                    return jobs;
                }
                Err(_) if kind == Kind::Write => jobs = self.reply_by_reading(jobs).await,
                Err(_) => {}
            }
            if jobs.is_empty() {
                return jobs;
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Finds out which of the jobs has a statement refused for good.
    async fn blame(self: &Arc<Self>, kind: Kind, mut jobs: Vec<Job>, trouble: Trouble) -> Vec<Job> {
        if jobs.len() > 1 {
            let mut unknown = Vec::new();
            for job in jobs {
                unknown.extend(Box::pin(self.do_all(kind, vec![job])).await);
            }
            return unknown;
        }
        if let Some(job) = jobs.pop() {
            match job.work {
                // Its effects have happened, so it is tried until it is recorded, as when a
                // password or a right comes back.
                Work::Complete(_) => self.insist(job, trouble),
                Work::Claim(_) | Work::Find(_) => self.reply(&job, Err(trouble)),
            }
        }
        jobs
    }

    /// Tells the caller of a completion what the trouble is, and tries again after the longest pause.
    fn insist(self: &Arc<Self>, job: Job, trouble: Trouble) {
        job.reply.lock().expect("nobody panics here").tell(trouble);
        let queue = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(PAUSES.1).await;
            queue.do_at_once(Kind::Write, job).await;
        });
    }

    /// Replies to the claims whose keys are known: a database that cannot be written to, being full
    /// or a standby, can still be read.
    async fn reply_by_reading(&self, jobs: Vec<Job>) -> Vec<Job> {
        let is_claim = |job: &Job| matches!(job.work, Work::Claim(_));
        let (mut claims, mut others): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_claim);
        if claims.is_empty() {
            return others;
        }
        others.extend(match self.round(Kind::Read, &mut claims).await {
            Ok(answers) => self.reply_where_found(claims, &answers),
            Err(_) => claims,
        });
        others
    }

    /// Sends the jobs once.
    async fn round(&self, kind: Kind, jobs: &mut [Job]) -> Result<Answers, Trouble> {
        let answers = self.round_through_a_link(kind, jobs).await;
        let mut last_trouble = self.last_trouble.lock().expect("nobody panics here");
        match answers {
            Ok(answers) => {
                // A database that cannot be written to can be read all the same.
                last_trouble.take_if(|(of, _)| *of == kind);
                Ok(answers)
            }
            Err(trouble) => {
                let trouble = Arc::new(trouble);
                *last_trouble = Some((kind, Arc::clone(&trouble)));
                Err(Trouble::Shared(trouble))
            }
        }
    }

    async fn round_through_a_link(&self, kind: Kind, jobs: &mut [Job]) -> Result<Answers, Trouble> {
        let mut link = self.pool.take().await?;
        let round = Round {
            link: &link,
            statements: &self.statements,
            ring: &self.ring,
            session: self.session.id(),
        };
        let sent = match kind {
            Kind::Read => round.read(jobs).await,
            Kind::Write => {
                jobs.iter_mut().for_each(|job| job.is_sent = true);
                round.write(jobs).await
            }
        };
        if let Err(trouble) = &sent
            && trouble.wants_new_link()
        {
            link.discard();
        }
        sent
    }

    /// Replies to the jobs whose outcome is known, and returns the others.
    fn reply_where_known(&self, jobs: Vec<Job>, answers: &Answers) -> Vec<Job> {
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
    fn reply_where_found(&self, jobs: Vec<Job>, answers: &Answers) -> Vec<Job> {
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
        job.reply.lock().expect("nobody panics here").end(outcome, job.is_sent);
    }
}

impl State {
    fn of(&mut self, kind: Kind) -> &mut Lanes {
        match kind {
            Kind::Read => &mut self.reads,
            Kind::Write => &mut self.writes,
        }
    }

    /// Returns whether there are enough in flight for batches, or were a moment ago.
    fn is_crowded(&mut self) -> bool {
        if self.in_flight > SINGLES {
            self.crowded_until = Some(Instant::now() + MOMENT);
        }
        self.crowded_until.is_some_and(|until| Instant::now() < until)
    }
}
