//! The thread that commits: it drains the queue into a batch, and makes the batch durable.
//!
//! ```text
//!  callers ──Pending──► queue ──► writer: one batch, one write, one fdatasync
//!                                   │ small batch            │ large batch
//!                                   ▼                        ▼
//!                               settle here           settler thread, in order,
//!                                                     while the next batch is written
//! ```
//!
//! Invariants:
//! - One batch is in flight at a time.
//! - The writer waits for new commands and for the disk, and for nothing else: not for sealing.
//! - After a failed write or sync it writes nothing more.
//! - While the store's path leads elsewhere nothing is acknowledged. The verdict of what has run is
//!   parked until the path leads back, and written at the latest when the store ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::commit::{Command, Committed, Pending, Queue};
use crate::engine::core::{Engine, Message};
use crate::engine::log::{BatchBuilder, Frame, Tail};
use crate::engine::settler::{Settlement, Settler};
use crate::engine::trouble::Trouble;
use crate::error::Error;
use crate::observe::{self, Stopwatch};
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Receiver, RecvTimeoutError, Sender, unbounded};

/// The most entries of a batch.
const MAX_BATCH_ENTRIES: usize = 256;
/// The most bytes of a batch, unless an eighth of a log is less. A larger entry is a batch of its
/// own.
const MAX_BATCH_BYTES: u64 = 1024 * 1024;

/// The fraction of the active log in which the writer prepares the next one, unless it is there.
const NEARLY_FULL: u64 = 4;

/// The time after which the writer looks for the store at its path again, while verdicts are parked.
const PARKED_RETRY: Duration = Duration::from_millis(200);

/// Starts the writer and its settler, and returns the queue of the writer.
///
/// # Errors
///
/// Those of the operating system, if a thread cannot be started.
pub(crate) fn start(
    engine: &Arc<Engine>,
    tail: Tail,
    reaper: Sender<Message>,
) -> std::io::Result<(Queue, JoinHandle<()>)> {
    let (sender, receiver) = unbounded();
    let queue = Queue(sender);
    let settler = Settler::start(Arc::clone(engine), reaper)?;
    let writer = Writer {
        engine: Arc::clone(engine),
        receiver,
        tail,
        settler,
        batch: BatchBuilder::new(),
        pending: Vec::with_capacity(MAX_BATCH_ENTRIES),
        overflow: None,
        parked: VecDeque::new(),
        is_ending: false,
    };
    let thread =
        thread::Builder::new().name("refrain-writer".into()).spawn(move || writer.run())?;
    Ok((queue, thread))
}

/// The state of the writer's thread, which alone appends to logs.
///
/// At most one batch is in flight: the next one is not written before the fdatasync of this one has
/// succeeded.
struct Writer {
    engine: Arc<Engine>,
    receiver: Receiver<Command>,
    tail: Tail,
    settler: Settler,
    batch: BatchBuilder,
    /// The entries of the batch at hand, boxed as they came through the queue.
    #[expect(clippy::vec_box, reason = "unboxing would copy each")]
    pending: Vec<Box<Pending>>,
    /// An entry from the queue that did not fit the batch at hand: the first of the next.
    overflow: Option<Box<Pending>>,
    /// Verdicts that were refused because the store was not at its path. Each is of a key in flight,
    /// and those are bounded.
    parked: VecDeque<Box<Pending>>,
    /// Set once nothing is left but what is parked.
    is_ending: bool,
}

/// The next step after the batch at hand.
enum Next {
    GoOn,
    Rotate,
    Stop,
}

impl Writer {
    /// Commits batch after batch, until it is told to stop and the queue is empty.
    fn run(mut self) {
        let _guard = self.engine.guard("writer");
        let mut stopping = false;
        while !stopping || !self.receiver.is_empty() || self.overflow.is_some() {
            let next = self.collect();
            self.commit();
            match next {
                Next::GoOn => {}
                Next::Rotate => {
                    // The reaper asks again.
                    if let Err(Trouble::Fatal(error)) = self.rotate(0) {
                        self.engine.fail(error);
                    }
                    self.settler.take(Settlement::Rotated);
                }
                Next::Stop => {
                    stopping = true;
                    self.settler.stop();
                }
            }
        }
        self.is_ending = true;
        while !self.parked.is_empty() {
            self.take_parked(&mut 0);
            self.commit();
        }
    }

