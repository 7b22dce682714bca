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
//! - The writer waits for new commands and for the disk, and for nothing else: not for sealing. It
//!   waits for a log to grow only if no next log takes the batch.
//! - After a failed write or sync it writes nothing more.

use std::sync::Arc;

use crate::engine::commit::{Command, Committed, Pending, Queue};
use crate::engine::core::{Engine, Message};
use crate::engine::log::{BatchBuilder, Frame, PAGE, Tail};
use crate::engine::settler::{Settlement, Settler};
use crate::engine::trouble::Trouble;
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
    let settler = Settler::start(Arc::clone(engine), reaper.clone())?;
    let writer = Writer {
        engine: Arc::clone(engine),
        receiver,
        tail,
        settler,
        reaper,
        grow_at: engine.ledger.small() / 2,
        batch: BatchBuilder::new(),
        pending: Vec::with_capacity(MAX_BATCH_ENTRIES),
        overflow: None,
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
    reaper: Sender<Message>,
    /// The reaper is to look at the sizes of the logs once the active one has this many bytes.
    grow_at: u64,
    batch: BatchBuilder,
    /// The entries of the batch at hand, boxed as they came through the queue.
    #[expect(clippy::vec_box, reason = "unboxing would copy each")]
    pending: Vec<Box<Pending>>,
    /// An entry from the queue that did not fit the batch at hand: the first of the next.
    overflow: Option<Box<Pending>>,
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
                    if let Err(Trouble::Fatal(error)) = self.rotate() {
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
        if !self.engine.has_failed() {
            match self.make_room().and_then(|()| self.append()) {
                Ok(committed) => return self.settler.take(Settlement::Batch(committed)),
                Err(Trouble::Transient(error)) => {
                    self.engine.note_away(&error);
                    let claims = &self.engine.ledger.claims;
                    return self.pending.drain(..).for_each(|entry| entry.refuse(claims, &error));
                }
                Err(Trouble::Fatal(error)) => self.engine.fail(error),
            }
        }
        let stopped = self.engine.stopped();
        self.pending.drain(..).for_each(|pending| pending.fail(&stopped));
    }

    /// Rotates, or lets the active log grow, if the batch does not fit. Only where neither can be, and
    /// no next log can be prepared, as on a full disk, leaves out as many response bodies as it takes
    /// for the batch to fit.
    fn make_room(&mut self) -> Result<(), Trouble> {
        let entries =
            self.pending.iter().map(|pending| Frame::OVERHEAD + pending.encoded.bytes.len());
        let bytes = (BatchBuilder::OVERHEAD + entries.sum::<usize>()) as u64;
        let own = self.pending.iter().map(|pending| pending.room.bytes()).sum();
        // The reaper may be busy for longer than a log takes to fill.
        let is_nearly_full = self.tail.room() < self.tail.log.size() / NEARLY_FULL;
        if is_nearly_full && self.engine.ledger.space.lacks_next() {
            self.prepare()?;
        }
        if self.is_short_of(bytes, own) {
            self.find_room(bytes, own)?;
        }
        let (tail, space) = (&self.tail, &self.engine.ledger.space);
        let is_free = |room: u64| (bytes <= room.min(tail.room())).then_some(bytes);
        let fits = bytes <= tail.room()
            && (space.is_in_next() || space.take(|| tail.reach(), own, is_free));
        if !fits {
            self.leave_bodies_out(bytes, own);
        }
        Ok(())
    }

    /// Returns true if a batch of `bytes`, with `own` bytes reserved for it, does not fit the
    /// active log beside the reservations of others.
    fn is_short_of(&self, bytes: u64, own: u64) -> bool {
        let others = self.engine.ledger.space.kept_for_others(own);
        bytes.next_multiple_of(PAGE) + others > self.tail.room()
    }

    /// Finds room for a batch that does not fit: where the active log has grown, in the next log,
    /// by letting the active log grow now, or in a next log that is prepared now.
    fn find_room(&mut self, bytes: u64, own: u64) -> Result<(), Trouble> {
        self.extend()?;
        if self.is_short_of(bytes, own) && self.engine.ledger.space.fits_next(bytes, own) {
            self.rotate()?;
        }
        if self.is_short_of(bytes, own) {
            self.grow(bytes, own)?;
        }
        if self.is_short_of(bytes, own) && self.prepare()? && bytes > self.tail.room() {
            self.rotate()?;
            if self.is_short_of(bytes, own) {
                self.grow(bytes, own)?;
            }
            if self.is_short_of(bytes, own) {
                self.prepare()?;
            }
        }
        Ok(())
    }

    /// Leaves out as many response bodies as it takes for the batch of so many bytes to fit. `own`
    /// are the bytes that are reserved for the batch.
    fn leave_bodies_out(&mut self, mut bytes: u64, own: u64) {
        let Engine { ledger, counters, .. } = &*self.engine;
        let (pending, tail) = (&mut self.pending, &self.tail);
        let fit = |room: u64| {
            let room = room.min(tail.room());
            for pending in pending.iter_mut().rev() {
                if bytes <= room {
                    break;
                }
                let left_out = pending.leave_body_out(&ledger.digests) as u64;
                bytes -= left_out;
                counters.bodies_left_out.fetch_add(u64::from(left_out > 0), Ordering::Relaxed);
            }
            Some(bytes)
        };
        ledger.space.take(|| tail.reach(), own, fit);
    }

    /// Prepares a next log, unless there is one, and returns whether there is one now that takes all
    /// that is reserved. The reaper prepares it in general, ahead of time.
    fn prepare(&self) -> Result<bool, Trouble> {
        let ledger = &self.engine.ledger;
        match ledger.prepare_at_once() {
            Err(Trouble::Transient(_)) => Ok(false),
            prepared => prepared.map(|()| ledger.space.is_in_next()),
        }
    }

    /// Lets the active log grow by as much as a batch needs beside the reservations of others, if
    /// it can.
    fn grow(&mut self, bytes: u64, own: u64) -> Result<(), Trouble> {
        let ledger = &self.engine.ledger;
        let needed = bytes.next_multiple_of(PAGE) + ledger.space.kept_for_others(own);
        match ledger.grow_active(&self.tail, needed) {
            // A verdict has its room all the same, and bodies may be left out.
            Ok(()) | Err(Trouble::Transient(_)) => self.extend(),
            failed => failed,
        }
    }

    /// Makes use of what the active log has grown by.
    fn extend(&mut self) -> Result<(), Trouble> {
        if self.engine.has_failed() || !self.tail.is_grown() {
            return Ok(());
        }
        let ledger = &self.engine.ledger;
        ledger.expect_ownership(&self.tail.log)?;
        self.batch.clear();
        let anchor = ledger.timeline.anchor();
        self.tail.extend(&mut self.batch, anchor).map_err(Trouble::Fatal)?;
        ledger.measure(&self.tail);
        Ok(())
    }

    /// Makes the prepared log the active one, if there is one.
    fn rotate(&mut self) -> Result<(), Trouble> {
        if self.engine.has_failed() {
            return Ok(());
        }
        let ledger = &self.engine.ledger;
        ledger.expect_ownership(&self.tail.log)?;
        let frozen = ledger.rotate(&mut self.tail, &mut self.batch).map_err(Trouble::Fatal)?;
        if let Some(frozen) = frozen {
            self.grow_at = self.engine.ledger.small() / 2;
            // In order, after the batches of that log that are still being settled.
            self.settler.take(Settlement::Frozen(frozen));
        }
        Ok(())
    }

    /// Appends the collected entries as one batch, and returns it once it is durable.
    fn append(&mut self) -> Result<Committed, Trouble> {
        let ledger = &self.engine.ledger;
        ledger.expect_ownership(&self.tail.log)?;
        self.batch.clear();
        let places: Vec<u64> =
            self.pending.iter().map(|pending| self.batch.push(&pending.encoded)).collect();
        let anchor = ledger.timeline.anchor();
        let took = Stopwatch::start();
        let offset = self.tail.append(&mut self.batch, anchor).map_err(Trouble::Fatal)?;
        observe::committed(places.len(), took);
        ledger.measure(&self.tail);
        if self.tail.end >= self.grow_at {
            self.grow_at = (self.tail.end + 1).next_power_of_two();
            // If the reaper is gone, the store is closing.
            let _ = self.reaper.send(Message::Grow);
        }
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
