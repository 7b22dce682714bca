//! The verdicts on a claim, which the database decides: what it says that a claim came to is what
//! the caller is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Response;
use refrain::backend::{Completion, Hold, Promise, Ticket};
use refrain::{Error, Record, Result};
use uuid::Uuid;

use crate::backend::{Known, Part, record, unavailable};
use crate::claim::Claim;
use crate::job::{Outcome, Reply, Work};
use crate::link::Parameters;
use crate::session::millis;
use crate::statements::{Seen, state};
use crate::trouble::{TransactionError, Trouble};

/// The ways in which a claim ends without a record.
#[derive(Clone, Copy)]
pub(crate) enum Ending {
    Release,
    Interrupt,
}

/// The end of a transaction that was to complete the operation.
enum Ended {
    /// Set if a request on another node waits for it.
    Committed { waited: bool },
    /// Nothing happened.
    RolledBack,
    /// Another node has the key by now.
    Fenced,
}

/// The result of recording a response.
pub(crate) enum Recorded {
    Record(Record),
    /// Nothing: success was claimed for a transaction that was rolled back.
    RolledBack,
}

impl Claim {
    /// Ends the claim without a record. The ticket waits for as long as the database may take; the
    /// hold stays until the outcome is known.
    pub(crate) fn end(mut self: Box<Self>, ending: Ending) -> Ticket<()> {
        let hold = self.take_hold();
        let (ticket, promise) = Ticket::new();
        self.fleet.runtime.clone().spawn(async move {
            let ended = self.until_ended(ending);
            resolve(ended, promise, hold, &self, free_or_answer).await;
        });
        ticket
    }

    /// Ends the claim, and returns the record if a transaction of the caller's has completed the
    /// operation all the same.
    async fn until_ended(&self, ending: Ending) -> Result<Option<Record>> {
        if self.has_draft {
            match self.settled().await? {
                Ended::Committed { waited } => return self.committed(waited).await.map(Some),
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
            None if matches!(ending, Ending::Release) && is_repeated => {
                if self.is_taken().await? {
                    Err(Error::Fenced)
                } else {
                    Ok(None)
                }
            }
            None => Err(Error::Fenced),
        }
    }

    /// Returns whether another node has taken this run over, or has completed it.
    async fn is_taken(&self) -> Result<bool> {
        let Some(seed) = self.past.seed else { return Ok(false) };
        Ok(self.found().await?.is_some_and(|seen| {
            seen.request_id == self.past.request_id.as_str()
                || seen.first.is_some_and(|first| self.fleet.addresses.seed(first) == seed)
        }))
    }

    async fn send(&self, ending: Ending) -> Result<Known, Trouble> {
        let (address, attempt) = (self.address, self.attempt);
        let statements = &self.fleet.statements;
        match ending {
            Ending::Release => {
                let given: Parameters<'_> = &[&address, &attempt];
                self.fleet
                    .until_done(Part::Whole, &statements.release, given, |it| self.note(it))
                    .await
            }
            Ending::Interrupt => {
                let ttl = millis(self.ttl);
                let (scope, key) = (&self.past.scope.as_bytes()[..], self.past.key.as_str());
                let given: Parameters<'_> = &[&address, &attempt, &ttl, &scope, &key];
                self.fleet
                    .until_done(Part::Whole, &statements.interrupt, given, |it| self.note(it))
                    .await
            }
        }
    }

    /// Records the response, unless a transaction has recorded one.
    pub(crate) async fn recorded(&self, response: Option<Response<Bytes>>) -> Result<Recorded> {
        if self.has_draft {
            let is_success = response.as_ref().is_none_or(|it| it.status().is_success());
            match self.settled().await? {
                Ended::Committed { waited } => {
                    return self.committed(waited).await.map(Recorded::Record);
                }
                Ended::Fenced => return Err(Error::Fenced),
                Ended::RolledBack if is_success => {
                    let Known { rows, .. } =
                        self.send(Ending::Release).await.map_err(unavailable)?;
                    self.tell(rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)));
                    return Ok(Recorded::RolledBack);
                }
                Ended::RolledBack => {}
            }
        }
        let completion = self.completion(response);
        let work = Work::Complete(self.encoded(&completion));
        let outcome = self.fleet.queue.run(work, None).await;
        self.done(outcome, completion).map(Recorded::Record)
    }

    /// The record of a completion, by what the database says about it.
    fn done(&self, outcome: Result<Outcome, Trouble>, completion: Completion) -> Result<Record> {
        match outcome.map_err(unavailable)? {
            Outcome::Done(done) => {
                self.tell(done.waited);
                Ok(record(completion, done.expires_at))
            }
            _ => Err(Error::Fenced),
        }
    }

    /// Asks what became of the caller's transaction, once it has ended: it has the row until then.
    async fn settled(&self) -> Result<Ended> {
        let sql = &self.fleet.statements.find_settled;
        let note = |trouble: &Trouble| {
            self.note(trouble);
            self.is_open.store(trouble.is_locked(), Ordering::Relaxed);
        };
        let known = self.fleet.until_done(Part::Whole, sql, &[&self.address], note).await;
        self.is_open.store(false, Ordering::Relaxed);
        let known = known.map_err(unavailable)?;
        let Some(row) = known.rows.first() else { return Ok(Ended::Fenced) };
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (attempt, waited, state): (Uuid, bool, i16) =
            read().map_err(Trouble::Database).map_err(unavailable)?;
        Ok(match state {
            _ if attempt != self.attempt => Ended::Fenced,
            state::DONE => Ended::Committed { waited },
            _ => Ended::RolledBack,
        })
    }

    /// The record that a transaction has committed. It is read, because several transactions may
    /// have tried to write one.
    async fn committed(&self, waited: bool) -> Result<Record> {
        self.tell(waited);
        match self.found().await? {
            Some(seen) if seen.attempt == self.attempt => {
                self.fleet.record(&seen).map_err(unavailable)
            }
            // It has expired by now, and the key is another's.
            _ => Err(Error::Fenced),
        }
    }

    /// Reads the key's row, for as long as that takes.
    async fn found(&self) -> Result<Option<Seen>> {
        self.fleet.find_until(self.address, None).await.map_err(unavailable)
    }

    /// Wakes those on other nodes who wait for the key.
    fn tell(&self, waited: bool) {
        if waited {
            self.fleet.elsewhere.tell(&self.fleet, self.address);
        }
    }

    fn note(&self, trouble: &Trouble) {
        *self.last_trouble.lock().expect("nobody panics here") = Some(trouble.to_string());
    }

    /// Why a verdict has no outcome yet.
    fn late(&self) -> Error {
        if self.is_open.load(Ordering::Relaxed) {
            return unavailable(Trouble::Transaction(TransactionError::Open));
        }
        let last_trouble = self.last_trouble.lock().expect("nobody panics here").take();
        unavailable(last_trouble.map_or_else(|| self.fleet.queue.late(), Trouble::SlowAfter))
    }
}

