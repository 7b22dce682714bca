//! A store's directory, the children that are killed in it, and the ledger that it is held against.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use refrain::{Outcome, Store};
use tempfile::TempDir;

use super::Start;
use super::fault::{Blow, Fault, Injection};
use super::ledger::Ledger;
use super::script::Script;
use super::subject::{builder, operation};
use super::words::{Line, Sight};

/// More ticks than any child comes to before it is killed.
const ENDLESS: u64 = 10_000;
const SIGKILL: i32 = 9;

pub(super) struct Home {
    directory: TempDir,
    seed: u64,
    rounds: u64,
    pub(super) ledger: Ledger,
    pub(super) slowest_opening: Duration,
}

/// The end that is meant for a child.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// A kill, after so many lines.
    After(u64),
    /// A fault, unless all is done before.
    At(Fault, Ticks),
}

/// The ticks that a child works for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks(pub(super) u64);

impl Home {
    pub(super) fn new(seed: u64) -> io::Result<Self> {
        Ok(Self {
            directory: tempfile::Builder::new().prefix("refrain-kill-").tempdir()?,
            seed,
            rounds: 0,
            ledger: Ledger::default(),
            slowest_opening: Duration::ZERO,
        })
    }

    /// Runs a child. Returns true if it came to the end that was meant for it.
    pub(super) fn run(&mut self, start: &Start, end: End) -> Result<bool, String> {
        self.rounds += 1;
        let ticks = match end {
            End::After(_) => ENDLESS,
            End::At(_, Ticks(ticks)) => ticks,
        };
        let script = Script {
            directory: self.path(),
            seed: self.seed,
            round: self.rounds,
            now: self.ledger.now(),
            ticks,
        };
        let mut command = start();
        script.hand_to(&mut command);
        let ended = Running::start(&mut command)
            .map_err(|error| format!("cannot start the child: {error}"))?
            .watch(&mut self.ledger, end, self.directory.path());
        self.ledger.lose();
        ended
    }

    /// Opens the store as the next process would, and looks at all that was ever acknowledged.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let store = self.open()?;
        for key in self.ledger.keys() {
            self.look_at(&store, &key)?;
        }
        let unused = format!("unused/{}", self.rounds);
        match store.begin(&operation(&unused, "nobody")).wait() {
            Ok(Outcome::Execute(_)) => {}
            other => return Err(format!("key {unused} was never used and is {other:?}")),
        }
        store.verify().map_err(|error| format!("the store does not verify: {error:?}"))?;
        store.close(Duration::ZERO).wait().map_err(|error| format!("closing fails: {error:?}"))?;
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "this wait is what is measured")]
    fn open(&mut self) -> Result<Store, String> {
        let (builder, _) = builder(self.ledger.now());
        let since = Instant::now();
        let store = builder
            .open(self.path())
            .map_err(|error| format!("the store does not open again: {error:?}"))?;
        self.slowest_opening = self.slowest_opening.max(since.elapsed());
        Ok(store)
    }

    fn look_at(&mut self, store: &Store, key: &str) -> Result<(), String> {
        let outcome = store.begin(&operation(key, "parent")).wait();
        let sight = match outcome {
            Ok(outcome) => Sight::of(&outcome),
            Err(error) => Err(format!("asking fails: {error:?}")),
        };
        let sight =
            sight.map_err(|what| format!("key {key}: {what}; {}", self.ledger.story(key)))?;
        self.ledger.sees(key, &sight)
    }

    /// Keeps the directory for someone to look at, and returns its path.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.path()
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }
}

/// A running child, which is killed if nobody watches it to its end.
struct Running {
    child: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().expect("it was piped");
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    /// Enters what the child says. Returns true if the child came to the end that was meant for it.
    fn watch(mut self, ledger: &mut Ledger, end: End, home: &Path) -> Result<bool, String> {
        let failed = |error: io::Error| format!("cannot watch the child: {error}");
        let mut injection = None;
        let mut said = 0;
        let mut last = None;
        while let Some(line) = self.lines.next() {
            let Some(line) = Line::parse(&line.map_err(failed)?)? else { continue };
            match &line {
                Line::Ready | Line::Open => {
                    let opening = line == Line::Ready;
                    if let End::At(fault, _) = end
                        && fault.stage.is_opening() == opening
                    {
                        let pid = self.child.id();
                        injection = Some(Injection::attach(&fault, pid, home).map_err(failed)?);
                    }
                    self.go_on().map_err(failed)?;
                }
                Line::Tick(now) => ledger.tick(*now),
                Line::Asks(key, ask) => ledger.asks(key, ask.clone())?,
                Line::Told(key, answer) => ledger.told(key, answer)?,
                Line::Wrong(what) => return Err(what.clone()),
                Line::Ended | Line::Stopped => {}
            }
            said += 1;
            if matches!(end, End::After(lines) if lines == said) {
                self.child.kill().map_err(failed)?;
            }
            last = Some(line);
        }
        let killed = self.child.wait().map_err(failed)?.signal() == Some(SIGKILL);
        let came = injection.map_or(Ok(killed), Injection::end).map_err(failed)?;
        match (end, last) {
            (End::After(_), _) if killed => Ok(true),
            (End::At(fault, _), _) if killed && fault.blow == Blow::Kill => Ok(true),
            (End::At(fault, _), Some(Line::Stopped)) if came && fault.blow != Blow::Kill => {
                Ok(true)
            }
            (End::At(..), Some(Line::Ended)) => Ok(came),
            (_, last) => Err(format!("the child ended by itself; its last line was {last:?}")),
        }
    }

    fn go_on(&mut self) -> io::Result<()> {
        self.child.stdin.as_mut().expect("it was piped").write_all(b"\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Most have ended, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
