//! This process's session: its lease, whether it may judge others, and the database's time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::link::{Link, Parameters};
use crate::pool::Pool;
use crate::statements::Statements;
use crate::trouble::Trouble;

/// The numbers that are tried for a new session. Even the second is never needed in practice.
const OPENINGS: usize = 3;
/// The pause after a renewal that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Session {
    node: String,
    lease: Duration,
    state: Mutex<State>,
    /// Wakes the renewal before its time.
    wake: Notify,
}

#[derive(Debug)]
struct State {
    id: i64,
    /// The first of the renewals that have succeeded without a break.
    steady_since: Option<Instant>,
    /// The database's time, and when it was that here.
    told: (i64, Instant),
    /// The reason why the latest renewal failed, if it did.
    trouble: Option<String>,
}

impl State {
    fn is_steady(&self, lease: Duration) -> bool {
        self.steady_since.is_some_and(|since| since.elapsed() >= lease)
    }
}

/// A node that may say that another's lease is over.
pub(crate) struct Judge {
    pub(crate) id: i64,
    pub(crate) lease_until_ms: i64,
}

impl Judge {
    /// The parameters of the statement that says so.
    pub(crate) fn over<'a>(&'a self, session: &'a i64) -> [&'a (dyn ToSql + Sync); 3] {
        [session, &self.id, &self.lease_until_ms]
    }
}

impl Session {
    /// Opens a session of this node.
    pub(crate) async fn open(
        node: String,
        lease: Duration,
        link: &Link,
        statements: &Statements,
    ) -> Result<Self, Trouble> {
        let state = Mutex::new(open(&node, lease, link, statements).await?);
        Ok(Self { node, lease, state, wake: Notify::new() })
    }

    /// The session that new claims are made under.
    pub(crate) fn id(&self) -> i64 {
        self.state().id
    }

    /// Returns whether this node may say that another's lease is over. After an outage all leases look
    /// lapsed, so a node that could not renew its own judges nobody for one lease.
    pub(crate) fn may_judge(&self) -> bool {
        self.state().is_steady(self.lease)
    }

    /// This node's session and the end of its lease, as the latest renewal has said, by which it may
    /// say that another's lease is over.
    pub(crate) fn judge(&self) -> Option<Judge> {
        let state = self.state();
        let lease_until_ms = state.told.0.saturating_add(millis(self.lease));
        state.is_steady(self.lease).then_some(Judge { id: state.id, lease_until_ms })
    }

    /// The database's time, within a round trip.
    pub(crate) fn now_ms(&self) -> i64 {
        let (ms, at) = self.state().told;
        ms.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn now(&self) -> SystemTime {
        time(self.now_ms())
    }

    /// Renews the lease, a third of it apart, for as long as the backend's thread runs.
    pub(crate) async fn renew(&self, pool: &Arc<Pool>, statements: &Statements) {
        let mut link: Option<Link> = None;
        let mut pause = self.lease / 3;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
            }
            let mut renewed = self.renew_once(&mut link, pool, statements).await;
            if renewed.is_err() && link.as_ref().is_some_and(Link::is_closed) {
                renewed = self.renew_on_another(&mut link, pool, statements).await;
            }
            pause = match &renewed {
                Ok(()) => self.lease / 3,
                Err(trouble) => {
                    if trouble.wants_new_link() {
                        link = None;
                    }
                    self.state().steady_since = None;
                    match trouble {
                        // Nothing but another program will help.
                        Trouble::Outdated => self.lease / 3,
                        _ => RETRY_AFTER.min(self.lease / 3),
                    }
                }
            };
            self.state().trouble = renewed.err().map(|trouble| trouble.to_string());
        }
    }

    /// Renews the lease on another connection. Where the same server has closed the old one, as it
    /// does with those that are idle for long, the others could renew theirs meanwhile.
    async fn renew_on_another(
        &self,
        link: &mut Option<Link>,
        pool: &Arc<Pool>,
        statements: &Statements,
    ) -> Result<(), Trouble> {
        let old = link.take().and_then(|link| link.up_since());
        self.renew_once(link, pool, statements).await?;
        let new = link.as_ref().and_then(Link::up_since);
        if old.is_none() || new != old {
            self.state().steady_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Returns the reason why the lease was not renewed, if the latest renewal failed.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// Has the lease renewed at once, or a new session opened.
    pub(crate) fn renew_now(&self) {
        self.wake.notify_one();
    }

    async fn renew_once(
        &self,
        link: &mut Option<Link>,
        pool: &Arc<Pool>,
        statements: &Statements,
    ) -> Result<(), Trouble> {
        if link.is_none() {
            *link = pool.connector().connect().await.ok();
        }
        let Some(link) = link else {
            // All that the server allows are taken, and this process may have them itself.
            let loan = tokio::time::timeout(self.lease / 3, pool.take());
            let loan = loan.await.unwrap_or(Err(Trouble::Slow))?;
            return self.renew_through(&loan, statements).await;
        };
        self.renew_through(link, statements).await
    }

    async fn renew_through(&self, link: &Link, statements: &Statements) -> Result<(), Trouble> {
        let (id, lease) = (self.id(), millis(self.lease));
        let given: Parameters<'_> = &[&id, &lease];
        let sent = Instant::now();
        let mut renewal =
            std::pin::pin!(link.query_asking(self.lease / 3, &statements.renew, given));
        let rows = match tokio::time::timeout(self.lease / 3, &mut renewal).await {
            Ok(rows) => rows?,
            Err(_) => {
                self.state().steady_since = None;
                renewal.await?
            }
        };
        match rows.first() {
            Some(row) => {
                let mut state = self.state();
                let now_ms: i64 = row.try_get(1)?;
                if now_ms.saturating_sub(state.told.0) >= lease {
                    // This process stood still, and perhaps not alone.
                    state.steady_since = None;
                }
                state.told = (now_ms, sent);
                state.steady_since.get_or_insert_with(Instant::now);
            }
            None => {
                // Another node has said that this one is dead, and takes over what it holds. New
                // claims need a new session.
                let new = open(&self.node, self.lease, link, statements).await?;
                *self.state() = new;
            }
        }
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics here")
    }
}

async fn open(
    node: &str,
    lease: Duration,
    link: &Link,
    statements: &Statements,
) -> Result<State, Trouble> {
    for _ in 0..OPENINGS {
        let sent = Instant::now();
        let given: Parameters<'_> = &[&new_id(), &node, &millis(lease)];
        let rows = link.query(&statements.open_session, given).await?;
        if let Some(row) = rows.first() {
            let told = (row.try_get(1)?, sent);
            return Ok(State {
                id: row.try_get(0)?,
                steady_since: Some(sent),
                told,
                trouble: None,
            });
        }
    }
    Err(Trouble::Outdated)
}

/// Draws the number of a session. An asynchronous failover may lose the row of a session whose node
/// lives on, so no other node may be given the same number.
fn new_id() -> i64 {
    // The half without a time, after the two bits of the variant.
    let (_, random) = Uuid::now_v7().as_u64_pair();
    i64::try_from(random & (u64::MAX >> 2)).expect("62 bits")
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}
