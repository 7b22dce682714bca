//! The child: it works in a store until it is killed, and says what it asks and what it is told.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use refrain::clock::SimulatedClock;
use refrain::{Attempt, Error, Outcome, Permit, Record, Result, Scope, Store};

use crate::chance::Chance;

use super::script::{OPENER, Script};
use super::subject::{TICK, builder, operation, response};
use super::words::{Answer, Ask, Line, Sight};

/// Threads that work at once.
const THREADS: usize = 4;
/// Keys of each thread: few, so that they are met again.
const KEYS: usize = 48;
/// Turns of each thread between two ticks.
const TURNS: usize = 8;
/// Open claims, far enough below the store's limit that all threads may add to them.
const MANY_CLAIMS: usize = 16;

/// The reason why a thread stops working.
enum Halt {
    /// The store has stopped.
    Store,
    /// The parent is gone, or something is wrong that the parent must hear of.
    Wrong(String),
}

type Turn<T = ()> = std::result::Result<T, Halt>;

/// Works as the environment says.
///
/// # Errors
///
/// If the environment or the parent is not as it must be.
pub fn child_main() -> io::Result<()> {
    let script = Script::from_environment()?;
    // Where only descendants may be traced, this says that the parent's strace may too. Elsewhere
    // the kernel does not know the question.
    let _ = rustix::process::set_ptracer(rustix::process::PTracer::Any);
    let voice = Voice(Mutex::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)));
    // Calls are counted for each thread, so opening has one of its own.
    let worker = move || {
        let said = match run(&voice, &script) {
            Ok(()) => Line::Ended,
            Err(Halt::Store) => Line::Stopped,
            Err(Halt::Wrong(what)) => Line::Wrong(what),
        };
        voice.say(&said)
    };
    let opener = thread::Builder::new().name(OPENER.into()).spawn(worker)?;
    opener.join().map_err(|_| io::Error::other("the child panicked"))?
}

fn run(voice: &Voice, script: &Script) -> Turn {
    let (builder, clock) = builder(script.now);
    voice.say(&Line::Ready)?;
    wait_for_parent()?;
    let store = match builder.open(&script.directory) {
        Ok(store) => store,
        Err(error) => return Err(halt(error)),
    };
    voice.say(&Line::Open)?;
    wait_for_parent()?;
    let mut now = script.now;
    voice.say(&Line::Tick(now))?;
    for tick in 0..script.ticks {
        work(&store, voice, script, tick)?;
        advance(&clock, &mut now, voice)?;
    }
    store.close(Duration::ZERO).wait().map(drop).map_err(halt)
}

/// Lets time pass. The parent is told before the background thread can write the new time, because
/// it opens the store at the time that it was told.
fn advance(clock: &SimulatedClock, now: &mut u64, voice: &Voice) -> Turn {
    *now += u64::try_from(TICK.as_millis()).unwrap_or(u64::MAX);
    voice.say(&Line::Tick(*now))?;
    clock.advance(TICK);
    Ok(())
}

/// Waits for one line from the parent, which lets the child go on.
fn wait_for_parent() -> Turn {
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Lets all threads work, and waits for their end.
fn work(store: &Store, voice: &Voice, script: &Script, tick: u64) -> Turn {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let seed = script.seed ^ (script.round << 24) ^ (tick << 8) ^ thread as u64;
                let name = format!("{}-{tick}-{thread}", script.round);
                let chance = Chance::new(seed);
                let mut worker = Worker { store, voice, thread, chance, name, requests: 0 };
                thread::Builder::new()
                    .name(format!("worker-{thread}"))
                    .spawn_scoped(scope, move || worker.work())
            })
            .collect();
        for thread in threads {
            thread?.join().map_err(|_| Halt::Wrong("a thread panicked".into()))??;
        }
        Ok(())
    })
}

struct Worker<'a> {
    store: &'a Store,
    voice: &'a Voice,
    thread: usize,
    chance: Chance,
    name: String,
    requests: usize,
}

