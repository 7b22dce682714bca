//! The thread that commits: it drains what is queued into a batch, and makes it durable.
//!
//! ```text
//!  callers ──Pending──► queue ──► writer: one batch, one write, one fdatasync
//!                                   │ small batch            │ large batch
//!                                   ▼                        ▼
//!                               settle here           settler thread, in order,
//!                                                     while the next batch is written
//! ```
//!
//! One batch is in flight at a time, and the writer blocks on nothing but the disk.

use std::sync::Arc;

use crate::engine::commit::{Command, Committed, Pending, Queue};
use crate::engine::core::{Engine, Message};
use crate::engine::log::{BatchBuilder, Frame, Tail};
use crate::engine::settler::{Settlement, Settler};
use crate::error::{Error, Result};
use crate::observe::{self, Stopwatch};
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Receiver, Sender, unbounded};

/// A batch holds at most this many entries,
const MAX_BATCH_ENTRIES: usize = 256;
/// and this many bytes, or an eighth of a log; one larger entry is a batch of its own.
const MAX_BATCH_BYTES: u64 = 1024 * 1024;

/// Starts the writer and its settler.
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
    };
    let thread =
        thread::Builder::new().name("refrain-writer".into()).spawn(move || writer.run())?;
    Ok((queue, thread))
}

struct Writer {
    engine: Arc<Engine>,
    receiver: Receiver<Command>,
    tail: Tail,
    settler: Settler,
    batch: BatchBuilder,
    /// Boxed as they came: a command is moved through the queue.
    #[expect(clippy::vec_box, reason = "unboxing would copy each")]
    pending: Vec<Box<Pending>>,
    /// Taken from the queue and too large for the batch at hand.
    overflow: Option<Box<Pending>>,
}

enum Next {
    GoOn,
    Rotate,
    Stop,
}

impl Writer {
    fn run(mut self) {
        let _guard = self.engine.guard("writer");
        let mut stopping = false;
        while !stopping || !self.receiver.is_empty() || self.overflow.is_some() {
            let next = self.collect();
            self.commit();
            match next {
                Next::GoOn => {}
                Next::Rotate => {
                    if let Err(error) = self.rotate() {
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

    /// Waits for a command, and takes what fits a batch with it.
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
                // Whoever comes while this batch is written has the next one.
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

    /// Makes what was collected durable and has it settled, or stops the store.
    fn commit(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if !self.engine.has_failed() {
            match self.make_room().and_then(|()| self.append()) {
                Ok(committed) => return self.settler.take(Settlement::Batch(committed)),
                Err(error) => self.engine.fail(error),
            }
        }
        let stopped = self.engine.stopped();
        self.pending.drain(..).for_each(|pending| pending.fail(&stopped));
    }

    /// Rotates if the batch does not fit, and leaves bodies out where there is no next log.
    fn make_room(&mut self) -> Result<()> {
        let entries = self.pending.iter().map(|pending| Frame::HEAD + pending.encoded.bytes.len());
        let mut bytes = (BatchBuilder::HEAD + entries.sum::<usize>()) as u64;
        if bytes > self.tail.room() {
            self.rotate()?;
        }
        let Engine { ledger, counters, .. } = &*self.engine;
        if bytes <= self.tail.room() && ledger.has_next() {
            return Ok(());
        }
        let own: u64 = self.pending.iter().map(|pending| pending.room.bytes()).sum();
        let pending = &mut self.pending;
        ledger.space.take(self.tail.room(), own, |room| {
            for pending in pending.iter_mut().rev() {
                if bytes <= room {
                    break;
                }
                let left_out = pending.leave_body_out() as u64;
                bytes -= left_out;
                counters.bodies_left_out.fetch_add(u64::from(left_out > 0), Ordering::Relaxed);
            }
            bytes
        });
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        if self.engine.has_failed() {
            return Ok(());
        }
        self.expect_ownership()?;
        if let Some(frozen) = self.engine.ledger.rotate(&mut self.tail, &mut self.batch)? {
            // Behind the batches that are still being settled in that log.
            self.settler.take(Settlement::Frozen(frozen));
        }
        Ok(())
    }

    /// Somebody may have moved the store away, and started another in its place.
    fn expect_ownership(&self) -> Result<()> {
        let Engine { ledger, .. } = &*self.engine;
        let log = &self.tail.log;
        match ledger.disk.still_owns(&log.name, &*log.file) {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Error::foreign(ledger.disk.path(), "it was moved or replaced while open"))
            }
            Err(error) => Err(Error::io("look up", ledger.disk.path(), error)),
        }
    }

    fn append(&mut self) -> Result<Committed> {
        self.expect_ownership()?;
        let ledger = &self.engine.ledger;
        self.batch.clear();
        let places: Vec<u64> =
            self.pending.iter().map(|pending| self.batch.push(&pending.encoded)).collect();
        let anchor = ledger.timeline.anchor();
        let took = Stopwatch::start();
        let offset = self.tail.append(&mut self.batch, anchor)?;
        observe::committed(places.len(), took);
        ledger.measure(&self.tail);
        let counters = &self.engine.counters;
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.entries.fetch_add(places.len() as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(self.batch.len(), Ordering::Relaxed);

        let items = self.pending.drain(..).zip(places).map(|(pending, place)| {
            let location = pending.location(offset + place, anchor.at);
            (pending, location)
        });
        let mut committed =
            Committed { log: Arc::clone(&self.tail.log), at: anchor.at, items: items.collect() };
        // Here and not when settling, so that a rotation finds all that is durable.
        committed.update_claims(&self.engine, self.tail.sequence);
        Ok(committed)
    }
}
