//! The backend: what is known about a key, and who may have it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use refrain::backend::{Answer, Asked, Backend, Completion, Cursor, Hold, Past, Rules, Ticket};
use refrain::{Error, Fingerprint, Key, Record, Refusing, RequestId, Result, Scope, Stats, codec};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::address::Addresses;
use crate::claiming::Claiming;
use crate::elsewhere::Elsewhere;
use crate::job::{Outcome, Work};
use crate::link::Parameters;
use crate::pool::{Loan, Pool};
use crate::queue::Queue;
use crate::ring::Ring;
use crate::session::Session;
use crate::statements::{Seen, Sql, Statements, state};
use crate::trouble::Trouble;

/// The tries to forget a key that others take and free at the same time.
const TRIES: usize = 8;
/// How long a statement may be on its way once its connection has broken, and a little more: a
/// socket is given up after [`SILENCE`](crate::builder::SILENCE).
const STRAY: Duration = Duration::from_secs(15);
/// Pauses between the tries of one statement.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The store's tables, with the connections and the tasks that serve it.
pub(crate) struct Fleet {
    pub(crate) runtime: Handle,
    pub(crate) pool: Arc<Pool>,
    pub(crate) session: Arc<Session>,
    pub(crate) statements: Arc<Statements>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) addresses: Addresses,
    pub(crate) elsewhere: Arc<Elsewhere>,
    /// The schema's name, quoted.
    pub(crate) schema: String,
    pub(crate) retention_ms: i64,
    pub(crate) ring: Arc<Ring>,
    /// The error of the latest round in which this node swept, if it had one.
    pub(crate) last_trouble: Mutex<Option<String>>,
    pub(crate) rules: Rules,
    /// The longest time that the database may take to answer one call.
    pub(crate) patience: Duration,
    /// True once the store takes no more work.
    pub(crate) closing: watch::Sender<bool>,
}

/// The backend of a [`refrain::Store`].
#[derive(Debug)]
pub(crate) struct Postgres(pub(crate) Arc<Fleet>);

impl Postgres {
    /// Runs on the backend's own thread, and fills a ticket.
    fn run<T, F>(&self, work: impl FnOnce(Arc<Fleet>) -> F) -> Ticket<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (ticket, promise) = Ticket::new();
        let work = work(Arc::clone(&self.0));
        self.0.runtime.spawn(async move { promise.fulfil(work.await) });
        ticket
    }
}

impl Backend for Postgres {
    fn claim(&self, asked: Asked, hold: Hold) -> Ticket<Answer> {
        Claiming::start(&self.0, asked, hold)
    }

    fn find(&self, scope: Scope, key: &Key) -> Ticket<Option<Record>> {
        let address = self.0.addresses.of(scope, key);
        self.run(move |fleet| async move {
            let seen = fleet.find(address).await.map_err(unavailable)?;
            match seen.filter(Seen::is_live) {
                Some(row) => fleet.record(&row).map(Some).map_err(unavailable),
                None => Ok(None),
            }
        })
    }

    fn forget(&self, hold: Hold) -> Ticket<()> {
        self.run(|fleet| async move { fleet.forget(hold).await })
    }

    fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>> {
        self.run(move |fleet| async move { fleet.interrupted(after, max).await })
    }

    fn now(&self) -> SystemTime {
        self.0.session.now()
    }

    fn rules(&self) -> Rules {
        self.0.rules
    }

    fn check(&self) -> Result<()> {
        if *self.0.closing.borrow() { Err(Error::stopped()) } else { Ok(()) }
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let of_statements = self.0.queue.last_trouble().map(|trouble| trouble.to_string());
        let of_sweeper = || self.0.last_trouble.lock().expect("nobody panics here").clone();
        let of_session = self.0.session.trouble();
        // The session asks again by itself. The trouble of a statement lasts until the next request,
        // and none would come to a node that calls itself unavailable for it.
        stats.refusing = of_session.as_ref().map(|_| Refusing::Unavailable);
        stats.last_trouble = of_statements.or(of_session).or_else(of_sweeper);
        stats
    }