/// A completion on its way.
pub(crate) struct Completing {
    /// None once it has its outcome.
    completed: Option<(Box<Claim>, Completion, Hold)>,
    /// None once the caller has been told.
    promise: Option<Promise<Record>>,
}

impl Completing {
    pub(crate) fn start(
        claim: Box<Claim>,
        response: Option<Response<Bytes>>,
        hold: Hold,
    ) -> Ticket<Record> {
        let (ticket, promise) = Ticket::new();
        let completion = claim.completion(response);
        let work = Work::Complete(claim.encoded(&completion));
        let queue = Arc::clone(&claim.fleet.queue);
        let completed = Some((claim, completion, hold));
        queue.run_in_time(work, Self { completed, promise: Some(promise) });
        ticket
    }
}

impl Reply for Completing {
    fn tell(&mut self, trouble: Trouble) {
        if let Some(promise) = self.promise.take() {
            promise.fulfil(Err(unavailable(trouble)));
        }
    }

    fn end(&mut self, outcome: Result<Outcome, Trouble>, _is_sent: bool) {
        let Some((claim, completion, hold)) = self.completed.take() else { return };
        let outcome = hold.answer_with(claim.done(outcome, completion));
        if let Some(promise) = self.promise.take() {
            promise.fulfil(outcome);
        }
    }
}

pub(crate) fn answer_or_free(recorded: Result<Recorded>, hold: Hold) -> Result<Record> {
    match recorded {
        Ok(Recorded::Record(record)) => hold.answer_with(Ok(record)),
        Ok(Recorded::RolledBack) => {
            hold.free();
            Err(unavailable(Trouble::Transaction(TransactionError::RolledBack)))
        }
        Err(error) => hold.answer_with(Err(error)),
    }
}

fn free_or_answer(ended: Result<Option<Record>>, hold: Hold) -> Result<()> {
    match ended {
        Ok(Some(record)) => hold.answer_with(Ok(record)).map(drop),
        Ok(None) => hold.free_with(Ok(())),
        Err(error) => hold.free_with(Err(error)),
    }
}

/// Waits for an outcome and acts on it with the hold. If that takes longer than the caller has
/// patience, the caller is told so, and the hold waits on alone.
pub(crate) async fn resolve<T, U>(
    outcome: impl Future<Output = Result<T>>,
    promise: Promise<U>,
    hold: Hold,
    claim: &Claim,
    act: impl FnOnce(Result<T>, Hold) -> Result<U>,
) {
    let mut outcome = std::pin::pin!(outcome);
    match tokio::time::timeout(claim.fleet.patience, &mut outcome).await {
        Ok(known) => promise.fulfil(act(known, hold)),
        Err(_) => {
            promise.fulfil(Err(claim.late()));
            // Nobody is told any more; the key is freed, or kept.
            let _ = act(outcome.await, hold);
        }
    }
}
