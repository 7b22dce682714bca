//! One round of statements for a batch of jobs, and what it says about each of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::columns::{Claims, Completions};
use crate::job::{Completion, Job, Outcome, Wanted, Work};
use crate::link::Link;
use crate::ring::Ring;
use crate::statements::{Done, Line, Seen, Statements, state};
use crate::trouble::Trouble;

/// The means of a round.
pub(crate) struct Round<'a> {
    pub(crate) link: &'a Link,
    pub(crate) statements: &'a Statements,
    pub(crate) ring: &'a Ring,
    /// The session that claims are made under.
    pub(crate) session: i64,
}

impl Round<'_> {
    /// Reads the rows of the keys that the jobs are about, and changes nothing.
    pub(crate) async fn read(&self, jobs: &[Job]) -> Result<Answers, Trouble> {
        let mut answers = Answers::default();
        self.find(jobs.iter().map(|job| job.work.address()).collect(), &mut answers).await?;
        self.confirm_earlier_tries(jobs, &answers).await?;
        Ok(answers)
    }

    /// Claims and completes, and reads the row of each key with which that did not succeed.
    pub(crate) async fn write(&self, jobs: &[Job]) -> Result<Answers, Trouble> {
        let mut answers = match jobs {
            [Job { work: Work::Claim(wanted), .. }] => self.claim(wanted).await?,
            [Job { work: Work::Complete(completion), .. }] => self.complete(completion).await?,
            _ => self.write_many(jobs).await?,
        };
        let is_open = |work: &&Work| match work {
            Work::Claim(wanted) => !answers.won.contains(&wanted.attempt),
            Work::Complete(completion) => !answers.done.contains_key(&completion.attempt),
            Work::Find(_) => true,
        };
        let open: Vec<Uuid> =
            jobs.iter().map(|job| &job.work).filter(is_open).map(Work::address).collect();
        if !open.is_empty() {
            self.find(open, &mut answers).await?;
        }
        self.confirm_earlier_tries(jobs, &answers).await?;
        Ok(answers)
    }

    /// Returns once what earlier tries of these jobs have done is as durable as what this one has.
    async fn confirm_earlier_tries(&self, jobs: &[Job], answers: &Answers) -> Result<(), Trouble> {
        if !jobs.iter().any(|job| answers.has_earlier_try(&job.work)) {
            return Ok(());
        }
        let sql = &self.statements.confirm;
        let confirmed = self.link.query_prepared(sql, &[&self.session]).await?;
        if confirmed.is_empty() { Err(Trouble::Restless) } else { Ok(()) }
    }

    /// Reads rows, with the bodies of those that are done.
    async fn find(&self, addresses: Vec<Uuid>, answers: &mut Answers) -> Result<(), Trouble> {
        // Most retries come soon, so that the body is where a record of now would go.
        let slot = self.ring.slot(self.ring.default_guess());
        let rows = self.link.query_prepared(&self.statements.find[slot], &[&addresses]).await?;
        for row in &rows {
            let seen = Seen::read(row)?;
            answers.seen.insert(seen.address, Arc::new(seen));
        }
        for (slot, attempts) in answers.without_bodies(slot) {
            let Some(sql) = self.statements.bodies.get(slot) else { continue };
            for row in &self.link.query_prepared(sql, &[&attempts]).await? {
                answers.add_body(row.try_get(0)?, row.try_get(1)?);
            }
        }
        answers.expire_without_bodies(self.ring.now());
        Ok(())
    }

    async fn claim(&self, wanted: &Wanted) -> Result<Answers, Trouble> {
        let sweep = self.ring.sweep(wanted.ttl_ms);
        let given = wanted.parameters(&sweep, &self.session);
        let rows = self.link.query_prepared(&self.statements.claim, &given).await?;
        let mut answers = Answers::default();
        if !rows.is_empty() {
            answers.won.insert(wanted.attempt);
        }
        Ok(answers)
    }

    async fn complete(&self, completion: &Completion) -> Result<Answers, Trouble> {
        let guess = self.ring.guess(completion.ttl_ms);
        let window = self.ring.window(guess);
        let sql = &self.statements.complete[self.ring.slot(guess)];
        let given = completion.parameters(&guess, &window);
        let mut answers = Answers::default();
        answers.read(&self.link.query_prepared(sql, &given).await?)?;
        Ok(answers)
    }

    /// Sends claims and completions in one statement, each sorted by address, since opposite orders
    /// deadlock.
    async fn write_many(&self, jobs: &[Job]) -> Result<Answers, Trouble> {
        let claims = Claims::of(jobs, self.ring);
        let claimed = claims.parameters(&self.session);
        // Completions whose TTLs differ by a slot or more go into several statements.
        let mut groups = Completions::by_slot(jobs, self.ring);
        let first = groups.pop();
        let Statements { claims: claim, completions: complete, both, .. } = self.statements;
        let (sql, given) = match &first {
            None => (claim, claimed),
            Some(group) if claims.is_empty() => {
                (&complete[self.ring.slot(group.guess)], group.parameters())
            }
            Some(group) => {
                let given = [claimed, group.parameters()].concat();
                (&both[self.ring.slot(group.guess)], given)
            }
        };
        let mut answers = Answers::default();
        answers.read(&self.link.query_prepared(sql, &given).await?)?;
        for group in &groups {
            let sql = &complete[self.ring.slot(group.guess)];
            answers.read(&self.link.query_prepared(sql, &group.parameters()).await?)?;
        }
        Ok(answers)
    }
}

