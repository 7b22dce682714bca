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
//!   written all the same, wherever the store is then.

use std::sync::Arc;

use crate::engine::commit::{Command, Committed, Pending, Queue};
use crate::engine::core::{Engine, Message};
use crate::engine::log::{BatchBuilder, Frame, Tail};
use crate::engine::settler::{Settlement, Settler};
use crate::engine::trouble::Trouble;
use crate::error::{Error, Result};
use crate::observe::{self, Stopwatch};
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Receiver, Sender, unbounded};

/// The most entries of a batch.
const MAX_BATCH_ENTRIES: usize = 256;
/// The most bytes of a batch, unless an eighth of a log is less. A larger entry is a batch of its
/// own.
const MAX_BATCH_BYTES: u64 = 1024 * 1024;

/// The fraction of the active log in which the writer prepares the next one, unless it is there.
const NEARLY_FULL: u64 = 4;

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
        is_away: false,
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
    /// Set while a batch is written of which nothing is acknowledged.
    is_away: bool,
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
    }

    /// Waits for a command, and collects as many queued entries as fit a batch.
    fn collect(&mut self) -> Next {
        let max_bytes = MAX_BATCH_BYTES.min(self.engine.ledger.settings.log_bytes / 8);
        let mut bytes = 0;
        if let Some(pending) = self.overflow.take() {
            bytes = pending.encoded.bytes.len() as u64;
            self.pending.push(pending);
        }
        while self.pending.len() < MAX_BATCH_ENTRIES {
            let command = match self.receiver.try_recv() {
                Ok(command) => command,
                // Entries that arrive while this batch is written form the next one.
                Err(_) if !self.pending.is_empty() => break,
                Err(_) => match self.receiver.recv() {
                    Ok(command) => command,
                    Err(_) => return Next::Stop,
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

    /// Makes the collected entries durable and hands them on to be settled. A failure stops the
    /// store, unless nothing was written.
    fn commit(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut outcome = self.write();
        if let Err(Trouble::Transient(error)) = &outcome {
            self.turn_away(error);
            self.is_away = true;
            outcome = self.write();
            self.is_away = false;
        }
        if let Err(trouble) = outcome {
            self.engine.fail(trouble.into_error());
            let stopped = self.engine.stopped();
            self.pending.drain(..).for_each(|pending| pending.fail(&stopped));
        }
    }

    /// Writes the collected entries, if there are any, and hands them on to be settled.
    ///
    /// # Errors
    ///
    /// A transient one, after which nothing was written, if the store is not at its path.
    fn write(&mut self) -> Result<(), Trouble> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.engine.has_failed() {
            return Err(Trouble::Fatal(self.engine.stopped()));
        }
        self.make_room()?;
        let committed = self.append()?;
        self.settler.take(Settlement::Batch(committed));
        Ok(())
    }

    /// Refuses the batch because the store is not at its path. What is left of it are the verdicts of
    /// what has run, which are denied: a retry must find them once the path leads back.
    fn turn_away(&mut self, error: &Error) {
        self.engine.note_away(error);
        let claims = &self.engine.ledger.claims;
        for mut pending in std::mem::take(&mut self.pending) {
            if pending.deny(error) {
                self.pending.push(pending);
            } else {
                pending.refuse(claims, error);
            }
        }
    }

    /// Checks that the store is at its path, unless nothing of the batch is acknowledged.
    fn expect_ownership(&self) -> Result<(), Trouble> {
        match self.engine.ledger.expect_ownership(&self.tail.log) {
            Err(Trouble::Transient(_)) if self.is_away => Ok(()),
            owned => owned,
        }
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
                if left_out > 0 {
                    counters.bodies_left_out.fetch_add(1, Ordering::Relaxed);
                    observe::left_out(1);
                }
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
        observe::committed(places.len(), self.tail.end - offset, took);
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
