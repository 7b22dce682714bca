//! The thread behind the writer: it prepares logs, seals frozen ones, and drops expired segments.
//!
//! ```text
//!  writer ──frozen log──► settler ──► messages ──► reaper: prepare, rotate, seal, drop, free
//!                                                    │
//!                                                    └──rotate──► writer
//! ```
//!
//! Invariants:
//! - It starts with the store and stops with it.
//! - Work that fails for a transient reason, such as a full disk, is tried again at the next round,
//!   and nothing is lost in between. A fatal failure stops the store.
//! - Nothing here blocks the writer: long work is done in pieces, with pauses.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::commit::Queue;
use crate::engine::core::{Engine, Message, Waiting};
use crate::engine::ledger::{Frozen, Retired, reap_interval};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::observe::{self, Stopwatch};
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Receiver, RecvTimeoutError};

mod purge;

/// The pause between two transactions of sealing, and between two pieces of a file that is dropped,
/// so that the commits beside them are not delayed.
const PAUSE: Duration = Duration::from_millis(2);

/// The time between two looks for space while no log can be prepared.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(1);

/// The time to wait for the writer before checking that it is alive.
const PATIENCE: Duration = Duration::from_millis(100);

/// The state of the thread.
pub(crate) struct Reaper {
    pub(crate) engine: Arc<Engine>,
    pub(crate) queue: Queue,
    pub(crate) messages: Receiver<Message>,
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) retired: Vec<Retired>,
    /// Callers that wait for a whole round.
    pub(crate) waiting: Vec<Waiting>,
    /// Callers that wait for a purge.
    pub(crate) purges: Vec<Waiting>,
}

