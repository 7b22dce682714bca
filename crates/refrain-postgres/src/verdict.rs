//! The verdicts on a claim, which the database decides: what it says that a claim came to is what
//! the caller is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use refrain::backend::{Hold, Promise, Ticket};
use refrain::{Error, Record, Result};

use crate::backend::{Known, record, unavailable};
use crate::claim::Claim;
use crate::link::Parameters;
use crate::queue::Completed;
use crate::session::millis;
use crate::statements::{Done, state};
use crate::trouble::Trouble;

/// The ways in which a claim ends without a record.
#[derive(Clone, Copy)]
pub(crate) enum Ending {
    Release,
    Interrupt,
}

/// What became of a transaction that was to complete the operation.
enum Ended {
    Committed(Done),
    /// Nothing happened.
    RolledBack,
    /// Another node has the key by now.
    Fenced,
}

impl Claim {
    /// Ends the claim without a record. The ticket waits for as long as the database may take; the
    /// hold stays until the outcome is known.
    pub(crate) fn end(mut self: Box<Self>, ending: Ending) -> Ticket<()> {
        let hold = self.take_hold();
        let (ticket, promise) = Ticket::new();
        let fleet = Arc::clone(&self.fleet);
        fleet.runtime.clone().spawn(async move {
            let ended = self.until_ended(ending);
            resolve(fleet.patience, ended, promise, hold, free_or_answer).await;
        });
        ticket
    }

    /// Ends the claim, and returns the record if a transaction of the caller's has completed the
    /// operation all the same.
    async fn until_ended(&self, ending: Ending) -> Result<Option<Record>> {
        if let Some(draft) = &self.draft {
            match self.settled().await? {
                Ended::Committed(done) => return self.done(draft, done).map(Some),
                Ended::Fenced => return Err(Error::Fenced),
                Ended::RolledBack => {}
            }
        }
        let Known { rows, is_repeated } = self.send(ending).await.map_err(unavailable)?;
        match rows.first() {
            Some(row) => {
                self.tell(row.try_get(0).unwrap_or(false));
                Ok(None)
            }
            // An earlier try, whose answer was lost, may have deleted the row.
            None if matches!(ending, Ending::Release) && is_repeated => Ok(None),
            None => Err(Error::Fenced),
        }
    }

    async fn send(&self, ending: Ending) -> Result<Known, Trouble> {
        let (address, attempt) = (self.address, self.attempt);
        let statements = &self.fleet.statements;
        match ending {
            Ending::Release => {
                self.fleet.until_known(&statements.release, &[&address, &attempt]).await
            }
            Ending::Interrupt => {
                let ttl = millis(self.ttl);
                let (scope, key) = (&self.past.scope.as_bytes()[..], self.past.key.as_str());
                let given: Parameters<'_> = &[&address, &attempt, &ttl, &scope, &key];
                self.fleet.until_known(&statements.interrupt, given).await
            }
        }
    }

    /// Records the response, unless a transaction has recorded one.
    pub(crate) async fn recorded(&self, response: Option<Response<Bytes>>) -> Result<Record> {
        if let Some(draft) = &self.draft {
            match self.settled().await? {
                Ended::Committed(done) => return self.done(draft, done),
                Ended::Fenced => return Err(Error::Fenced),
                Ended::RolledBack => self.refuse_success(response.as_ref()).await?,
            }
        }
        let payload = self.encode(response);
        let completion = self.completion(payload.clone());
        match self.fleet.queue.complete(completion).await.map_err(unavailable)? {
            Completed::Done(done) => self.done(&payload, done),
            Completed::Fenced => Err(Error::Fenced),
        }
    }

    /// Frees the key where success is claimed for what was rolled back.
    async fn refuse_success(&self, response: Option<&Response<Bytes>>) -> Result<()> {
        if response.is_some_and(|response| !response.status().is_success()) {
            return Ok(());
        }
        self.send(Ending::Release).await.map_err(unavailable)?;
        Err(unavailable(Trouble::RolledBack))
    }

    /// Asks what became of the caller's transaction, once it has ended: it has the row until then.
    async fn settled(&self) -> Result<Ended> {
        let sql = &self.fleet.statements.find_settled;
        let known = self.fleet.until_known(sql, &[&self.address]).await.map_err(unavailable)?;
        let Some(row) = known.rows.first() else { return Ok(Ended::Fenced) };
        let read = || Ok((Done::read(row)?, row.try_get::<_, i16>(3)?));
        let (done, state) = read().map_err(Trouble::Database).map_err(unavailable)?;
        Ok(match state {
            _ if done.attempt != self.attempt => Ended::Fenced,
            state::DONE => Ended::Committed(done),
            _ => Ended::RolledBack,
        })
    }

    fn done(&self, payload: &Bytes, done: Done) -> Result<Record> {
        self.tell(done.waited);
        record(payload, done.expires_ms).map_err(unavailable)
    }

    /// Wakes those on other nodes who wait for the key.
    fn tell(&self, waited: bool) {
        if waited {
            self.fleet.elsewhere.tell(&self.fleet, self.address);
        }
    }
}

fn free_or_answer(ended: Result<Option<Record>>, hold: Hold) -> Result<()> {
    match ended {
        Ok(Some(record)) => hold.answer_with(Ok(record)).map(drop),
        Ok(None) => hold.free_with(Ok(())),
        Err(error) => hold.free_with(Err(error)),
    }
}

/// Waits for an outcome and settles the hold by it. If that takes longer than the caller has
/// patience, the caller is told so, and the hold waits on alone.
pub(crate) async fn resolve<T, U>(
    patience: Duration,
    outcome: impl Future<Output = Result<T>>,
    promise: Promise<U>,
    hold: Hold,
    settle: impl FnOnce(Result<T>, Hold) -> Result<U>,
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
