//! Group commit by the client: claims and completions that wait go into one statement.
//!
//! ```text
//!  few in flight:   each at once, a plain prepared statement on a connection of its own
//!  many in flight:  queue ──► up to 256 at a time ──► one of two lanes
//! ```
//!
//! A batch of one costs more than a plain statement, and lanes queue behind each other's sync, so
//! batches begin where there are enough operations to fill them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::link::{Link, Pool};
use crate::session::Session;
use crate::statements::{Done, Line, SLOTS, Seen, Statements, state};
use crate::trouble::Trouble;

/// Operations in flight up to which each has a connection of its own.
const SINGLES: usize = 16;
/// Connections that batches share.
const LANES: usize = 2;
/// Operations in a batch.
const BATCH: usize = 256;
/// Pauses between the tries of one batch.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A claim to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) address: Uuid,
    pub(crate) attempt: Uuid,
    pub(crate) state: i16,
    pub(crate) ttl_ms: i64,
    /// The scope and the key, kept while a durable claim is open.
    pub(crate) scope: Option<Vec<u8>>,
    pub(crate) key: Option<String>,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) request_id: String,
}

impl Wanted {
    /// Returns the parameters of a statement that claims one key.
    pub(crate) fn given<'a>(&'a self, session: &'a i64) -> [Parameter<'a>; 9] {
        [
            &self.address,
            &self.attempt,
            &self.state,
            &self.ttl_ms,
            &self.scope,
            &self.key,
            &self.fingerprint,
            &self.request_id,
            session,
        ]
    }
}

/// A completion to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Completion {
    pub(crate) address: Uuid,
    pub(crate) attempt: Uuid,
    pub(crate) ttl_ms: i64,
    pub(crate) scope: Vec<u8>,
    pub(crate) key: String,
    pub(crate) payload: Bytes,
}

#[derive(Debug)]
pub(crate) enum Claimed {
    Won,
    /// The key was there before.
    Lost(Box<Seen>),
    /// The key was there, and is not any more; ask again.
    Passed,
}

#[derive(Debug)]
pub(crate) enum Completed {
    Done(Done),
    /// The attempt no longer has the key.
    Fenced,
}

type Reply<T> = oneshot::Sender<Result<T, Trouble>>;

enum Job {
    /// Given up at its deadline. It may have taken effect all the same.
    Claim(Wanted, Instant, Reply<Claimed>),
    /// Repeated until its outcome is known.
    Complete(Completion, Reply<Completed>),
}

pub(crate) struct Queue {
    pool: Arc<Pool>,
    session: Arc<Session>,
    statements: Arc<Statements>,
    slot_ms: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    in_flight: usize,
    lanes: usize,
}

impl Queue {
    pub(crate) fn new(
        pool: Arc<Pool>,
        session: Arc<Session>,
        statements: Arc<Statements>,
        slot_ms: i64,
    ) -> Self {
        Self { pool, session, statements, slot_ms, state: Mutex::default() }
    }

