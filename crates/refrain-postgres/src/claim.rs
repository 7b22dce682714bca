//! A key that this node has: the verdicts on it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::backend::{self, Asked, Hold, Past, Promise, Ticket};
use refrain::{Error, Record, Result, codec};
use uuid::Uuid;

use crate::backend::{Fleet, Known, attempt, fingerprint, record, request_id, unavailable};
use crate::link::Parameters;
use crate::queue::{Completed, Completion, Wanted};
use crate::session::millis;
use crate::statements::Sql;
use crate::trouble::Trouble;

/// A claim under one attempt. Dropped without a verdict, it gives the key up in the background.
pub(crate) struct Claim {
    fleet: Arc<Fleet>,
    /// None once a verdict has the key in its own hands.
    hold: Option<Hold>,
    address: Uuid,
    attempt: Uuid,
    ttl: Duration,
    past: Past,
}

impl Claim {
    pub(crate) fn first(fleet: &Arc<Fleet>, asked: &Asked, hold: Hold, wanted: &Wanted) -> Self {
        Self {
            fleet: Arc::clone(fleet),
            past: Past {
                seed: asked.durable.then(|| fleet.addresses.seed(wanted.attempt)),
                ..Past::first(asked, &hold)
            },
            hold: Some(hold),
            address: wanted.address,
            attempt: wanted.attempt,
            ttl: asked.ttl,
        }
    }

    /// The claim of a run that was interrupted, taken under the attempt that was wanted.
    pub(crate) fn interrupted(
        fleet: &Arc<Fleet>,
        hold: Hold,
        wanted: &Wanted,
        seen: crate::statements::Seen,
    ) -> Result<Self, Trouble> {
        let (Some(first), Some(ttl_ms)) = (seen.first, seen.ttl_ms) else {
            return Err(Trouble::Damaged("an interrupted run has no beginning"));
        };
        let past = Past {
            scope: hold.scope(),
            key: hold.key().clone(),
            fingerprint: fingerprint(&seen.fingerprint)?,
            request_id: request_id(&seen.request_id)?,
            attempt: attempt(seen.run),
            checkpoints: seen.checkpoints,
            seed: Some(fleet.addresses.seed(first)),
        };
        Ok(Self {
            fleet: Arc::clone(fleet),
            hold: Some(hold),
            address: wanted.address,
            attempt: wanted.attempt,
            ttl: Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default()),
            past,
        })
    }

    fn take_hold(&mut self) -> Hold {
        self.hold.take().expect("one verdict ends a claim")
    }

    /// Runs a statement about this attempt that ends the claim. The ticket waits for as long as the
    /// database may take; the hold stays until the outcome is known.
    fn end(mut self: Box<Self>, verdict: Ending) -> Ticket<()> {
        let hold = self.take_hold();
        let (ticket, promise) = Ticket::new();
        let fleet = Arc::clone(&self.fleet);
        fleet.runtime.clone().spawn(async move {
            let ended = self.until_ended(&verdict);
            let settle = |outcome: Result<()>, hold: Hold| hold.free_with(outcome);
            resolve(fleet.patience, ended, promise, hold, settle).await;
        });
        ticket
    }

    async fn until_ended(&self, verdict: &Ending) -> Result<()> {
        let (address, attempt) = (self.address, self.attempt);
        let sql: &Sql = match verdict {
            Ending::Release => &self.fleet.statements.release,
            Ending::Interrupt => &self.fleet.statements.interrupt,
        };
        let rows = match verdict {
            Ending::Interrupt => {
                let ttl = millis(self.ttl);
                let (scope, key) = (&self.past.scope.as_bytes()[..], self.past.key.as_str());
                let given: Parameters<'_> = &[&address, &attempt, &ttl, &scope, &key];
                self.fleet.until_known(sql, given).await
            }
            Ending::Release => self.fleet.until_known(sql, &[&address, &attempt]).await,
        };
        let Known { rows, is_repeated } = rows.map_err(unavailable)?;
        match (rows.first(), verdict) {
            (Some(row), _) => {
                self.tell(row.try_get(0).unwrap_or(false));
                Ok(())
            }
            // An earlier try, whose answer was lost, may have deleted the row.
            (None, Ending::Release) if is_repeated => Ok(()),
            (None, _) => Err(Error::Fenced),
        }
    }

    /// Wakes those on other nodes who wait for the key.
    fn tell(&self, waited: bool) {
        if waited {
            self.fleet.elsewhere.tell(&self.fleet, self.address);
        }
    }

    async fn record(&self, response: Option<Response<Bytes>>) -> Result<Record> {
        let payload = Bytes::from(codec::encode(&self.past.completion(self.ttl, response)));
        let completion = Completion {
            address: self.address,
            attempt: self.attempt,
            ttl_ms: millis(self.ttl),
            scope: self.past.scope.as_bytes().to_vec(),
            key: self.past.key.as_str().to_owned(),
            payload: payload.clone(),
        };
        match self.fleet.queue.complete(completion).await.map_err(unavailable)? {
            Completed::Done(done) => {
                self.tell(done.waited);
                record(&payload, done.expires_ms).map_err(unavailable)
            }
            Completed::Fenced => Err(Error::Fenced),
        }
    }

    /// Stores checkpoint number `number`, counted from 1.
    async fn store_checkpoint(
        fleet: Arc<Fleet>,
        (address, attempt): (Uuid, Uuid),
        number: usize,
        data: Bytes,
    ) -> Result<()> {
        let count = i32::try_from(number).unwrap_or(i32::MAX);
        let sql = &fleet.statements.checkpoint;
        let given: Parameters<'_> = &[&address, &attempt, &count, &&data[..]];
        let rows = fleet.query(sql, given).await.map_err(unavailable)?;
        if !rows.is_empty() {
            return Ok(());
        }
        // An earlier try may have stored it.
        let seen = fleet.find(address).await.map_err(unavailable)?;
        match seen {
            Some(seen) if seen.attempt == attempt && seen.checkpoints.len() >= number => Ok(()),
            _ => Err(Error::Fenced),
        }
    }

    async fn next(mut self: Box<Self>, asked: Asked) -> Result<Box<dyn backend::Claim>> {
        let (old, new, ttl) = (self.attempt, Uuid::now_v7(), millis(asked.ttl));
        let request_id = asked.request_id.as_str();
        let sql = &self.fleet.statements.retry;
        let rows = self.fleet.query(sql, &[&self.address, &old, &new, &request_id, &ttl]).await;
        if rows.map_err(unavailable)?.is_empty() {
            // An earlier try may have begun it.
            let seen = self.fleet.find(self.address).await.map_err(unavailable)?;
            if seen.is_none_or(|seen| seen.attempt != new) {
                self.hold = None;
                return Err(Error::Fenced);
            }
        }
        self.attempt = new;
        self.ttl = asked.ttl;
        self.past.advance(&asked);
        Ok(self)
    }
}