    /// Waits for a command, and collects as many queued entries as fit a batch.
    fn collect(&mut self) -> Next {
        let max_bytes = self.max_batch_bytes();
        let mut bytes = 0;
        if let Some(pending) = self.overflow.take() {
            bytes = pending.encoded.bytes.len() as u64;
            self.pending.push(pending);
        }
        self.take_parked(&mut bytes);
        while self.pending.len() < MAX_BATCH_ENTRIES {
            let command = match self.receiver.try_recv() {
                Ok(command) => command,
                // Entries that arrive while this batch is written form the next one.
                Err(_) if !self.pending.is_empty() => break,
                Err(_) => match self.wait() {
                    Some(command) => command,
                    None => return Next::GoOn,
                },
            };
            match command {
                Command::Commit(pending) => {
                    bytes += pending.encoded.bytes.len() as u64;
                    if bytes > max_bytes && !self.pending.is_empty() {
                        self.overflow = Some(pending);
                        break;
                    }
                    self.pending.push(pending);
                }
                Command::Rotate => return Next::Rotate,
                Command::Stop => return Next::Stop,
            }
        }
        Next::GoOn
    }

    /// Waits for a command; `None` if it is time to look for the store at its path.
    fn wait(&self) -> Option<Command> {
        if self.parked.is_empty() {
            return Some(self.receiver.recv().unwrap_or(Command::Stop));
        }
        match self.receiver.recv_timeout(PARKED_RETRY) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Command::Stop),
        }
    }

    /// Returns the most bytes of the entries of a batch, unless it has only one.
    fn max_batch_bytes(&self) -> u64 {
        MAX_BATCH_BYTES.min(self.engine.ledger.settings.log_bytes / 8)
    }

    /// Adds verdicts that are parked to the batch, which has so many bytes, if the store is back at
    /// its path, or ends.
    fn take_parked(&mut self, bytes: &mut u64) {
        if self.parked.is_empty() {
            return;
        }
        let is_away = matches!(self.engine.expect_back(), Err(Error::Foreign { .. }));
        if is_away && !self.is_ending {
            return;
        }
        let max_bytes = self.max_batch_bytes();
        while self.pending.len() < MAX_BATCH_ENTRIES {
            let more = self.parked.front().map(|parked| parked.encoded.bytes.len() as u64);
            let fits = more.is_some_and(|more| *bytes + more <= max_bytes);
            if !fits && !self.pending.is_empty() {
                return;
            }
            let Some(parked) = self.parked.pop_front() else { return };
            *bytes += parked.encoded.bytes.len() as u64;
            self.pending.push(parked);
        }
    }

    /// Answers those whose entries were not written, because the store is not at its path, and parks
    /// the verdicts.
    fn turn_away(&mut self, error: &Error) {
        self.engine.note_away(error);
        for mut entry in self.pending.drain(..) {
            if !self.is_ending && entry.answer_early(error) {
                self.parked.push_back(entry);
            } else {
                entry.refuse(&self.engine.ledger.claims, error);
            }
        }
    }

    /// Checks that the store is at its path. At the end it need not be: nobody waits for what is
    /// parked, and whoever finds the store where it is now finds that the operation has run.
    fn expect_ownership(&self) -> Result<(), Trouble> {
        match self.engine.ledger.expect_ownership(&self.tail.log) {
            Err(Trouble::Transient(_)) if self.is_ending => Ok(()),
            owned => owned,
        }
    }

    /// Makes the collected entries durable and hands them on to be settled. A failure stops the
    /// store, unless nothing was written.
    fn commit(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if !self.engine.has_failed() {
            match self.make_room().and_then(|()| self.append()) {
                Ok(committed) => return self.settler.take(Settlement::Batch(committed)),
                Err(Trouble::Transient(error)) => return self.turn_away(&error),
                Err(Trouble::Fatal(error)) => self.engine.fail(error),
            }
        }
        let stopped = self.engine.stopped();
        self.pending.drain(..).for_each(|pending| pending.fail(&stopped));
    }

    /// Rotates if the batch does not fit. Only where no next log can be prepared, as on a full disk,
    /// leaves out as many response bodies as it takes for the batch to fit.
    fn make_room(&mut self) -> Result<(), Trouble> {
        let entries =
            self.pending.iter().map(|pending| Frame::OVERHEAD + pending.encoded.bytes.len());
        let bytes = (BatchBuilder::OVERHEAD + entries.sum::<usize>()) as u64;
        // The reaper may be busy for longer than a log takes to fill.
        let is_nearly_full = self.tail.room() < self.tail.log.size / NEARLY_FULL;
        if is_nearly_full && self.engine.ledger.space.lacks_next() {
            self.prepare(0)?;
        }
        if bytes > self.tail.room() {
            self.prepare(bytes)?;
            self.rotate(bytes)?;
        }
        let (left, ledger) = (self.tail.room(), &self.engine.ledger);
        let own = self.pending.iter().map(|pending| pending.room.bytes()).sum();
        let fits = bytes <= left
            && (ledger.space.has_next()
                || ledger.space.take(left, own, |room| (bytes <= room).then_some(bytes))
                || self.prepare(0)?);
        if !fits {
            self.leave_bodies_out(bytes, own);
        }
        Ok(())
    }

    /// Leaves out as many response bodies as it takes for the batch of so many bytes to fit. `own`
    /// are the bytes that are reserved for the batch.
    fn leave_bodies_out(&mut self, mut bytes: u64, own: u64) {
        let Engine { ledger, counters, .. } = &*self.engine;
        let pending = &mut self.pending;
        ledger.space.take(self.tail.room(), own, |room| {
            for pending in pending.iter_mut().rev() {
                if bytes <= room {
                    break;
                }
                let left_out = pending.leave_body_out(&ledger.digests) as u64;
                bytes -= left_out;
                counters.bodies_left_out.fetch_add(u64::from(left_out > 0), Ordering::Relaxed);
            }
            Some(bytes)
        });
    }

    /// Prepares a next log with room for a batch of so many bytes, unless there is one, and returns
    /// whether there is a next log now. The reaper prepares it in general, ahead of time.
    fn prepare(&self, bytes: u64) -> Result<bool, Trouble> {
        let ledger = &self.engine.ledger;
        match ledger.prepare_at_once(bytes) {
            Err(Trouble::Fatal(error)) => Err(Trouble::Fatal(error)),
            // On a full disk it may be smaller.
            Ok(()) | Err(Trouble::Transient(_)) => Ok(ledger.space.has_next()),
        }
    }

    /// Makes the prepared log the active one, if there is one. `asked` are the bytes that did not fit
    /// the active log, or none if it is old.
    ///
    /// # Errors
    ///
    /// A fatal one if the store has stopped, or stops now.
    fn rotate(&mut self, asked: u64) -> Result<(), Trouble> {
        // Another thread may have failed since the batch was begun. No room is made then.
        if self.engine.has_failed() {
            return Err(Trouble::Fatal(self.engine.stopped()));
        }
        self.expect_ownership()?;
        let ledger = &self.engine.ledger;
        let frozen =
            ledger.rotate(&mut self.tail, &mut self.batch, asked).map_err(Trouble::Fatal)?;
        if let Some(frozen) = frozen {
            // In order, after the batches of that log that are still being settled.
            self.settler.take(Settlement::Frozen(frozen));
        }
        Ok(())
    }

    /// Appends the collected entries as one batch, and returns it once it is durable.
    fn append(&mut self) -> Result<Committed, Trouble> {
        self.expect_ownership()?;
        let ledger = &self.engine.ledger;
        self.batch.clear();
        let places: Vec<u64> =
            self.pending.iter().map(|pending| self.batch.push(&pending.encoded)).collect();
        let anchor = ledger.timeline.anchor();
        let took = Stopwatch::start();
        let offset = self.tail.append(&mut self.batch, anchor).map_err(Trouble::Fatal)?;
        observe::committed(places.len(), took);
        ledger.measure(&self.tail);
        let counters = &self.engine.counters;
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.entries.fetch_add(places.len() as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(self.tail.end - offset, Ordering::Relaxed);

        let items = self.pending.drain(..).zip(places).map(|(pending, place)| {
            let location = pending.location(offset + place, anchor.at);
            (pending, location)
        });
        let mut committed =
            Committed { log: Arc::clone(&self.tail.log), at: anchor.at, items: items.collect() };
        // Before settling, so that a rotation carries every durable claim.
        committed.update_claims(&self.engine, self.tail.sequence);
        Ok(committed)
    }
}