    pub(crate) async fn claim(
        self: &Arc<Self>,
        wanted: Wanted,
        until: Instant,
    ) -> Result<Claimed, Trouble> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Claim(wanted, until, reply));
        answer.await.unwrap_or(Err(Trouble::Closed))
    }

    pub(crate) async fn complete(
        self: &Arc<Self>,
        completion: Completion,
    ) -> Result<Completed, Trouble> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Complete(completion, reply));
        answer.await.unwrap_or(Err(Trouble::Closed))
    }

    fn submit(self: &Arc<Self>, job: Job) {
        let mut state = self.state();
        state.in_flight += 1;
        if state.in_flight <= SINGLES && state.waiting.is_empty() {
            drop(state);
            let queue = Arc::clone(self);
            tokio::spawn(async move { queue.run(vec![job]).await });
            return;
        }
        state.waiting.push_back(job);
        if state.lanes < LANES {
            state.lanes += 1;
            drop(state);
            let queue = Arc::clone(self);
            tokio::spawn(async move { queue.lane().await });
        }
    }

    /// Takes batch after batch until nothing waits.
    async fn lane(&self) {
        loop {
            let batch = {
                let mut state = self.state();
                if state.waiting.is_empty() {
                    state.lanes -= 1;
                    return;
                }
                let size = state.waiting.len().min(BATCH);
                state.waiting.drain(..size).collect()
            };
            self.run(batch).await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics here")
    }

    /// Sends the jobs until each has its answer.
    async fn run(&self, mut jobs: Vec<Job>) {
        let (mut pause, longest) = PAUSES;
        loop {
            self.drop_late(&mut jobs);
            if jobs.is_empty() {
                return;
            }
            match self.send(&jobs).await {
                Ok(answers) => jobs = self.settle(jobs, answers),
                Err(trouble) if trouble.is_transient() => {
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(longest);
                }
                Err(trouble) if jobs.len() == 1 => {
                    let job = jobs.pop().expect("there is one");
                    return self.answer(job, Err(trouble));
                }
                // One of them is to blame, and answers for itself alone.
                Err(_) => {
                    for job in jobs.drain(..) {
                        Box::pin(self.run(vec![job])).await;
                    }
                }
            }
        }
    }

    fn drop_late(&self, jobs: &mut Vec<Job>) {
        let now = Instant::now();
        let is_late = |job: &mut Job| match job {
            Job::Claim(_, until, reply) => *until <= now || reply.is_closed(),
            Job::Complete(..) => false,
        };
        for job in jobs.extract_if(.., is_late) {
            self.answer(job, Err(Trouble::Slow));
        }
    }

    /// Answers the jobs whose outcome is known, and returns the others.
    fn settle(&self, jobs: Vec<Job>, answers: Answers) -> Vec<Job> {
        let Answers { won, done, seen } = answers;
        let mut again = Vec::new();
        for job in jobs {
            let outcome = match &job {
                Job::Claim(wanted, ..) if won.contains(&wanted.attempt) => {
                    Outcome::Claimed(Claimed::Won)
                }
                Job::Claim(wanted, ..) => Outcome::Claimed(match seen.get(&wanted.address) {
                    // An earlier try, whose answer was lost.
                    Some(row) if row.attempt == wanted.attempt && !row.dead => Claimed::Won,
                    Some(row) => Claimed::Lost(Box::new(row.clone())),
                    None => Claimed::Passed,
                }),
                Job::Complete(wanted, _) => match done.get(&wanted.attempt) {
                    Some(done) => Outcome::Completed(Completed::Done(*done)),
                    None => match seen
                        .get(&wanted.address)
                        .filter(|row| row.attempt == wanted.attempt)
                    {
                        Some(Seen { state: state::DONE, expires_ms: Some(at), waited, .. }) => {
                            let (attempt, expires_ms, waited) = (wanted.attempt, *at, *waited);
                            Outcome::Completed(Completed::Done(Done {
                                attempt,
                                expires_ms,
                                waited,
                            }))
                        }
                        // Its slot was guessed wrong.
                        Some(_) => {
                            again.push(job);
                            continue;
                        }
                        None => Outcome::Completed(Completed::Fenced),
                    },
                },
            };
            self.answer(job, Ok(outcome));
        }
        again
    }

    fn answer(&self, job: Job, outcome: Result<Outcome, Trouble>) {
        self.state().in_flight -= 1;
        // Whoever asked may have gone.
        match (job, outcome) {
            (Job::Claim(_, _, reply), Ok(Outcome::Claimed(claimed))) => {
                let _ = reply.send(Ok(claimed));
            }
            (Job::Complete(_, reply), Ok(Outcome::Completed(completed))) => {
                let _ = reply.send(Ok(completed));
            }
            (Job::Claim(_, _, reply), Err(trouble)) => drop(reply.send(Err(trouble))),
            (Job::Complete(_, reply), Err(trouble)) => drop(reply.send(Err(trouble))),
            (Job::Claim(..) | Job::Complete(..), Ok(_)) => {
                unreachable!("an outcome is made for its job")
            }
        }
    }

    async fn send(&self, jobs: &[Job]) -> Result<Answers, Trouble> {
        let mut link = self.pool.take().await?;
        let sent = match jobs {
            [job] => self.send_one(&link, job).await,
            _ => self.send_many(&link, jobs).await,
        };
        if let Err(trouble) = &sent
            && trouble.wants_new_link()
        {
            link.discard();
        }
        sent
    }

    async fn send_one(&self, link: &Link, job: &Job) -> Result<Answers, Trouble> {
        let mut answers = Answers::default();
        let address = match job {
            Job::Claim(wanted, ..) => {
                let session = self.session.id();
                let sql = &self.statements.claim;
                let rows = link.query_prepared(sql, &wanted.given(&session)).await?;
                if !rows.is_empty() {
                    answers.won.push(wanted.attempt);
                    return Ok(answers);
                }
                wanted.address
            }
            Job::Complete(wanted, _) => {
                let guess = self.guess(wanted.ttl_ms);
                let rows = link
                    .query_prepared(
                        &self.statements.complete[slot(guess)],
                        &[
                            &wanted.address,
                            &wanted.attempt,
                            &wanted.ttl_ms,
                            &wanted.scope,
                            &wanted.key,
                            &&wanted.payload[..],
                            &guess,
                        ],
                    )
                    .await?;
                if let Some(row) = rows.first() {
                    answers.done.insert(wanted.attempt, Done::read(row)?);
                    return Ok(answers);
                }
                wanted.address
            }
        };
        let rows = link.query_prepared(&self.statements.find, &[&vec![address]]).await?;
        for row in &rows {
            answers.take(Line::Seen(Seen::from_row(row)?));
        }
        Ok(answers)
    }

    /// Sends claims and completions in one statement, each sorted by address, since opposite orders
    /// deadlock.
    async fn send_many(&self, link: &Link, jobs: &[Job]) -> Result<Answers, Trouble> {
        let claims = Claims::of(jobs);
        let completions = Completions::of(jobs);
        let session = self.session.id();
        // Completions whose TTLs differ by a slot or more go into several statements.
        let mut groups = completions.by_slot(|ttl_ms| self.guess(ttl_ms));
        let mut answers = Answers::default();
        let first = groups.pop();
        let rows = match (&first, claims.addresses.is_empty()) {
            (None, true) => return Ok(answers),
            (None, false) => {
                link.query_prepared(&self.statements.claims, &claims.parameters(&session)).await?
            }
            (Some((guess, group)), true) => {
                let sql = &self.statements.completions[slot(*guess)];
                link.query_prepared(sql, &group.parameters(guess)).await?
            }
            (Some((guess, group)), false) => {
                let mut parameters = claims.parameters(&session);
                parameters.extend(group.parameters(guess));
                link.query_prepared(&self.statements.both[slot(*guess)], &parameters).await?
            }
        };
        answers.read(&rows)?;
        for (guess, group) in &groups {
            let sql = &self.statements.completions[slot(*guess)];
            answers.read(&link.query_prepared(sql, &group.parameters(guess)).await?)?;
        }
        let unanswered: Vec<Uuid> = completions
            .attempts
            .iter()
            .zip(&completions.addresses)
            .filter(|(attempt, _)| !answers.done.contains_key(attempt))
            .map(|(_, address)| *address)
            .collect();
        if !unanswered.is_empty() {
            for row in &link.query_prepared(&self.statements.find, &[&unanswered]).await? {
                answers.take(Line::Seen(Seen::from_row(row)?));
            }
        }
        Ok(answers)
    }

    /// The slot of time in which a record that is completed now expires.
    pub(crate) fn guess(&self, ttl_ms: i64) -> i64 {
        self.session.now_ms().saturating_add(ttl_ms) / self.slot_ms
    }
}