    fn reap(&self) -> Ticket<()> {
        self.run(|fleet| async move { fleet.sweep_once().await.map_err(unavailable) })
    }

    fn close(&self) -> Ticket<()> {
        // What was dropped or released is still told to the database, for as long as the thread
        // lingers.
        self.0.closing.send_replace(true);
        Ticket::ready(Ok(()))
    }
}

impl Fleet {
    /// Undoes a claim that may have been made, and that nobody runs under, until it is known to be
    /// undone: the session would keep the key for as long as it lives. One that is not there may
    /// still be on its way, so it is looked for twice.
    pub(crate) fn undo(self: &Arc<Self>, undo: Undo, address: Uuid, attempt: Uuid) {
        let fleet = Arc::clone(self);
        self.runtime.spawn(async move {
            if !fleet.undo_now(undo, address, attempt).await {
                tokio::time::sleep(STRAY).await;
                fleet.undo_now(undo, address, attempt).await;
            }
        });
    }

    /// Undoes a claim if it is there, and returns whether it was.
    pub(crate) async fn undo_now(
        self: &Arc<Self>,
        undo: Undo,
        address: Uuid,
        attempt: Uuid,
    ) -> bool {
        let sql = match undo {
            Undo::Release => &self.statements.release,
            Undo::GiveUp => &self.statements.give_up,
        };
        let undone = self.until_done(Part::Aside, sql, &[&address, &attempt], |_| {}).await;
        let Some(row) = undone.ok().and_then(|known| known.rows.into_iter().next()) else {
            return false;
        };
        if row.try_get(0).unwrap_or(false) {
            self.elsewhere.tell(self, address);
        }
        true
    }

    pub(crate) async fn find(&self, address: Uuid) -> Result<Option<Seen>, Trouble> {
        let until = Instant::now() + self.patience;
        let found = tokio::time::timeout_at(until, self.find_until(address, Some(until)));
        found.await.unwrap_or(Err(Trouble::Slow))
    }

    /// Reads the row of a key, however long that takes if there is no deadline.
    pub(crate) async fn find_until(
        &self,
        address: Uuid,
        until: Option<Instant>,
    ) -> Result<Option<Seen>, Trouble> {
        match self.queue.run(Work::Find(address), until).await? {
            Outcome::Known(seen) => Ok(Some(Arc::unwrap_or_clone(seen))),
            _ => Ok(None),
        }
    }

    /// The record of a key that is done.
    pub(crate) fn record(&self, seen: &Seen) -> Result<Record, Trouble> {
        let payload = seen.payload.as_ref().ok_or(Trouble::Damaged("a record has no body"))?;
        let expires_at = seen.expires_at.ok_or(Trouble::Damaged("a record has no end"))?;
        let completion = codec::decode_completion(payload);
        let completion = completion.map_err(|_| Trouble::Damaged("a body cannot be decoded"))?;
        Ok(record(completion, expires_at))
    }

    async fn forget(&self, hold: Hold) -> Result<()> {
        let address = self.addresses.of(hold.scope(), hold.key());
        for _ in 0..TRIES {
            let Some(seen) = self.find(address).await.map_err(unavailable)? else { return Ok(()) };
            if seen.state < state::INTERRUPTED && !seen.dead {
                if let Some(judge) = self.session.judge().filter(|_| seen.lapsed) {
                    let given = judge.over(&seen.session);
                    self.query(&self.statements.bury, &given).await.map_err(unavailable)?;
                    continue;
                }
                let holder = request_id(&seen.request_id).map_err(unavailable)?;
                return Err(Error::in_flight(holder));
            }
            let slot = usize::try_from(seen.slot).ok();
            let sql = slot.and_then(|slot| self.statements.forget_with_body.get(slot));
            let sql = sql.unwrap_or(&self.statements.forget);
            let given: Parameters<'_> = &[&address, &seen.attempt];
            let gone = self.query(sql, given).await.map_err(unavailable)?;
            if !gone.is_empty() {
                return Ok(());
            }
        }
        Err(unavailable(Trouble::Restless))
    }

