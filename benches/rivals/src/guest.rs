//! A store in a process of its own, as the one who measures sees it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Expired, Reply, Request};
use crate::measure::Measured;
use crate::rivals::Kind;
use crate::workload::{Looked, Ran};

pub struct Guest {
    pub kind: Kind,
    /// The time that the store took to open, in milliseconds.
    pub opened_in: f64,
    directory: PathBuf,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The next new key: each run has a stretch of its own.
    next: u64,
}

/// The time within which killed processes must be gone.
const GONE: Duration = Duration::from_secs(10);
/// New keys of one run.
const STRETCH: u64 = 1 << 32;

impl Guest {
    pub fn start(kind: Kind, parent: &Path) -> Result<Self> {
        Self::start_in(kind, parent.join(kind.name()), STRETCH)
    }

    fn start_in(kind: Kind, directory: PathBuf, next: u64) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("host").arg(kind.name()).arg(&directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("it has an input")?;
        let output = BufReader::new(child.stdout.take().context("it has an output")?);
        let mut guest = Self { kind, opened_in: 0.0, directory, child, input, output, next };
        match guest.read()? {
            Reply::Opened { millis } => guest.opened_in = millis,
            other => bail!("not opened: {other:?}"),
        }
        Ok(guest)
    }

    /// Kills it with all its processes, and opens it again.
    pub fn kill_and_reopen(mut self) -> Result<Self> {
        let processes = self.measure()?.processes;
        for process in &processes {
            if let Some(process) = i32::try_from(*process).ok().and_then(Pid::from_raw) {
                // A server's helpers end with it, and may be gone by now.
                let _ = kill_process(process, Signal::KILL);
            }
        }
        self.child.kill()?;
        self.child.wait()?;
        let is_there = |process: &u32| Path::new(&format!("/proc/{process}")).exists();
        let deadline = Instant::now() + GONE;
        while processes.iter().any(is_there) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        Self::start_in(self.kind, self.directory.clone(), self.next)
    }

    pub fn fill(&mut self, first: u64, count: u64, body_bytes: usize) -> Result<()> {
        self.expect_done(&Request::Fill { first, count, body_bytes })
    }

    /// New records, to be thrown in.
    pub fn warm(&mut self, count: u64, body_bytes: usize) -> Result<()> {
        let first = self.stretch();
        self.expect_done(&Request::Warm { first, count, body_bytes })
    }

    pub fn settle(&mut self) -> Result<()> {
        self.expect_done(&Request::Settle)
    }

    pub fn run(&mut self, committers: usize, body_bytes: usize, millis: u64) -> Result<Ran> {
        let first = self.stretch();
        match self.ask(&Request::Run { first, committers, body_bytes, millis })? {
            Reply::Ran(ran) => Ok(ran),
            other => bail!("{other:?}"),
        }
    }

    pub fn look_up(&mut self, first: u64, end: u64, count: u64) -> Result<Looked> {
        match self.ask(&Request::LookUp { first, end, count })? {
            Reply::LookedUp(looked) => Ok(looked),
            other => bail!("{other:?}"),
        }
    }

    pub fn measure(&mut self) -> Result<Measured> {
        match self.ask(&Request::Measure)? {
            Reply::Measured(measured) => Ok(measured),
            other => bail!("{other:?}"),
        }
    }

    pub fn expire(&mut self, committers: usize, body_bytes: usize, millis: u64) -> Result<Expired> {
        let first = self.stretch();
        match self.ask(&Request::Expire { first, committers, body_bytes, millis })? {
            Reply::Expired(expired) => Ok(expired),
            other => bail!("{other:?}"),
        }
    }

    fn stretch(&mut self) -> u64 {
        self.next += STRETCH;
        self.next
    }

    fn expect_done(&mut self, request: &Request) -> Result<()> {
        match self.ask(request)? {
            Reply::Done => Ok(()),
            other => bail!("{other:?}"),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        writeln!(self.input, "{}", serde_json::to_string(request)?)?;
        self.read().with_context(|| format!("{}: {request:?}", self.kind.name()))
    }

    fn read(&mut self) -> Result<Reply> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("it ended");
        }
        match serde_json::from_str(&line)? {
            Reply::Failed(reason) => bail!("{reason}"),
            reply => Ok(reply),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Its servers go with it, and what it leaves on the disk goes with the directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