/// All that a round has said.
#[derive(Default)]
pub(crate) struct Answers {
    won: HashSet<Uuid>,
    done: HashMap<Uuid, Done>,
    seen: HashMap<Uuid, Arc<Seen>>,
}

impl Answers {
    fn read(&mut self, rows: &[Row]) -> Result<(), Trouble> {
        for row in rows {
            match Line::read(row)? {
                Line::Won(attempt) => drop(self.won.insert(attempt)),
                Line::Done(done) => drop(self.done.insert(done.attempt, done)),
            }
        }
        Ok(())
    }

    /// The attempts, by slot, whose bodies a read of the bodies in `slot` has left out.
    fn without_bodies(&self, slot: usize) -> HashMap<usize, Vec<Uuid>> {
        let mut slots: HashMap<usize, Vec<Uuid>> = HashMap::new();
        for seen in self.seen.values().filter(|seen| seen.payload.is_none()) {
            if let Ok(own) = usize::try_from(seen.slot)
                && own != slot
            {
                slots.entry(own).or_default().push(seen.attempt);
            }
        }
        slots
    }

    fn add_body(&mut self, attempt: Uuid, payload: Vec<u8>) {
        if let Some(seen) = self.seen.values_mut().find(|seen| seen.attempt == attempt) {
            Arc::make_mut(seen).payload = Some(payload.into());
        }
    }

    /// A record that expired after its key was read may have lost its body meanwhile.
    fn expire_without_bodies(&mut self, now: SystemTime) {
        for seen in self.seen.values_mut().filter(|seen| seen.payload.is_none()) {
            let seen = Arc::make_mut(seen);
            seen.expired |= seen.expires_at.is_some_and(|at| at <= now);
        }
    }

    /// Returns whether the work is done, by an earlier try whose answer was lost.
    fn has_earlier_try(&self, work: &Work) -> bool {
        let (address, attempt, least) = match work {
            Work::Claim(wanted) => (wanted.address, wanted.attempt, state::CLAIMED),
            Work::Complete(completion) => (completion.address, completion.attempt, state::DONE),
            Work::Find(_) => return false,
        };
        let row = self.seen.get(&address);
        row.is_some_and(|row| row.attempt == attempt && row.state >= least)
    }

    /// The outcome of a job that was sent, unless it is to be sent again.
    pub(crate) fn outcome(&self, work: &Work) -> Option<Outcome> {
        match work {
            Work::Claim(wanted) => Some(self.of_claim(wanted)),
            Work::Complete(completion) => self.of_completion(completion),
            Work::Find(address) => Some(self.of_key(*address)),
        }
    }

    fn of_key(&self, address: Uuid) -> Outcome {
        match self.seen.get(&address) {
            Some(row) => Outcome::Known(Arc::clone(row)),
            None => Outcome::Unknown,
        }
    }

    fn of_claim(&self, wanted: &Wanted) -> Outcome {
        if self.won.contains(&wanted.attempt) {
            return Outcome::Won;
        }
        match self.seen.get(&wanted.address) {
            // An earlier try, whose answer was lost.
            Some(row) if row.attempt == wanted.attempt && !row.dead => Outcome::Won,
            _ => self.of_key(wanted.address),
        }
    }

    fn of_completion(&self, completion: &Completion) -> Option<Outcome> {
        let attempt = completion.attempt;
        if let Some(done) = self.done.get(&attempt) {
            return Some(Outcome::Done(*done));
        }
        let row = self.seen.get(&completion.address).filter(|row| row.attempt == attempt);
        match row.map(|row| &**row) {
            Some(Seen { state: state::DONE, expires_at: Some(at), waited, .. }) => {
                Some(Outcome::Done(Done { attempt, expires_at: *at, waited: *waited }))
            }
            // Its slot was guessed wrong.
            Some(_) => None,
            None => Some(Outcome::Fenced),
        }
    }
}