    async fn interrupted(&self, after: Option<Cursor>, max: usize) -> Result<Vec<Past>> {
        let (scope, key) = match &after {
            Some(Cursor { scope, key }) => (&scope.as_bytes()[..], key.as_str()),
            None => (&[][..], ""),
        };
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let given: Parameters<'_> = &[&scope, &key, &limit];
        let rows = self.query(&self.statements.interrupted, given).await.map_err(unavailable)?;
        rows.iter().map(|row| self.past(row)).collect::<Result<_, _>>().map_err(unavailable)
    }

    fn past(&self, row: &tokio_postgres::Row) -> Result<Past, Trouble> {
        let checkpoints: Option<Vec<Vec<u8>>> = row.try_get(5)?;
        let first: Option<Uuid> = row.try_get(6)?;
        Ok(Past {
            scope: scope(row.try_get(0)?)?,
            key: key(row.try_get(1)?)?,
            fingerprint: fingerprint(row.try_get(2)?)?,
            request_id: request_id(row.try_get(3)?)?,
            attempt: attempt(row.try_get(4)?),
            checkpoints: checkpoints.unwrap_or_default().into_iter().map(Bytes::from).collect(),
            seed: first.map(|first| self.addresses.seed(first)),
        })
    }

    /// Runs a statement, again after a transient trouble, for as long as the caller may wait.
    pub(crate) async fn query(
        &self,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, Trouble> {
        let known = tokio::time::timeout(self.patience, self.until_known(sql, given));
        Ok(known.await.unwrap_or(Err(Trouble::Slow))?.rows)
    }

    /// Runs a statement until its outcome is known.
    pub(crate) async fn until_known(
        &self,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Known, Trouble> {
        self.repeat(Part::Whole, sql, given, false, Trouble::is_transient).await
    }

    /// As [`until_known`](Self::until_known), for a row that a transaction may keep for long. None if
    /// one has it, or if there was no connection by the deadline; no try has taken effect then.
    pub(crate) async fn until_known_if_free(
        &self,
        sql: &Sql,
        given: Parameters<'_>,
        until: Instant,
    ) -> Result<Option<Known>, Trouble> {
        // Requests for such keys come again and again, so none of them may wait here for ever.
        let link = tokio::time::timeout_at(until, self.pool.take_aside()).await;
        let Ok(link) = link else { return Ok(None) };
        match query_through(link?, sql, given).await {
            Ok(rows) => Ok(Some(Known { rows, is_repeated: false })),
            Err(trouble) if trouble.is_locked() => Ok(None),
            Err(trouble) if !trouble.is_transient() => Err(trouble),
            Err(_) => {
                let again = self.repeat(Part::Whole, sql, given, true, Trouble::is_transient);
                again.await.map(Some)
            }
        }
    }

    /// Runs a statement until it has done its work, also where a right or a password is missing for
    /// a while: the key would be kept for as long as this node lives. Shows each trouble to `note`.
    pub(crate) async fn until_done(
        &self,
        part: Part,
        sql: &Sql,
        given: Parameters<'_>,
        mut note: impl FnMut(&Trouble),
    ) -> Result<Known, Trouble> {
        let goes_on = |trouble: &Trouble| {
            note(trouble);
            !matches!(trouble, Trouble::Closed)
        };
        self.repeat(part, sql, given, false, goes_on).await
    }

    /// Runs a statement again for as long as its trouble says so.
    async fn repeat(
        &self,
        part: Part,
        sql: &Sql,
        given: Parameters<'_>,
        mut is_repeated: bool,
        mut goes_on: impl FnMut(&Trouble) -> bool,
    ) -> Result<Known, Trouble> {
        let (mut pause, longest) = PAUSES;
        loop {
            let outcome = match self.query_once(part, sql, given).await {
                // An earlier try may have done it.
                Ok(rows) if is_repeated && !sql.is_read() => self.confirm().await.map(|()| rows),
                outcome => outcome,
            };
            match outcome {
                Ok(rows) => return Ok(Known { rows, is_repeated }),
                Err(trouble) if goes_on(&trouble) => is_repeated = true,
                Err(trouble) => return Err(trouble),
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Returns once a change that an earlier try has made is as durable as any.
    async fn confirm(&self) -> Result<(), Trouble> {
        let session = self.session.id();
        let rows = self.query_once(Part::Whole, &self.statements.confirm, &[&session]).await?;
        if rows.is_empty() { Err(Trouble::Restless) } else { Ok(()) }
    }

    async fn query_once(
        &self,
        part: Part,
        sql: &Sql,
        given: Parameters<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, Trouble> {
        let link = match part {
            Part::Whole => self.pool.take().await?,
            Part::Aside => self.pool.take_aside().await?,
        };
        query_through(link, sql, given).await
    }
}

async fn query_through(
    mut link: Loan,
    sql: &Sql,
    given: Parameters<'_>,
) -> Result<Vec<tokio_postgres::Row>, Trouble> {
    let outcome = link.query_prepared(sql, given).await;
    if let Err(trouble) = &outcome
        && trouble.wants_new_link()
    {
        link.discard();
    }
    outcome
}

/// The part of the connections that a statement may have.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Whole,
    /// For rows that a transaction may keep for long.
    Aside,
}

/// The remains of a claim that is undone.
#[derive(Clone, Copy)]
pub(crate) enum Undo {
    /// Nothing: the key is free.
    Release,
    /// An interrupted run.
    GiveUp,
}

/// The outcome of a statement.
pub(crate) struct Known {
    pub(crate) rows: Vec<tokio_postgres::Row>,
    /// Set if it was sent more than once, so that an earlier try may have taken effect.
    pub(crate) is_repeated: bool,
}

/// The record of a completion that is replayed until then.
pub(crate) fn record(completion: Completion, expires_at: SystemTime) -> Record {
    let completed_at = expires_at.checked_sub(completion.ttl).unwrap_or(SystemTime::UNIX_EPOCH);
    Record::new(completion, completed_at)
}

pub(crate) fn attempt(run: i32) -> u32 {
    u32::try_from(run).unwrap_or(u32::MAX)
}

fn scope(bytes: &[u8]) -> Result<Scope, Trouble> {
    let bytes = bytes.try_into().map_err(|_| Trouble::Damaged("a scope is not 32 bytes"))?;
    Ok(Scope::from_bytes(bytes))
}

pub(crate) fn fingerprint(bytes: &[u8]) -> Result<Fingerprint, Trouble> {
    let bytes = bytes.try_into().map_err(|_| Trouble::Damaged("a fingerprint is not 32 bytes"))?;
    Ok(Fingerprint::from_bytes(bytes))
}

fn key(text: &str) -> Result<Key, Trouble> {
    Key::from_stored(text.as_bytes()).ok_or(Trouble::Damaged("a key is outside the grammar"))
}

pub(crate) fn request_id(text: &str) -> Result<RequestId, Trouble> {
    text.parse().map_err(|_| Trouble::Damaged("a request id is outside the grammar"))
}

pub(crate) fn unavailable(trouble: Trouble) -> Error {
    match trouble {
        Trouble::Closed => Error::stopped(),
        // Callers look for it.
        Trouble::Transaction(error) => Error::unavailable(error),
        trouble => Error::unavailable(trouble),
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("session", &self.session).finish_non_exhaustive()
    }
}
