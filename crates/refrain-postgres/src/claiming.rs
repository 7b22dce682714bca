//! A request for a key, from the first statement to its answer.

use std::sync::Arc;
use std::time::Duration;

use refrain::backend::{Answer, Asked, Granted, Hold, Promise, Ticket};
use refrain::{Error, Result};
use tokio::time::Instant;
use uuid::Uuid;

use crate::backend::{Fleet, Undo, request_id, unavailable};
use crate::claim::Claim;
use crate::job::{Outcome, Reply, Wanted, Work};
use crate::link::Parameters;
use crate::statements::{Seen, state};
use crate::trouble::Trouble;

/// The tries of one claim on a key that others take and free at the same time.
const TRIES: usize = 8;
/// Pauses between them, after the first two.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A claim on its way.
pub(crate) struct Claiming {
    request: Request,
    /// None once the caller has an answer.
    caller: Option<(Hold, Promise<Answer>)>,
}

impl Claiming {
    pub(crate) fn start(fleet: &Arc<Fleet>, asked: Asked, hold: Hold) -> Ticket<Answer> {
        let (ticket, promise) = Ticket::new();
        let address = fleet.addresses.of(hold.scope(), hold.key());
        let (attempt, until) = (Uuid::now_v7(), Instant::now() + fleet.patience);
        let work = Work::Claim(Wanted::new(&asked, &hold, address, attempt));
        let request = Request { fleet: Arc::clone(fleet), asked, address, attempt, until };
        let claiming = Self { request, caller: Some((hold, promise)) };
        fleet.queue.run_in_time(work, claiming);
        ticket
    }
}

impl Reply for Claiming {
    fn tell_late(&mut self) {
        if let Some((hold, promise)) = self.caller.take() {
            // The next request here asks the database, which knows whose the key is.
            drop(hold);
            promise.fulfil(Err(unavailable(Trouble::Slow)));
        }
    }

    fn settle(&mut self, outcome: Result<Outcome, Trouble>) {
        let request = &self.request;
        let Some((hold, promise)) = self.caller.take() else {
            return match outcome {
                Ok(Outcome::Won) | Err(_) => request.undo(),
                Ok(_) => {}
            };
        };
        match outcome {
            Ok(Outcome::Won) => promise.fulfil(Ok(request.granted(hold))),
            Ok(Outcome::Known(seen)) if seen.is_live() => {
                promise.fulfil(request.recorded(hold, &seen));
            }
            Ok(outcome) => {
                let request = request.clone();
                let runtime = request.fleet.runtime.clone();
                runtime.spawn(async move { promise.fulfil(request.go_on(hold, outcome).await) });
            }
            Err(trouble) => {
                drop(hold);
                promise.fulfil(Err(request.refuse(trouble)));
            }
        }
    }
}

#[derive(Clone)]
struct Request {
    fleet: Arc<Fleet>,
    asked: Asked,
    address: Uuid,
    attempt: Uuid,
    until: Instant,
}

impl Request {
    fn granted(&self, hold: Hold) -> Answer {
        let claim = Claim::first(&self.fleet, &self.asked, hold, self.address, self.attempt);
        Answer::Claimed(Granted::new(Box::new(claim)))
    }

    fn recorded(&self, hold: Hold, seen: &Seen) -> Result<Answer> {
        let record = self.fleet.record(seen).map_err(unavailable)?;
        hold.answer(&record);
        Ok(Answer::Recorded(record))
    }

    /// Undoes a claim that may be there all the same. Nothing runs under it.
    fn undo(&self) {
        self.fleet.undo(Undo::Release, self.address, self.attempt);
    }

    fn refuse(&self, trouble: Trouble) -> Error {
        self.undo();
        unavailable(trouble)
    }