impl Worker<'_> {
    fn work(&mut self) -> Turn {
        for turn in 0..TURNS {
            // Beside the others, so that sealing and dropping have commits beside them.
            if self.thread == 0 && turn == TURNS / 2 {
                self.reap()?;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Does the background thread's work. Errors are passed over, unless the store has stopped.
    fn reap(&self) -> Turn {
        match self.store.reap() {
            Err(error @ Error::Stopped { .. }) => Err(halt(error)),
            _ => Ok(()),
        }
    }

    fn turn(&mut self) -> Turn {
        let key = format!("{}/{}", self.thread, self.chance.below(KEYS));
        if self.chance.one_in(8) {
            return self.forget(&key);
        }
        let request = self.request();
        let mut operation = operation(&key, &request);
        let ask = if self.chance.one_in(3) {
            operation = operation.durable();
            Ask::BeginDurable { request: request.clone() }
        } else {
            Ask::Begin
        };
        self.asks(&key, ask)?;
        let outcome = self.store.begin(&operation).wait();
        let Some(outcome) = self.accepted(&key, outcome)? else { return Ok(()) };
        self.told(&key, Answer::Saw(Sight::of(&outcome).map_err(Halt::Wrong)?))?;
        match outcome {
            Outcome::Execute(permit) => self.run(&key, permit),
            Outcome::Replay(_) if self.chance.one_in(2) => self.forget(&key),
            Outcome::Interrupted(attempt) => self.judge(&key, attempt, request),
            _ => Ok(()),
        }
    }

    fn forget(&self, key: &str) -> Turn {
        let (scope, name) = key.split_once('/').expect("a key is named with its scope");
        let name = name.parse().expect("the names are keys");
        self.asks(key, Ask::Forget)?;
        self.settled(key, self.store.forget(Scope::new(scope), &name).wait())
    }

    /// Ends a run in one of all possible ways.
    fn run(&mut self, key: &str, mut permit: Permit) -> Turn {
        let request = permit.request_id().to_string();
        while self.chance.one_in(2) {
            self.checkpoint(key, &mut permit)?;
        }
        match self.chance.below(10) {
            0 => {
                self.asks(key, Ask::Release)?;
                self.settled(key, permit.release().wait())
            }
            // It is interrupted already if it is durable, and free if not.
            1 => {
                drop(permit);
                Ok(())
            }
            2 if self.store.stats().open_claims < MANY_CLAIMS => {
                self.asks(key, Ask::Interrupt { request })?;
                self.settled(key, permit.interrupt().wait())
            }
            3 => {
                self.asks(key, Ask::CompleteWithoutResponse { request })?;
                self.recorded(key, permit.complete_without_response().wait())
            }
            _ => {
                let response = response(&request);
                self.asks(key, Ask::Complete { request })?;
                self.recorded(key, permit.complete(&response).wait())
            }
        }
    }

    fn checkpoint(&mut self, key: &str, permit: &mut Permit) -> Turn {
        let data = format!("point-{}", self.chance.below(1000));
        self.asks(key, Ask::Checkpoint { data: data.clone() })?;
        match permit.checkpoint(data).wait() {
            Err(Error::Volatile) => self.told(key, Answer::Refused),
            outcome => self.settled(key, outcome),
        }
    }

    fn judge(&mut self, key: &str, attempt: Attempt, request: String) -> Turn {
        let interrupted = attempt.request_id().to_string();
        match self.chance.below(5) {
            0 => {
                drop(attempt);
                Ok(())
            }
            1 => {
                self.asks(key, Ask::Release)?;
                self.settled(key, attempt.release().wait())
            }
            2 => {
                let response = response(&interrupted);
                self.asks(key, Ask::Complete { request: interrupted })?;
                self.recorded(key, attempt.complete(&response).wait())
            }
            _ => {
                self.asks(key, Ask::Retry { request })?;
                let retried = attempt.retry().wait();
                let Some(permit) = self.accepted(key, retried)? else { return Ok(()) };
                self.told(key, Answer::Done)?;
                self.run(key, permit)
            }
        }
    }

    fn request(&mut self) -> String {
        self.requests += 1;
        format!("{}-{}", self.name, self.requests)
    }

    fn asks(&self, key: &str, ask: Ask) -> Turn {
        Ok(self.voice.say(&Line::Asks(key.into(), ask))?)
    }

    fn told(&self, key: &str, answer: Answer) -> Turn {
        Ok(self.voice.say(&Line::Told(key.into(), answer))?)
    }

    fn settled(&self, key: &str, outcome: Result<()>) -> Turn {
        match self.accepted(key, outcome)? {
            Some(()) => self.told(key, Answer::Done),
            None => Ok(()),
        }
    }

    fn recorded(&self, key: &str, outcome: Result<Record>) -> Turn {
        let Some(record) = self.accepted(key, outcome)? else { return Ok(()) };
        self.told(key, Answer::Saw(Sight::of_record(&record).map_err(Halt::Wrong)?))
    }

    /// Returns what the store granted, if anything. A refusal is told to the parent, and ends
    /// nothing.
    fn accepted<T>(&self, key: &str, outcome: Result<T>) -> Turn<Option<T>> {
        match outcome {
            Ok(granted) => Ok(Some(granted)),
            Err(Error::Full | Error::Behind | Error::Limit { .. } | Error::Unavailable { .. }) => {
                self.told(key, Answer::Refused)?;
                // The reaper tries again, and needs a core.
                thread::yield_now();
                Ok(None)
            }
            Err(error @ Error::Stopped { .. }) => {
                self.told(key, Answer::Unknown)?;
                Err(halt(error))
            }
            Err(error) => Err(Halt::Wrong(format!("{key} is answered with {error:?}"))),
        }
    }
}

/// The pipe to the parent.
struct Voice(Mutex<File>);

impl Voice {
    /// Writes a line with a single write, past all buffers, so that a kill cannot take it back.
    fn say(&self, line: &Line) -> io::Result<()> {
        // Behind what a test's harness leaves unfinished.
        let start = if *line == Line::Ready { "\n" } else { "" };
        self.0.lock().write_all(format!("{start}{line}\n").as_bytes())
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Wrong(format!("the child cannot talk or start threads: {error}"))
    }
}

/// A disk that fails stops a store; all else is wrong.
fn halt(error: Error) -> Halt {
    match error {
        Error::Stopped { .. } | Error::Io { .. } => Halt::Store,
        error => Halt::Wrong(format!("{error:?}")),
    }
}