/// The ways in which a claim ends without a record.
enum Ending {
    Release,
    Interrupt,
}

/// Waits for an outcome and settles the hold by it. If that takes longer than the caller has
/// patience, the caller is told so, and the hold waits on alone.
async fn resolve<T>(
    patience: Duration,
    outcome: impl Future<Output = Result<T>>,
    promise: Promise<T>,
    hold: Hold,
    settle: impl FnOnce(Result<T>, Hold) -> Result<T>,
) {
    let mut outcome = std::pin::pin!(outcome);
    match tokio::time::timeout(patience, &mut outcome).await {
        Ok(known) => promise.fulfil(settle(known, hold)),
        Err(_) => {
            promise.fulfil(Err(unavailable(Trouble::Slow)));
            // Nobody is told any more; the key is freed, or kept.
            let _ = settle(outcome.await, hold);
        }
    }
}

impl backend::Claim for Claim {
    fn past(&self) -> &Past {
        &self.past
    }

    fn hold(&mut self) -> &mut Hold {
        self.hold.as_mut().expect("one verdict ends a claim")
    }

    fn complete(mut self: Box<Self>, response: Option<Response<Bytes>>) -> Ticket<Record> {
        let hold = self.take_hold();
        let (ticket, promise) = Ticket::new();
        let fleet = Arc::clone(&self.fleet);
        if *fleet.closing.borrow() {
            return Ticket::ready(hold.answer_with(Err(Error::stopped())));
        }
        fleet.runtime.clone().spawn(async move {
            let recorded = self.record(response);
            let settle = |outcome: Result<Record>, hold: Hold| hold.answer_with(outcome);
            resolve(fleet.patience, recorded, promise, hold, settle).await;
        });
        ticket
    }

    fn release(self: Box<Self>) -> Ticket<()> {
        self.end(Ending::Release)
    }

    fn interrupt(self: Box<Self>) -> Ticket<()> {
        self.end(Ending::Interrupt)
    }

    fn checkpoint(&mut self, data: Bytes) -> Ticket<()> {
        self.past.checkpoints.push(data.clone());
        let number = self.past.checkpoints.len();
        let (ticket, promise) = Ticket::new();
        let fleet = Arc::clone(&self.fleet);
        let stored =
            Self::store_checkpoint(Arc::clone(&fleet), (self.address, self.attempt), number, data);
        fleet.runtime.spawn(async move { promise.fulfil(stored.await) });
        ticket
    }

    fn retry(self: Box<Self>, asked: Asked) -> Ticket<Box<dyn backend::Claim>> {
        let (ticket, promise) = Ticket::new();
        let runtime = self.fleet.runtime.clone();
        runtime.spawn(async move { promise.fulfil(self.next(asked).await) });
        ticket
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        let is_durable = self.past.seed.is_some();
        if hold.is_kept() && !is_durable {
            // The row stays claimed too, for as long as this process's session lives.
            return;
        }
        let fleet = Arc::clone(&self.fleet);
        let (address, attempt) = (self.address, self.attempt);
        self.fleet.runtime.spawn(async move {
            let statements = &fleet.statements;
            let sql = if is_durable { &statements.give_up } else { &statements.release };
            let ended = fleet.until_known(sql, &[&address, &attempt]).await;
            // The next in line asks the database, whatever came of this.
            hold.free();
            if let Ok(known) = ended
                && known.rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false))
            {
                fleet.elsewhere.tell(&fleet, address);
            }
        });
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("request_id", &self.past.request_id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
