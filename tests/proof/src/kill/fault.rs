//! A fault at one system call of one thread, which strace injects.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::script::OPENER;
use crate::chance::Chance;

/// The number of looks for a thread that is about to name itself.
const LOOKS: usize = 1_000_000;

/// A fault at one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The part of a store's life.
    pub stage: Stage,
    /// The system call.
    pub call: Call,
    /// The number of the call, counted from 1 in the thread of that stage.
    pub nth: u32,
    /// The effect at the call.
    pub blow: Blow,
}

/// A part of a store's life, each in a thread of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first opening, which makes the store.
    Creation,
    /// An opening after a kill.
    Recovery,
    /// Batches of the log.
    Commits,
    /// Preparing logs, sealing them, and dropping what has expired.
    Upkeep,
}

/// A system call that changes the disk.
///
/// strace acts where a call begins, so the N-th kill comes before the N-th change and after all
/// earlier ones. The moment after a call is the beginning of the next call of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A write into a file.
    Write,
    /// A sync of a file.
    SyncFile,
    /// A sync of a directory.
    SyncNames,
    /// A rename, over another file's name.
    Rename,
    /// The removal of a name.
    Remove,
    /// The allocation of a file's blocks.
    Allocate,
    /// A change of a file's length.
    Truncate,
}

/// The effect of a fault at its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL, in place of the call.
    Kill,
    /// The call is not made, and fails with EIO.
    Fail,
    /// The call is not made, and fails with ENOSPC.
    Full,
}

impl Fault {
    /// One of all faults, drawn at random; most are kills.
    pub fn draw(chance: &mut Chance) -> Self {
        let stage = Stage::ALL[chance.below(Stage::ALL.len())];
        let call = stage.calls()[chance.below(stage.calls().len())];
        let blow = if chance.one_in(4) { Blow::ERRORS[chance.below(2)] } else { Blow::Kill };
        let most = if stage.is_opening() { 12 } else { 100 };
        let nth = 1 + u32::try_from(chance.below(most)).unwrap_or(0);
        Self { stage, call, nth, blow }
    }
}

impl Blow {
    const ERRORS: [Self; 2] = [Self::Fail, Self::Full];
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 4] = [Self::Creation, Self::Recovery, Self::Commits, Self::Upkeep];

    /// The calls that its thread makes.
    pub fn calls(self) -> &'static [Call] {
        match self {
            Self::Commits => &[Call::Write, Call::SyncFile],
            Self::Creation | Self::Recovery | Self::Upkeep => &Call::ALL,
        }
    }

    /// Returns true if the stage's thread opens the store.
    pub(super) fn is_opening(self) -> bool {
        matches!(self, Self::Creation | Self::Recovery)
    }

    fn thread(self) -> &'static str {
        match self {
            Self::Creation | Self::Recovery => OPENER,
            Self::Commits => "refrain-writer",
            Self::Upkeep => "refrain-reaper",
        }
    }
}

impl Call {
    /// All calls.
    pub const ALL: [Self; 7] = [
        Self::Write,
        Self::SyncFile,
        Self::SyncNames,
        Self::Rename,
        Self::Remove,
        Self::Allocate,
        Self::Truncate,
    ];

    /// The name that strace has for the call; strace passes over a name that the machine's
    /// architecture does not have.
    fn name(self) -> &'static str {
        match self {
            Self::Write => "pwrite64",
            Self::SyncFile => "fdatasync",
            Self::SyncNames => "fsync",
            Self::Rename => "?renameat,?renameat2",
            Self::Remove => "unlinkat",
            Self::Allocate => "fallocate",
            Self::Truncate => "ftruncate",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, call, nth, blow } = self;
        write!(f, "{blow:?} at {call:?} {nth} of {stage:?}")
    }
}

/// An strace that waits for the call.
pub(super) struct Injection {
    strace: Child,
    trace: PathBuf,
}

impl Injection {
    /// Traces the thread of the fault's stage; it counts its calls from here on.
    pub(super) fn attach(fault: &Fault, process: u32, home: &Path) -> io::Result<Self> {
        let thread = find_thread(process, fault.stage.thread())?;
        let trace = home.join("trace");
        let blow = match fault.blow {
            Blow::Kill => "signal=KILL",
            Blow::Fail => "error=EIO",
            Blow::Full => "error=ENOSPC",
        };
        let (call, nth) = (fault.call.name(), fault.nth);
        let mut strace = Command::new("strace")
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:{blow}:when={nth}")])
            .arg("-o")
            .arg(&trace)
            .arg("-p")
            .arg(thread)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{NEEDS_STRACE}: {error}")))?;
        let mut said = String::new();
        let stderr = strace.stderr.take().expect("it was piped");
        BufReader::new(stderr).read_line(&mut said)?;
        let injection = Self { strace, trace };
        if said.contains("attached") {
            return Ok(injection);
        }
        injection.end()?;
        Err(io::Error::other(format!("strace says: {said}")))
    }

    /// Waits for strace, and says whether it came to the call.
    pub(super) fn end(mut self) -> io::Result<bool> {
        self.strace.wait()?;
        let trace = fs::read_to_string(&self.trace)?;
        Ok(trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL"))
    }
}

const NEEDS_STRACE: &str = "strace injects the faults, and is not here (apt-get install strace)";

/// The thread of that name. It may be about to name itself, but it was started.
fn find_thread(process: u32, name: &str) -> io::Result<OsString> {
    for _ in 0..LOOKS {
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let task = task?;
            // It may have ended meanwhile.
            let named = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if named.trim_end() == name {
                return Ok(task.file_name());
            }
        }
        thread::yield_now();
    }
    Err(io::Error::other(format!("process {process} has no thread {name}")))
}