/// The table of a slot of time.
pub(crate) fn slot(of_time: i64) -> usize {
    usize::try_from(of_time.rem_euclid(SLOTS)).unwrap_or_default()
}

enum Outcome {
    Claimed(Claimed),
    Completed(Completed),
}

#[derive(Default)]
struct Answers {
    won: Vec<Uuid>,
    done: HashMap<Uuid, Done>,
    seen: HashMap<Uuid, Seen>,
}

impl Answers {
    fn read(&mut self, rows: &[tokio_postgres::Row]) -> Result<(), Trouble> {
        for row in rows {
            self.take(Line::read(row)?);
        }
        Ok(())
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Won(attempt) => self.won.push(attempt),
            Line::Done(done) => drop(self.done.insert(done.attempt, done)),
            Line::Seen(seen) => drop(self.seen.insert(seen.address, seen)),
        }
    }
}

type Parameter<'a> = &'a (dyn tokio_postgres::types::ToSql + Sync);

/// The claims of a batch, column by column.
#[derive(Default)]
struct Claims<'a> {
    addresses: Vec<Uuid>,
    attempts: Vec<Uuid>,
    states: Vec<i16>,
    ttls: Vec<i64>,
    scopes: Vec<Option<&'a [u8]>>,
    keys: Vec<Option<&'a str>>,
    fingerprints: Vec<&'a [u8]>,
    request_ids: Vec<&'a str>,
}