impl Reaper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub(crate) fn start(self) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("refrain-reaper".into()).spawn(move || self.run())
    }

    /// Runs a round after each message, and at each interval, until the store is closed.
    fn run(mut self) {
        let _guard = self.engine.guard("reaper");
        let interval = reap_interval(self.engine.ledger.settings.ttl);
        while !self.engine.is_closing() {
            let waiting = std::mem::take(&mut self.waiting);
            let outcome = self.round();
            waiting.into_iter().for_each(|waiting| waiting.answer(outcome.clone()));
            self.purge_if_asked();
            // A round may have received `Message::Stop`, which is not sent twice.
            let is_asked = !self.waiting.is_empty() || !self.purges.is_empty();
            if is_asked || self.engine.is_closing() {
                continue;
            }
            if !self.wait(interval) {
                break;
            }
        }
    }

    /// Waits for a message or for the time of the next round, and returns whether there is another round.
    /// Meanwhile it looks for space once a second if there was none for a log: new keys are refused until
    /// there is.
    fn wait(&mut self, interval: Duration) -> bool {
        let mut left = interval;
        while !left.is_zero() {
            let step = LOOK_FOR_SPACE.min(left);
            match self.messages.recv_timeout(step) {
                Ok(message) => {
                    self.note(message);
                    return true;
                }
                Err(RecvTimeoutError::Timeout) => left -= step,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            self.engine.watch();
            // A caller may have found none since the wait began.
            if self.engine.ledger.space.is_in_trouble() && self.has_found_space() {
                return true;
            }
        }
        true
    }

    /// Tries to prepare a log, and returns whether a round should follow.
    fn has_found_space(&mut self) -> bool {
        match self.prepare() {
            Ok(()) => true,
            Err(Trouble::Transient(_)) => false,
            Err(Trouble::Fatal(error)) => {
                self.engine.fail(error);
                true
            }
        }
    }

    /// Takes in a message.
    fn note(&mut self, message: Message) {
        match message {
            Message::Frozen(frozen) => self.frozen.push(frozen),
            Message::Reap(done) => self.waiting.push(done),
            Message::Purge(done) => self.purges.push(done),
            // The loop sees for itself that the store is closing.
            Message::Rotated | Message::Stop => {}
        }
    }

    /// Does all that is due. A transient error is returned and kept for the statistics; a fatal one
    /// stops the store.
    fn round(&mut self) -> Result<()> {
        // A store that nobody asks for anything notices too. While it is away, its work goes on.
        let _ = self.engine.look_for_itself();
        if self.engine.has_failed() {
            return Err(self.engine.stopped());
        }
        let took = Stopwatch::start();
        let outcome = self.work();
        observe::swept(took);
        let outcome = self.judge(outcome);
        self.engine.show();
        self.engine.watch();
        outcome
    }

    /// Keeps the trouble of a round for the statistics, and stops the store if it is fatal.
    fn judge(&self, outcome: Result<(), Trouble>) -> Result<()> {
        if let Err(trouble) = outcome {
            let fatal = trouble.is_fatal();
            let error = trouble.into_error();
            if self.engine.is_closing() && matches!(error, Error::Stopped { .. }) {
                return Err(error);
            }
            self.engine.note_trouble(Some(error.clone()));
            if fatal {
                self.engine.fail(error);
                return Err(self.engine.stopped());
            }
            return Err(error);
        }
        self.engine.note_trouble(None);
        Ok(())
    }

    /// Does all steps, even after one has failed: on a full disk, dropping expired files is what
    /// frees space.
    fn work(&mut self) -> Result<(), Trouble> {
        self.engine.ledger.measure_disk();
        let prepared = self.prepare();
        let rotated = self.rotate_if_old();
        let sealed = self.seal();
        let ledger = &self.engine.ledger;
        ledger.expire_claims();
        let expired = drop_expired(&self.engine, &mut self.retired);
        let merged = self.merge();
        let ledger = &self.engine.ledger;
        let engine = Arc::clone(&self.engine);
        let freed = ledger.free(&mut self.retired, || pause(&engine)).map_err(Trouble::Transient);
        let prepared = match prepared {
            Err(Trouble::Transient(_)) => self.prepare(),
            prepared => prepared,
        };
        worst([prepared, rotated, sealed, expired, merged, freed])
    }

    /// Prepares a next log, if there is none.
    fn prepare(&mut self) -> Result<(), Trouble> {
        self.engine.ledger.prepare(&mut self.retired)
    }

    /// Rotates if the first entry of the active log is old enough, or if nothing was written for
    /// long. Idle stores rotate too, so that their records expire with their file, and the latest
    /// batch on disk tells the time. So does a store whose opening had no room to carry its claims.
    ///
    /// # Errors
    ///
    /// A transient one if the store stops meanwhile.
    fn rotate_if_old(&mut self) -> Result<(), Trouble> {
        let ledger = &self.engine.ledger;
        let active = Arc::clone(&ledger.snapshot().logs[0]);
        let age = active.first_at().map(|at| ledger.timeline.now().since(at));
        let old = age.is_some_and(|age| age >= ledger.settings.rotation_age())
            || ledger.timeline.unwritten() >= ledger.settings.anchor_age();
        drop(active);
        let is_due = ledger.holds_claims() || (old && ledger.may_freeze_early());
        if is_due && ledger.space.has_next() { self.rotate() } else { Ok(()) }
    }

    /// Has the writer make the prepared log the active one, if there is one, and prepares the next.
    ///
    /// # Errors
    ///
    /// A transient one if the store stops meanwhile.
    fn rotate(&mut self) -> Result<(), Trouble> {
        self.queue.rotate();
        loop {
            match self.messages.recv_timeout(PATIENCE) {
                Ok(Message::Rotated) => return self.prepare(),
                // The writer may be gone, and then no answer comes.
                Err(RecvTimeoutError::Timeout) if !self.engine.has_failed() => {}
                Ok(message) if !self.engine.is_closing() => self.note(message),
                _ => return Err(Trouble::Transient(self.engine.stopped())),
            }
        }
    }

    /// Seals frozen logs until none is due.
    fn seal(&mut self) -> Result<(), Trouble> {
        loop {
            let engine = Arc::clone(&self.engine);
            let (frozen, retired) = (&self.frozen, &mut self.retired);
            let sealed = engine.ledger.seal(frozen, || pace_of_sealing(&engine, retired))?;
            if sealed == 0 {
                return Ok(());
            }
            self.note_sealed(sealed)?;
        }
    }

    /// Retires the oldest frozen logs, which are sealed.
    fn note_sealed(&mut self, sealed: usize) -> Result<(), Trouble> {
        self.engine.counters.segments_sealed.fetch_add(1, Ordering::Relaxed);
        observe::sealed(sealed);
        let done = self.frozen.drain(..sealed);
        self.retired.extend(self.engine.ledger.retire(done));
        self.prepare()
    }

    /// Merges segments until none are due. Logs are prepared and sealed meanwhile: a merge that gave
    /// way to them would never end under a steady load.
    fn merge(&mut self) -> Result<(), Trouble> {
        let engine = Arc::clone(&self.engine);
        loop {
            let mut old = Vec::new();
            let merged = engine.ledger.merge(&mut old, || self.keep_up());
            self.retired.append(&mut old);
            match merged {
                Ok(0) => return Ok(()),
                Ok(merged) => {
                    let counter = &engine.counters.segments_merged;
                    counter.fetch_add(merged as u64, Ordering::Relaxed);
                }
                // The store is closing.
                Err(Trouble::Transient(Error::Stopped { .. })) => return Ok(()),
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Does what cannot wait for the end of a segment: new keys depend on logs that are prepared
    /// and sealed. A transient error is met again, and reported, in the next round.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] once the store is closing or has failed.
    fn keep_up(&mut self) -> Result<()> {
        while let Ok(message) = self.messages.try_recv() {
            self.note(message);
        }
        let engine = Arc::clone(&self.engine);
        let is_behind = engine.ledger.backlog() > 1;
        let sealed = if is_behind { self.seal() } else { Ok(()) };
        let has_failed = sealed.is_err();
        if let Err(Trouble::Fatal(error)) = worst([self.prepare(), sealed]) {
            engine.fail(error);
        }
        engine.ledger.free(&mut self.retired, || keep_going(&engine))?;
        if is_behind && !has_failed { keep_going(&engine) } else { pause(&engine) }
    }
}

/// Drops what has expired.
fn drop_expired(engine: &Engine, retired: &mut Vec<Retired>) -> Result<(), Trouble> {
    let dropped = engine.ledger.drop_expired(retired)?;
    engine.counters.segments_dropped.fetch_add(dropped as u64, Ordering::Relaxed);
    Ok(())
}

/// Lets the commits go on while a log is sealed.
///
/// # Errors
///
/// [`Error::Stopped`] once the store is closing or has failed.
fn pace_of_sealing(engine: &Engine, retired: &mut Vec<Retired>) -> Result<()> {
    // Sealing a full log may take longer than filling the next one.
    if let Err(Trouble::Fatal(error)) = engine.ledger.prepare(retired) {
        engine.fail(error);
    }
    if engine.ledger.backlog() > 1 { keep_going(engine) } else { pause(engine) }
}

/// Returns the first fatal outcome, or else the first transient one.
fn worst<const N: usize>(outcomes: [Result<(), Trouble>; N]) -> Result<(), Trouble> {
    let mut worst = Ok(());
    for outcome in outcomes {
        match outcome {
            Err(trouble) if trouble.is_fatal() => return Err(trouble),
            outcome => worst = worst.and(outcome),
        }
    }
    worst
}

/// Checks that long work may go on.
///
/// # Errors
///
/// [`Error::Stopped`] once the store is closing or has failed.
fn keep_going(engine: &Engine) -> Result<()> {
    if engine.is_closing() || engine.has_failed() { Err(engine.stopped()) } else { Ok(()) }
}

/// Waits for [`PAUSE`], so that commits are not delayed.
///
/// # Errors
///
/// [`Error::Stopped`] once the store is closing or has failed.
fn pause(engine: &Engine) -> Result<()> {
    thread::park_timeout(PAUSE);
    keep_going(engine)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;

    use super::*;
    use crate::clock::SimulatedClock;
    use crate::engine::commit::Command;
    use crate::engine::disk::{Disk, MemoryDisk};
    use crate::engine::ledger::{Opened, Settings, open};
    use crate::sync::{Sender, unbounded};
    use crate::table::{Limits, Table};
    use crate::{Fingerprint, Operation, Outcome, Scope, Store};

    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// A store that starts to close while everything is due. It has no writer: the test holds the
    /// receiver of its commands.
    struct Closing {
        disk: Arc<MemoryDisk>,
        reaper: Reaper,
        to_reaper: Sender<Message>,
        _writer: Receiver<Command>,
    }

    impl Closing {
        fn new() -> Self {
            let (disk, clock) = (Arc::new(MemoryDisk::default()), SimulatedClock::new());
            let store = Store::builder().clock(clock.clone());
            let store = store.open_on(Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
            for name in ["frozen", "active"] {
                let fingerprint = Fingerprint::of([name]);
                let operation = Operation::new(Scope::new("s"), name.parse().unwrap(), fingerprint);
                let Ok(Outcome::Execute(permit)) = store.begin(&operation).wait() else {
                    panic!("{name} is new")
                };
                permit.complete(&Response::new(Bytes::new())).wait().unwrap();
            }
            store.close(HOUR).wait().unwrap();
            clock.advance(2 * HOUR);
            let settings = Settings {
                clock: Arc::new(clock),
                ttl: 24 * HOUR,
                log_bytes: 256 * 1024,
                first_log_bytes: 256 * 1024,
                max_open_claims: 16,
                max_open_claims_per_scope: 16,
                trusted_downtime: HOUR,
                zero_recycled: false,
            };
            let opened = open(Arc::clone(&disk) as Arc<dyn Disk>, settings).unwrap();
            let Opened { ledger, frozen, mut retired, .. } = opened;
            ledger.prepare(&mut retired).unwrap();
            let limits = Limits { in_flight: 16, per_scope: 16, waiters: 16 };
            let engine = Arc::new(Engine::new(ledger, Table::new(limits)));
            engine.start_closing();
            let (to_writer, writer) = unbounded();
            let (to_reaper, messages) = unbounded();
            let (queue, waiting, purges) = (Queue(to_writer), Vec::new(), Vec::new());
            let reaper = Reaper { engine, queue, messages, frozen, retired, waiting, purges };
            Self { disk, reaper, to_reaper, _writer: writer }
        }
    }

    fn is_stopped(outcome: &Result<(), Trouble>) -> bool {
        matches!(outcome, Err(Trouble::Transient(Error::Stopped { .. })))
    }

    #[test]
    fn a_store_that_closes_waits_for_no_rotation() {
        let mut closing = Closing::new();
        for message in [Message::Stop, Message::Rotated] {
            closing.to_reaper.send(message).unwrap();
        }
        assert!(is_stopped(&closing.reaper.rotate_if_old()));
        assert!(!closing.reaper.messages.is_empty(), "it was waited for");
    }

    #[test]
    fn a_store_that_closes_seals_nothing_more() {
        let mut closing = Closing::new();
        assert_eq!(closing.reaper.frozen.len(), 1);
        assert!(is_stopped(&closing.reaper.seal()));
        assert_eq!(closing.reaper.frozen.len(), 1);
        let names = closing.disk.names().unwrap();
        assert!(names.iter().all(|name| !name.contains("redb")), "{names:?}");
    }
}