    /// Goes on where the first statement has not decided.
    async fn go_on(self, hold: Hold, mut outcome: Outcome) -> Result<Answer> {
        let wanted = Wanted::new(&self.asked, &hold, self.address, self.attempt);
        let (mut pause, longest) = PAUSES;
        for tried in 0..TRIES {
            match outcome {
                Outcome::Won => return Ok(self.granted(hold)),
                Outcome::Known(seen) => match self.judge(&wanted, &seen).await {
                    Ok(Verdict::Again) => {}
                    Ok(Verdict::Won) => return Ok(self.granted(hold)),
                    Ok(Verdict::Recorded) => return self.recorded(hold, &seen),
                    Ok(Verdict::Interrupted) => {
                        let claim = Claim::interrupted(&self.fleet, hold, &wanted, *seen);
                        return Ok(Answer::Interrupted(Box::new(claim.map_err(unavailable)?)));
                    }
                    Ok(Verdict::Elsewhere) => {
                        let holder = request_id(&seen.request_id).map_err(unavailable)?;
                        let changed = self.fleet.elsewhere.watch(&self.fleet, &seen);
                        return Ok(Answer::Elsewhere { holder, hold, changed });
                    }
                    Err(trouble) => return Err(unavailable(trouble)),
                },
                Outcome::Unknown | Outcome::Done(_) | Outcome::Fenced => {}
            }
            if tried > 0 {
                // Where this node's own session is over, nothing is claimed before the next one.
                self.fleet.session.renew_now();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            outcome = self.claim_again(&wanted).await.map_err(|trouble| self.refuse(trouble))?;
        }
        Err(unavailable(Trouble::Restless))
    }

    async fn claim_again(&self, wanted: &Wanted) -> Result<Outcome, Trouble> {
        let claimed = self.fleet.queue.run(Work::Claim(wanted.clone()), Some(self.until));
        tokio::time::timeout_at(self.until, claimed).await.unwrap_or(Err(Trouble::Slow))
    }

    /// Decides about a key that was there before.
    async fn judge(&self, wanted: &Wanted, seen: &Seen) -> Result<Verdict, Trouble> {
        let fleet = &self.fleet;
        // A claim that this node made, and gave up before it was answered: the key would not be in
        // this request's hand otherwise.
        let is_left = seen.dead || seen.session == fleet.session.id();
        match seen.state {
            state::DONE if !seen.expired => return Ok(Verdict::Recorded),
            state::CLAIMED | state::DURABLE if !is_left => {
                if !seen.lapsed || !fleet.session.may_judge() {
                    return Ok(Verdict::Elsewhere);
                }
                let given: Parameters<'_> = &[&seen.session, &fleet.session.id()];
                fleet.query(&fleet.statements.bury, given).await?;
                return Ok(Verdict::Again);
            }
            state::DURABLE | state::INTERRUPTED if !seen.expired => {
                let taken = self.take_interrupted(wanted, seen.attempt).await;
                let taken = taken.inspect_err(|_| {
                    fleet.undo(Undo::GiveUp, wanted.address, wanted.attempt);
                })?;
                return Ok(if taken { Verdict::Interrupted } else { Verdict::Again });
            }
            _ => {}
        }
        let taken = self.take(wanted, seen.attempt).await?;
        Ok(if taken { Verdict::Won } else { Verdict::Again })
    }

    /// Takes an interrupted run, in order to judge it.
    async fn take_interrupted(&self, wanted: &Wanted, old: Uuid) -> Result<bool, Trouble> {
        let (address, attempt) = (wanted.address, wanted.attempt);
        let session = self.fleet.session.id();
        let given: Parameters<'_> = &[&address, &old, &attempt, &session];
        let sql = &self.fleet.statements.judge;
        Ok(!self.fleet.query(sql, given).await?.is_empty())
    }

    /// Takes over a key whose last use is over.
    async fn take(&self, wanted: &Wanted, old: Uuid) -> Result<bool, Trouble> {
        let fleet = &self.fleet;
        let (sweep, session) = (fleet.ring.sweep(wanted.ttl_ms), fleet.session.id());
        let given = [&wanted.parameters(&sweep, &session)[..], &[&old]].concat();
        let taken = fleet.query(&fleet.statements.take, &given).await;
        Ok(!taken.inspect_err(|_| self.undo())?.is_empty())
    }
}

enum Verdict {
    /// The key has changed in between.
    Again,
    Won,
    Recorded,
    Interrupted,
    Elsewhere,
}
