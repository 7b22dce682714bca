//! A history: steps on a real store, compared with the model, with all that a later cut must know.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use refrain::clock::SimulatedClock;
use refrain::disk::Disk;
use refrain::{Attempt, Builder, Error, Outcome, Permit, Result, Store};

use crate::journal::{Found, Journal, Miss, Times, find};
use crate::machine::{Machine, Process, Reads};
use crate::model::{
    Answer, HOUR, Known, Model, Name, PATIENCE, Request, TTL, address, checkpoint, judge,
    operation, request_id, requests_in, response,
};
use crate::step::{End, Judgement, Step};

mod ends;

use ends::{By, Ending};

/// Keys from here on are used once.
const FRESH: u32 = 1000;

/// The time that a simulated clock shows at first.
const START: Duration = Duration::from_secs(1_767_225_600);

/// A store on a machine, and all that was asked of it.
pub struct History {
    machine: Machine,
    clock: SimulatedClock,
    process: Arc<Process>,
    store: Option<Store>,
    times: Times,
    requests: Request,
    model: Model,
    held: Vec<Held>,
    /// Responses that this process was told are not kept, though they were given.
    left_out: u64,
    /// Keys that stay locked until the process ends.
    stuck: HashSet<Name>,
    /// Keys of which nobody knows how the last thing asked of them ended.
    unsure: HashSet<Name>,
    journal: Journal,
}

/// A run that has not ended.
struct Held {
    name: Name,
    permit: Permit,
    body: u8,
    request: Request,
    ttl: Duration,
    durable: bool,
}

/// Longer than all downtimes and idle times of a history.
pub const TRUSTED: Duration = Duration::from_secs(100 * 24 * 60 * 60);

/// Opens a store of the size that histories use.
///
/// # Errors
///
/// An error of the store.
pub fn open(disk: Arc<dyn Disk>, clock: SimulatedClock) -> Result<Store> {
    builder(clock).open_on(disk)
}

/// The settings of such a store.
pub fn builder(clock: SimulatedClock) -> Builder {
    Store::builder()
        .ttl(TTL)
        .log_bytes(256 * 1024)
        .max_response_bytes(32 * 1024)
        .max_open_claims(24)
        .trusted_downtime(TRUSTED)
        .clock(clock)
}

impl History {
    /// A history that begins with the content of a machine's disk.
    pub fn begin(machine: Machine, times: Times, known: Found) -> Self {
        let clock = times.clock_at(times.now);
        let (mut model, mut journal) = (Model::default(), Journal::default());
        for (name, known) in known {
            journal.note(name, 0, Some(0), known.clone());
            model.set(name, known);
        }
        // Of other histories' requests none has these numbers.
        let requests = model.iter().map(|(_, known)| known.request()).max().unwrap_or_default();
        let process = machine.start();
        Self {
            machine,
            clock,
            process,
            store: None,
            times,
            requests: requests + 1,
            model,
            held: Vec::new(),
            left_out: 0,
            stuck: HashSet::new(),
            unsure: HashSet::new(),
            journal,
        }
    }