impl<'a> Claims<'a> {
    fn of(jobs: &'a [Job]) -> Self {
        let mut claims: Vec<&Wanted> = jobs
            .iter()
            .filter_map(|job| match job {
                Job::Claim(wanted, ..) => Some(wanted),
                Job::Complete(..) => None,
            })
            .collect();
        claims.sort_unstable_by_key(|wanted| wanted.address);
        let mut columns = Self::default();
        for wanted in claims {
            columns.addresses.push(wanted.address);
            columns.attempts.push(wanted.attempt);
            columns.states.push(wanted.state);
            columns.ttls.push(wanted.ttl_ms);
            columns.scopes.push(wanted.scope.as_deref());
            columns.keys.push(wanted.key.as_deref());
            columns.fingerprints.push(&wanted.fingerprint);
            columns.request_ids.push(&wanted.request_id);
        }
        columns
    }

    fn parameters<'b>(&'b self, session: &'b i64) -> Vec<Parameter<'b>> {
        vec![
            &self.addresses,
            &self.attempts,
            &self.states,
            &self.ttls,
            &self.scopes,
            &self.keys,
            &self.fingerprints,
            &self.request_ids,
            session,
        ]
    }
}

/// The completions of a batch, column by column.
#[derive(Default)]
struct Completions<'a> {
    addresses: Vec<Uuid>,
    attempts: Vec<Uuid>,
    ttls: Vec<i64>,
    scopes: Vec<&'a [u8]>,
    keys: Vec<&'a str>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Completions<'a> {
    fn of(jobs: &'a [Job]) -> Self {
        let mut completions: Vec<&Completion> = jobs
            .iter()
            .filter_map(|job| match job {
                Job::Complete(completion, _) => Some(completion),
                Job::Claim(..) => None,
            })
            .collect();
        completions.sort_unstable_by_key(|completion| completion.address);
        let mut columns = Self::default();
        for completion in completions {
            columns.addresses.push(completion.address);
            columns.attempts.push(completion.attempt);
            columns.ttls.push(completion.ttl_ms);
            columns.scopes.push(&completion.scope);
            columns.keys.push(&completion.key);
            columns.payloads.push(&completion.payload);
        }
        columns
    }

    /// Groups those that go into the same body table.
    fn by_slot(&self, guess: impl Fn(i64) -> i64) -> Vec<(i64, Self)> {
        let mut groups: HashMap<i64, Self> = HashMap::new();
        for at in 0..self.addresses.len() {
            let group = groups.entry(guess(self.ttls[at])).or_default();
            group.addresses.push(self.addresses[at]);
            group.attempts.push(self.attempts[at]);
            group.ttls.push(self.ttls[at]);
            group.scopes.push(self.scopes[at]);
            group.keys.push(self.keys[at]);
            group.payloads.push(self.payloads[at]);
        }
        groups.into_iter().collect()
    }

    fn parameters<'b>(&'b self, guess: &'b i64) -> Vec<Parameter<'b>> {
        vec![
            &self.addresses,
            &self.attempts,
            &self.ttls,
            &self.scopes,
            &self.keys,
            &self.payloads,
            guess,
        ]
    }
}
