//! The parent's end of a node: its process, its network, and the faults that they suffer.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use super::Start;
use super::journal::{Life, Moment, Told, now};
use super::kit::proxy::Proxy;
use super::kit::server::address;
use super::node::Settings;
use super::words::{Ask, Call, Number, READY, Reply};

/// The longest time in which a process starts, while its network is sound.
const START_WITHIN: Duration = Duration::from_secs(30);
/// The longest time that a reply takes, whatever happens. A process that takes longer hangs.
const REPLY_WITHIN: Duration = Duration::from_secs(60);
/// The pause before another process is started in the place of one that could not connect.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Peer {
    index: usize,
    settings: Settings,
    pub(super) proxy: Proxy,
    state: Mutex<State>,
    /// Held by the fault that the node suffers.
    pub(super) suffers: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    processes: u32,
    process: Option<Process>,
    /// The times in which a process stood still.
    stops: Vec<(Life, Moment, Moment)>,
}

struct Process {
    life: Life,
    child: Child,
    calls: mpsc::Sender<String>,
    pending: Pending,
}

/// The calls without a reply. None once the process has ended.
type Pending = Arc<Mutex<Option<HashMap<Number, oneshot::Sender<Told>>>>>;

/// A call that was sent to a process.
pub(super) struct Sent {
    pub(super) life: Life,
    pub(super) at: Moment,
    reply: oneshot::Receiver<Told>,
}

impl Peer {
    pub(super) fn new(index: usize, database: u16, settings: Settings) -> Self {
        Self {
            index,
            settings,
            proxy: Proxy::to(database),
            state: Mutex::default(),
            suffers: tokio::sync::Mutex::default(),
        }
    }

    /// The name by which the database knows the node's connections.
    pub(super) fn application(&self) -> String {
        format!("{}_{}", self.settings.schema, self.index)
    }

    /// Starts a process, another one if it cannot connect, and returns once it serves.
    pub(super) async fn start(&self, start: &Start) -> Result<(), String> {
        let started = async {
            while !self.try_start(start).await? {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        };
        let started = tokio::time::timeout(START_WITHIN, started).await;
        started.unwrap_or_else(|_| Err(format!("node {} does not start", self.index)))
    }

    async fn try_start(&self, start: &Start) -> Result<bool, String> {
        let life = {
            let mut state = self.state.lock();
            state.processes += 1;
            Life { node: self.index, number: state.processes - 1 }
        };
        let address =
            format!("{}&application_name={}", address(self.proxy.port), self.application());
        let settings = Settings { address, node: life.to_string(), ..self.settings.clone() };
        let spawned = spawn(life, start, &settings);
        let (process, ready) = spawned.map_err(|error| format!("cannot start a node: {error}"))?;
        if ready.await.is_err() {
            process.end();
            return Ok(false);
        }
        self.state.lock().process = Some(process);
        Ok(true)
    }

    /// Sends a call to the node's process, or to this one of its processes. None if it has ended.
    pub(super) fn send(&self, number: Number, ask: &Ask, life: Option<Life>) -> Option<Sent> {
        let state = self.state.lock();
        let process = state.process.as_ref()?;
        if life.is_some_and(|life| life != process.life) {
            return None;
        }
        let call = Call { number, ask: ask.clone() };
        let line = serde_json::to_string(&call).expect("a call is plain data");
        let (send, reply) = oneshot::channel();
        process.pending.lock().as_mut()?.insert(number, send);
        let at = now();
        process.calls.send(line).ok()?;
        Some(Sent { life: process.life, at, reply })
    }

    /// The failure that the process has ended by itself.
    pub(super) fn ended(&self) -> String {
        let mut state = self.state.lock();
        let status = state.process.as_mut().map(|process| process.child.wait());
        format!("node {} has ended by itself: {status:?}", self.index)
    }

    pub(super) fn kill(&self) {
        let process = self.state.lock().process.take();
        if let Some(process) = process {
            process.end();
        }
    }

    /// Stops the process for a while.
    pub(super) async fn stop(&self, lasts: Duration) {
        let Some((life, pid)) = self.signal(None, Signal::STOP) else { return };
        let from = now();
        tokio::time::sleep(lasts).await;
        self.signal(Some(pid), Signal::CONT);
        self.state.lock().stops.push((life, from, now()));
    }

    fn signal(&self, expected: Option<Pid>, signal: Signal) -> Option<(Life, Pid)> {
        let state = self.state.lock();
        let process = state.process.as_ref()?;
        let pid = Pid::from_child(&process.child);
        if expected.is_some_and(|expected| expected != pid) {
            return None;
        }
        kill_process(pid, signal).ok()?;
        Some((process.life, pid))
    }

    /// The times in which processes of the node stood still.
    pub(super) fn stops(&self) -> Vec<(Life, Moment, Moment)> {
        self.state.lock().stops.clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Sent {
    /// Waits for the reply. None if the process has ended before.
    ///
    /// # Errors
    ///
    /// If the process hangs.
    pub(super) async fn reply(self) -> Result<Option<Told>, String> {
        match tokio::time::timeout(REPLY_WITHIN, self.reply).await {
            Ok(told) => Ok(told.ok()),
            Err(_) => Err(format!("{} does not answer", self.life)),
        }
    }
}

impl Process {
    fn end(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    life: Life,
    start: &Start,
    settings: &Settings,
) -> io::Result<(Process, oneshot::Receiver<()>)> {
    let mut command: Command = start();
    command.envs(settings.environment()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let input = child.stdin.take().expect("it was piped");
    let output = child.stdout.take().expect("it was piped");
    let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
    let (calls, lines) = mpsc::channel();
    let (served, ready) = oneshot::channel();
    let known = Arc::clone(&pending);
    let writer = thread::Builder::new().name(format!("{life} calls"));
    writer.spawn(move || write(input, &lines))?;
    let reader = thread::Builder::new().name(format!("{life} replies"));
    reader.spawn(move || {
        read(output, served, &known);
        known.lock().take();
    })?;
    Ok((Process { life, child, calls, pending }, ready))
}

/// Writes calls from a thread of its own, because a process that is stopped reads none.
fn write(mut input: ChildStdin, lines: &mpsc::Receiver<String>) {
    while let Ok(line) = lines.recv() {
        if input.write_all(format!("{line}\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn read(output: ChildStdout, served: oneshot::Sender<()>, pending: &Pending) {
    let mut served = Some(served);
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        let at = now();
        if line == READY {
            served.take().map(|served| served.send(()));
            continue;
        }
        // A line that a kill has cut short.
        let Ok(reply) = serde_json::from_str::<Reply>(&line) else { return };
        let told = Told { at, took_ms: reply.took_ms, answer: reply.answer };
        let waiting = pending.lock().as_mut().and_then(|pending| pending.remove(&reply.number));
        if let Some(waiting) = waiting {
            // A call that hangs is not waited for.
            let _ = waiting.send(told);
        }
    }
}