    /// A history on an empty disk that does not fail.
    pub fn new(seed: u64) -> Self {
        Self::begin(Machine::new(&Default::default(), seed), Times::default(), Vec::new())
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The journal of requests and answers.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The times of the machine.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// The store, if it is open.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Opens the store in a new process.
    ///
    /// # Errors
    ///
    /// An error of the store.
    pub fn open(&mut self) -> Result<()> {
        self.process = self.machine.start();
        let store = open(Arc::clone(&self.process) as Arc<dyn Disk>, self.clock.clone())?;
        self.store = Some(store);
        Ok(())
    }

    /// Asks about every key, and goes on with what it finds.
    ///
    /// # Errors
    ///
    /// An error of the store.
    ///
    /// # Panics
    ///
    /// If the store does not have what it must have.
    pub fn look(&mut self) -> Result<()> {
        let store = self.store.as_ref().expect("it is open");
        let mut expected = self.journal.expected(usize::MAX);
        expected.push(((9, FRESH), vec![None]));
        expected.retain(|(name, _)| !self.is_held(*name));
        let found = match find(store, &expected, self.times.now) {
            Ok(found) => found,
            Err(Miss::Failed(_, error)) => return Err(error),
            Err(Miss::Wrong(said)) => panic!("{said}"),
        };
        let seen = self.machine.events();
        for (name, known) in found {
            if self.unsure.remove(&name) {
                self.journal.note(name, seen, Some(seen), known.clone());
                self.model.set(name, known);
            }
        }
        Ok(())
    }

    /// Ends the process, at once, and whatever it had begun.
    pub fn kill(&mut self) {
        self.process.kill();
        self.end_process();
    }

    fn end_process(&mut self) {
        // The store goes first: what ends with it must not look like a verdict.
        drop(self.store.take());
        self.held.clear();
        self.stuck.clear();
        self.left_out = 0;
    }

    /// Ends the process, and lets the cache drop what it may.
    pub fn kill_and_drop_caches(&mut self, reads: Reads) {
        self.kill();
        self.machine.drop_caches(reads);
    }

    /// Takes a step where nothing fails, so that the store may refuse only what is too much at
    /// once, and leaves out no body.
    ///
    /// # Errors
    ///
    /// The error that the store returned.
    ///
    /// # Panics
    ///
    /// If the store gives an answer that it must not give.
    pub fn step_on_a_sound_disk(&mut self, step: Step) -> std::result::Result<(), String> {
        match self.step(step) {
            Ok(()) | Err(Error::Limit { .. }) => {}
            Err(error) => return Err(format!("{step:?} on a sound disk: {error:?}")),
        }
        if self.left_out > 0 {
            return Err(format!("{step:?} on a sound disk: a body is left out"));
        }
        Ok(())
    }

    /// Takes a step.
    ///
    /// # Errors
    ///
    /// An error of the store. All is as it was before, unless the store has stopped.
    ///
    /// # Panics
    ///
    /// If the store gives an answer that it must not give.
    pub fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Begin { name, body, durable, ttl, end } => {
                match self.ask(name, body, durable, ttl)? {
                    Some(Asked::Run(held)) => self.end(held, end),
                    _ => Ok(()),
                }
            }
            Step::EndHeld { which, end } => match self.take_held(which) {
                Some(held) => self.end(held, end),
                None => Ok(()),
            },
            Step::EndAll { first } => self.end_all(first),
            Step::Burst { count } => self.burst(count),
            Step::Checkpoint { which } => self.checkpoint(which),
            Step::Resume { name, body, judgement } => self.resume(name, body, judgement),
            Step::GiveUp { name } => self.give_up(name),
            Step::Forget { name } => self.forget(name),
            Step::Advance { hours } => {
                self.advance(HOUR * u32::from(hours));
                Ok(())
            }
            Step::Wall { hours } => {
                self.set_wall(hours);
                Ok(())
            }
            Step::Reap => self.opened().reap(),
            Step::Purge => self.purge(),
            Step::Restart { cleanly } => self.restart(cleanly),
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        // Before the time passes: what the background thread writes next may have the new time.
        let events = self.machine.events();
        self.clock.advance(by);
        self.times.pass(by, events);
    }

    fn set_wall(&mut self, hours: i8) {
        let wall = START + self.times.now;
        let step = HOUR * u32::from(hours.unsigned_abs());
        self.clock.set_wall(if hours < 0 { wall - step } else { wall + step });
    }

    fn opened(&self) -> &Store {
        self.store.as_ref().expect("a history goes on while its store is open")
    }

    fn take_held(&mut self, which: u8) -> Option<Held> {
        let which = usize::from(which).checked_rem(self.held.len())?;
        Some(self.held.swap_remove(which))
    }

    fn live(&self, name: Name) -> Option<Known> {
        self.model.at(name, self.times.now).cloned()
    }

