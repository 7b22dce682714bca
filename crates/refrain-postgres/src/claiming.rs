//! A request for a key, from the first statement to its answer.

use std::sync::Arc;
use std::time::Duration;

use refrain::Result;
use refrain::backend::{Answer, Asked, Granted, Hold, Promise, Ticket};
use tokio::time::Instant;
use uuid::Uuid;

use crate::backend::{Fleet, Known, Undo, request_id, unavailable};
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
    fn tell(&mut self, trouble: Trouble) {
        if let Some((hold, promise)) = self.caller.take() {
            // The next request here asks the database, which knows whose the key is.
            drop(hold);
            promise.fulfil(Err(unavailable(trouble)));
        }
    }

    fn end(&mut self, outcome: Result<Outcome, Trouble>, is_sent: bool) {
        let request = &self.request;
        let Some((hold, promise)) = self.caller.take() else {
            return match outcome {
                Ok(Outcome::Won) => request.undo(),
                Err(_) if is_sent => request.undo(),
                Ok(_) | Err(_) => {}
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
                runtime.spawn(async move { request.go_on(hold, promise, outcome).await });
            }
            Err(trouble) => {
                drop(hold);
                if is_sent {
                    request.undo();
                }
                promise.fulfil(Err(unavailable(trouble)));
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

    /// Leaves an interrupted run that was taken under this attempt to the next request.
    fn give_up(&self, attempt: Uuid) {
        self.fleet.undo(Undo::GiveUp, self.address, attempt);
    }

    /// Goes on where the first statement has not decided, and answers before the deadline. A claim
    /// that takes longer is undone once it is known what became of it: undone before, it could take
    /// effect after that, and nobody would hold the key.
    async fn go_on(self, hold: Hold, promise: Promise<Answer>, outcome: Outcome) {
        let wanted = Wanted::new(&self.asked, &hold, self.address, self.attempt);
        let mut found = std::pin::pin!(self.found(&wanted, outcome));
        if let Ok(found) = tokio::time::timeout_at(self.until, &mut found).await {
            let answer = found.map_err(unavailable);
            return promise.fulfil(answer.and_then(|found| self.answer(hold, found)));
        }
        drop(hold);
        promise.fulfil(Err(unavailable(self.fleet.queue.late())));
        match found.await {
            Ok(Found::Won) => self.undo(),
            Ok(Found::Interrupted(_, attempt)) => self.give_up(attempt),
            Ok(Found::Recorded(_) | Found::Elsewhere(_)) | Err(_) => {}
        }
    }

    fn answer(&self, hold: Hold, found: Found) -> Result<Answer> {
        match found {
            Found::Won => Ok(self.granted(hold)),
            Found::Recorded(seen) => self.recorded(hold, &seen),
            Found::Interrupted(seen, attempt) => {
                let claim =
                    Claim::interrupted(&self.fleet, hold, attempt, Arc::unwrap_or_clone(seen));
                Ok(Answer::Interrupted(Box::new(claim.map_err(unavailable)?)))
            }
            Found::Elsewhere(seen) => {
                let holder = request_id(&seen.request_id).map_err(unavailable)?;
                let changed = self.fleet.elsewhere.watch(&self.fleet, &seen);
                Ok(Answer::Elsewhere { holder, hold, changed })
            }
        }
    }

    /// Claims the key, or finds out why that cannot be.
    async fn found(&self, wanted: &Wanted, mut outcome: Outcome) -> Result<Found, Trouble> {
        let (mut pause, longest) = PAUSES;
        for tried in 0..TRIES {
            if tried > 0 && Instant::now() >= self.until {
                // Another request here may have the key in hand by now.
                break;
            }
            match outcome {
                Outcome::Won => return Ok(Found::Won),
                Outcome::Known(seen) => match self.judge(wanted, &seen).await? {
                    Judgement::Again => {}
                    Judgement::Won => return Ok(Found::Won),
                    Judgement::Recorded => return Ok(Found::Recorded(seen)),
                    Judgement::Interrupted(attempt) => {
                        return Ok(Found::Interrupted(seen, attempt));
                    }
                    Judgement::Elsewhere => return Ok(Found::Elsewhere(seen)),
                },
                Outcome::Unknown | Outcome::Done(_) | Outcome::Fenced => {}
            }
            if tried > 0 {
                // Where this node's own session is over, nothing is claimed before the next one.
                self.fleet.session.renew_now();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            let again = self.fleet.queue.run(Work::Claim(wanted.clone()), Some(self.until));
            outcome = again.await.inspect_err(|_| self.undo())?;
        }
        // A statement whose answer was lost may have taken the key.
        self.undo();
        Err(Trouble::Restless)
    }

    /// Decides about a key that was there before.
    async fn judge(&self, wanted: &Wanted, seen: &Seen) -> Result<Judgement, Trouble> {
        let fleet = &self.fleet;
        let session = fleet.session.id();
        // A claim that this node made, and gave up before it was answered: the key would not be in
        // this request's hand otherwise.
        let is_left = seen.dead || seen.session == session;
        match seen.state {
            state::DONE if !seen.expired => return Ok(Judgement::Recorded),
            state::CLAIMED | state::DURABLE if !is_left => {
                let Some(judge) = fleet.session.judge().filter(|_| seen.lapsed) else {
                    return Ok(Judgement::Elsewhere);
                };
                fleet.until_known(&fleet.statements.bury, &judge.over(&seen.session)).await?;
                return Ok(Judgement::Again);
            }
            state::DURABLE | state::INTERRUPTED if !seen.expired => {
                return self.take_interrupted(seen.attempt).await;
            }
            _ => {}
        }
        // The key's last use is over.
        let sweep = fleet.ring.sweep(wanted.ttl_ms);
        let given = [&wanted.parameters(&sweep, &session)[..], &[&seen.attempt]].concat();
        let taken = fleet.until_known_if_free(&fleet.statements.take, &given, self.until).await;
        Ok(match taken.inspect_err(|_| self.undo())? {
            None => Judgement::Elsewhere,
            Some(taken) if taken.rows.is_empty() => Judgement::Again,
            Some(_) => Judgement::Won,
        })
    }

    /// Takes an interrupted run in order to judge it, under an attempt of its own: were it that of
    /// the claim, the run could pass for one that this request has begun.
    async fn take_interrupted(&self, old: Uuid) -> Result<Judgement, Trouble> {
        let (attempt, session) = (Uuid::now_v7(), self.fleet.session.id());
        let given: Parameters<'_> = &[&self.address, &old, &attempt, &session];
        let sql = &self.fleet.statements.judge;
        let taken = self.fleet.until_known_if_free(sql, given, self.until).await;
        let taken = taken.inspect_err(|_| self.give_up(attempt))?;
        let Some(Known { rows, is_repeated }) = taken else { return Ok(Judgement::Elsewhere) };
        if !rows.is_empty() {
            return Ok(Judgement::Interrupted(attempt));
        }
        if is_repeated {
            // An earlier try may have taken it, before this node's session was over.
            self.give_up(attempt);
        }
        Ok(Judgement::Again)
    }
}

/// The outcome of a request for a key.
enum Found {
    /// The attempt has it.
    Won,
    Recorded(Arc<Seen>),
    /// An interrupted run, and the attempt that has it in hand.
    Interrupted(Arc<Seen>, Uuid),
    Elsewhere(Arc<Seen>),
}

enum Judgement {
    /// The key has changed in between.
    Again,
    Won,
    Recorded,
    Interrupted(Uuid),
    Elsewhere,
}