    /// Asks for a key, and compares the answer with the model.
    fn ask(&mut self, name: Name, body: u8, durable: bool, ttl: Duration) -> Result<Option<Asked>> {
        self.requests += 1;
        let request = self.requests;
        let mut operation = operation(name, body, request).ttl(ttl);
        if durable {
            operation = operation.durable();
        }
        let asked = self.machine.events();
        let known = self.live(name);
        let claim = Known::Interrupted {
            body,
            request,
            attempt: 1,
            checkpoints: 0,
            ttl,
            expires: self.times.now + ttl,
        };
        // A key that is held stays so, and any other may have to wait for room.
        let patience = if self.is_held(name) { Duration::ZERO } else { PATIENCE };
        let outcome = self.opened().begin(&operation).wait_timeout(patience);
        if durable && known.is_none() && !self.is_held(name) {
            match &outcome {
                Ok(_) => self.settle(name, asked, Some(claim)),
                Err(error) => self.fail(name, asked, Some(claim), error),
            }
        }
        let outcome = outcome?;
        if let Some(held) = self.held.iter().find(|held| held.name == name) {
            let expected = request_id(held.request);
            assert!(matches!(&outcome, Outcome::InFlight { holder } if *holder == expected));
            return Ok(None);
        }
        if self.stuck.contains(&name) {
            assert!(matches!(outcome, Outcome::InFlight { .. }), "{name:?} is not {outcome:?}");
            return Ok(None);
        }
        let same = known.as_ref().is_none_or(|known| known.body() == body);
        let answer = judge(name, known.as_ref(), outcome, same);
        match answer.unwrap_or_else(|wrong| panic!("{wrong}")) {
            Answer::Free(permit) => {
                Ok(Some(Asked::Run(Held { name, permit, body, request, ttl, durable })))
            }
            Answer::Interrupted(attempt) => Ok(Some(Asked::Interrupted(attempt, request))),
            Answer::Done { .. } | Answer::Conflict => Ok(None),
        }
    }

    fn is_held(&self, name: Name) -> bool {
        self.stuck.contains(&name) || self.held.iter().any(|held| held.name == name)
    }

    /// Notes that a request has happened.
    fn settle(&mut self, name: Name, asked: usize, after: Option<Known>) {
        self.journal.note(name, asked, Some(self.machine.events()), after.clone());
        self.model.set(name, after);
    }

    /// Notes that a request has failed: either it has not happened, or nobody knows.
    fn fail(&mut self, name: Name, asked: usize, after: Option<Known>, error: &Error) {
        if matches!(error, Error::Stopped { .. }) {
            self.journal.note(name, asked, None, after);
            self.unsure.insert(name);
        }
    }

    fn note<T>(
        &mut self,
        name: Name,
        asked: usize,
        after: Option<Known>,
        answer: Result<T>,
    ) -> Result<T> {
        match &answer {
            Ok(_) => self.settle(name, asked, after),
            Err(error) => self.fail(name, asked, after, error),
        }
        answer
    }

    fn checkpoint(&mut self, which: u8) -> Result<()> {
        let Some(which) = usize::from(which).checked_rem(self.held.len()) else { return Ok(()) };
        let name = self.held[which].name;
        // One that has expired may be forgotten already, and a volatile one has none.
        let Some(Known::Interrupted { body, request, attempt, checkpoints, ttl, expires }) =
            self.live(name)
        else {
            return Ok(());
        };
        let asked = self.machine.events();
        let answer = self.held[which].permit.checkpoint(checkpoint(name, checkpoints)).wait();
        let checkpoints = checkpoints + 1;
        let after = Known::Interrupted { body, request, attempt, checkpoints, ttl, expires };
        self.note(name, asked, Some(after), answer)
    }

    fn resume(&mut self, name: Name, body: u8, judgement: Judgement) -> Result<()> {
        let (attempt, request) = match self.ask(name, body, false, TTL)? {
            Some(Asked::Interrupted(attempt, request)) => (attempt, request),
            Some(Asked::Run(held)) => return self.end(held, End::Drop),
            None => return Ok(()),
        };
        let Some(Known::Interrupted { request: first, attempt: number, checkpoints, ttl, .. }) =
            self.live(name)
        else {
            panic!("{name:?} is interrupted")
        };
        let asked = self.machine.events();
        let now = self.times.now;
        match judgement {
            Judgement::Leave => Ok(()),
            Judgement::Release => {
                let answer = attempt.release().wait();
                self.note(name, asked, None, answer)
            }
            Judgement::Complete => {
                let ticket = attempt.complete(&response(body, first));
                let (kept, expires) = (None, now + ttl);
                let after = Some(Known::Done { body, request: first, kept, expires });
                self.finish_end(Ending { name, asked, after, by: By::Record(ticket) })
            }
            Judgement::Retry(end) => {
                let (attempt_after, expires) = (number + 1, now + TTL);
                let after = Known::Interrupted {
                    body,
                    request,
                    attempt: attempt_after,
                    checkpoints,
                    ttl: TTL,
                    expires,
                };
                let answer = attempt.retry().wait();
                let permit = self.note(name, asked, Some(after), answer)?;
                self.end(Held { name, permit, body, request, ttl: TTL, durable: true }, end)
            }
        }
    }

    /// The claim is on its way when the wait for it ends, and is taken back in its own time.
    fn give_up(&mut self, name: Name) -> Result<()> {
        if self.live(name).is_some() || self.is_held(name) {
            return Ok(());
        }
        let asked = self.machine.events();
        self.requests += 1;
        drop(self.opened().begin(&operation(name, 0, self.requests).durable()));
        let (body, request, attempt, checkpoints) = (0, self.requests, 1, 0);
        let expires = self.times.now + TTL;
        let claim = Known::Interrupted { body, request, attempt, checkpoints, ttl: TTL, expires };
        self.journal.note(name, asked, None, Some(claim));
        // The next in line waits until it is free again.
        let next = self.opened().begin(&operation(name, 0, self.requests)).wait();
        let seen = self.machine.events();
        match next {
            Ok(Outcome::Execute(permit)) => {
                drop(permit);
                self.journal.note(name, seen, Some(seen), None);
                Ok(())
            }
            Ok(other) => panic!("{name:?} was given up, and is {other:?}"),
            Err(error) => {
                self.unsure.insert(name);
                Err(error)
            }
        }
    }

    fn forget(&mut self, name: Name) -> Result<()> {
        let (scope, key) = address(name);
        let asked = self.machine.events();
        let answer = self.opened().forget(scope, &key).wait();
        if self.is_held(name) {
            let refused = matches!(answer, Err(Error::InFlight { .. } | Error::Stopped { .. }));
            assert!(refused, "{name:?} is in flight, and forgotten: {answer:?}");
            return Ok(());
        }
        self.note(name, asked, None, answer)
    }

    /// Purges, and looks for the bodies of dead records in all files.
    fn purge(&mut self) -> Result<()> {
        self.opened().purge().wait()?;
        // Where the clocks disagree, records live for longer.
        if self.unsure.is_empty() && self.opened().stats().clock_jump.is_none() {
            let live = |(name, _): (Name, _)| self.live(name).map(|known| known.request());
            let live: HashSet<Request> = self.model.iter().filter_map(live).collect();
            for (name, content) in self.machine.image().0 {
                let length = usize::try_from(content.len()).expect("simulated files are small");
                let mut bytes = vec![0; length];
                content.read(&mut bytes, 0).expect("it is as long as it says");
                let dead = requests_in(&bytes).find(|request| !live.contains(request));
                assert_eq!(dead, None, "the response to this request is left in {name}");
            }
        }
        Ok(())
    }

    /// Ends the process, and opens the store in a new one. A durable claim is then interrupted, and
    /// a claim in memory never was.
    fn restart(&mut self, cleanly: bool) -> Result<()> {
        if cleanly {
            let stragglers = self.opened().close(Duration::ZERO).wait()?;
            assert_eq!(stragglers, self.held.len());
            self.end_process();
        } else {
            self.kill();
        }
        self.open()?;
        // What a read that fails hides is there for the next one.
        self.look().or_else(|_| self.look()).inspect_err(|_| self.kill())
    }
}

enum Asked {
    Run(Held),
    Interrupted(Attempt, Request),
}
