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
//! Settling publishes to the index first, then frees keys and wakes who waits: whoever finds a key
//! free finds its record. The queue needs no bound of its own, since each command in it belongs to
//! an operation in flight, and those are bounded. The writer blocks on nothing but the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::clock::Moment;
use crate::engine::Engine;
use crate::entry::{Encoded, Entry};
use crate::error::{Error, Result};
use crate::key::Address;
use crate::ledger::{OpenClaim, Reservation};
use crate::locks::Held;
use crate::log::{BatchBuilder, Change, Frame, Location, Log, Tail};
use crate::reaper::Message;
use crate::record::{Completion, Record};
use crate::ticket::Slot;

/// A batch holds at most this many entries,
const MAX_BATCH_ENTRIES: usize = 256;
/// and this many bytes; one larger entry is a batch of its own.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// How long a short queue is given to fill while other operations are in flight.
const GATHER: Duration = Duration::from_micros(50);
/// From this size on a batch is settled by the settler: waking costs as much as the fdatasync.
const SETTLER_ENTRIES: usize = 17;

/// The callers' end of the writer.
#[derive(Debug, Clone)]
pub(crate) struct Writer(Sender<Command>);

pub(crate) enum Command {
    Commit(Pending),
    /// Freeze the active log, if a next one is prepared; the reaper hears of it.
    Rotate,
    /// Commit what is queued, and end.
    Stop,
}

/// An entry on its way into the log, with what follows once it is durable.
pub(crate) struct Pending {
    encoded: Encoded,
    /// Nothing once it is settled.
    effect: Option<Effect>,
    /// Given back when the entry has its place, or never gets one.
    room: Reservation,
}

/// Where the outcome of a commit goes.
pub(crate) type Outcome<T> = Arc<Slot<Result<T>>>;

pub(crate) enum Effect {
    Complete { held: Held, completion: Completion, outcome: Outcome<Record> },
    Claim { held: Held, claim: OpenClaim, verdict_room: Reservation, outcome: Outcome<Claimed> },
    Release { held: Held, outcome: Outcome<()> },
    Checkpoint { address: Address, data: Bytes, outcome: Outcome<()> },
    Forget { held: Held, until: Moment, outcome: Outcome<()> },
}

/// A key whose claim is durable, with room for the verdict.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) held: Held,
    pub(crate) claim: OpenClaim,
    pub(crate) room: Reservation,
}

impl Writer {
    /// Starts the writer and its settler.
    pub(crate) fn start(
        engine: &Arc<Engine>,
        tail: Tail,
        reaper: Sender<Message>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = unbounded();
        let settler = Settler::start(Arc::clone(engine), Self(sender.clone()), reaper)?;
        let thread = WriterThread {
            engine: Arc::clone(engine),
            receiver,
            tail,
            settler,
            batch: BatchBuilder::new(),
            pending: Vec::with_capacity(MAX_BATCH_ENTRIES),
            overflow: None,
        };
        let handle =
            thread::Builder::new().name("refrain-writer".into()).spawn(move || thread.run())?;
        Ok((Self(sender), handle))
    }

    /// Queues an entry. If the writer is gone, its outcome says so.
    pub(crate) fn commit(&self, encoded: Encoded, room: Reservation, effect: Effect) {
        // Dropping what cannot be sent settles it.
        let pending = Pending { encoded, effect: Some(effect), room };
        let _ = self.0.send(Command::Commit(pending));
    }

    pub(crate) fn rotate(&self) {
        // If the writer is gone, the store is closing.
        let _ = self.0.send(Command::Rotate);
    }

    pub(crate) fn stop(&self) {
        let _ = self.0.send(Command::Stop);
    }

    /// Takes back a claim whose permit nobody took: nothing was run, so the key becomes free.
    pub(crate) fn release_unused(&self, claimed: Claimed) {
        let Claimed { held, room, .. } = claimed;
        let encoded = Encoded::new(Some(held.address()), &Entry::Release);
        self.commit(encoded, room, Effect::Release { held, outcome: Arc::new(Slot::new()) });
    }
}

struct WriterThread {
    engine: Arc<Engine>,
    receiver: Receiver<Command>,
    tail: Tail,
    settler: Settler,
    batch: BatchBuilder,
    pending: Vec<Pending>,
    /// Taken from the queue and too large for the batch at hand.
    overflow: Option<Pending>,
}

enum Next {
    GoOn,
    Rotate,
    Stop,
}

impl WriterThread {
    fn run(mut self) {
        let _guard = self.engine.guard("writer");
        let mut stopping = false;
        while !stopping || !self.receiver.is_empty() || self.overflow.is_some() {
            let next = self.collect();
            if let Err(error) = self.commit() {
                self.engine.fail(error);
            }
            match next {
                Next::GoOn => {}
                Next::Rotate => {
                    if let Err(error) = self.rotate() {
                        self.engine.fail(error);
                    }
                    self.settler.take(Settlement::Rotated, 0);
                }
                Next::Stop => stopping = true,
            }
        }
        self.settler.stop();
    }

    /// Waits for a command, and takes what fits a batch with it.
    fn collect(&mut self) -> Next {
        let mut bytes = 0;
        let mut gather_until = None;
        if let Some(pending) = self.overflow.take() {
            bytes = pending.encoded.bytes.len();
            self.pending.push(pending);
        }
        while self.pending.len() < MAX_BATCH_ENTRIES {
            let command = match self.receiver.try_recv() {
                Ok(command) => command,
                Err(_) if self.pending.is_empty() => match self.receiver.recv() {
                    Ok(command) => command,
                    Err(_) => return Next::Stop,
                },
                Err(_) if self.worth_waiting(&mut gather_until) => {
                    thread::yield_now();
                    continue;
                }
                Err(_) => break,
            };
            match command {
                Command::Commit(pending) => {
                    bytes += pending.encoded.bytes.len();
                    if bytes > MAX_BATCH_BYTES && !self.pending.is_empty() {
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

    /// Whether others are in flight who may commit within the gathering time.
    fn worth_waiting(&self, until: &mut Option<Instant>) -> bool {
        #[expect(clippy::disallowed_methods, reason = "a wait is measured where it happens")]
        let now = Instant::now();
        self.engine.locks.in_flight() > self.pending.len()
            && now < *until.get_or_insert(now + GATHER)
    }

    /// Makes what was collected durable, and settles it.
    fn commit(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.engine.has_failed() {
            let error = self.engine.stopped();
            self.pending.drain(..).for_each(|pending| pending.fail(&error));
            return Ok(());
        }
        let written = self.make_room().and_then(|()| self.append());
        match written {
            Ok(committed) => {
                let entries = committed.items.len();
                self.settler.take(Settlement::Batch(committed), entries);
                Ok(())
            }
            Err(error) => {
                self.engine.fail(error.clone());
                let stopped = self.engine.stopped();
                self.pending.drain(..).for_each(|pending| pending.fail(&stopped));
                Err(error)
            }
        }
    }

    /// Rotates if the batch does not fit, or leaves bodies out where there is no next log.
    fn make_room(&mut self) -> Result<()> {
        if self.batch_bytes() <= self.tail.room() && self.engine.ledger.has_next() {
            return Ok(());
        }
        if self.batch_bytes() > self.tail.room() {
            self.rotate()?;
        }
        // This batch's own reservations are still among the reserved.
        let others = self.engine.ledger.space.reserved();
        let own: u64 = self.pending.iter().map(|pending| pending.room.bytes()).sum();
        let others = others.saturating_sub(own);
        let room = self.tail.room().saturating_sub(others);
        for at in (0..self.pending.len()).rev() {
            if self.engine.ledger.has_next() || self.batch_bytes() <= room {
                break;
            }
            if self.pending[at].leave_body_out() {
                self.engine.counters.bodies_left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn batch_bytes(&self) -> u64 {
        let entries = self.pending.iter().map(|pending| Frame::HEAD + pending.encoded.bytes.len());
        (BatchBuilder::HEAD + entries.sum::<usize>()) as u64
    }

    fn rotate(&mut self) -> Result<()> {
        if self.engine.has_failed() {
            return Ok(());
        }
        self.expect_ownership()?;
        if let Some(frozen) = self.engine.ledger.rotate(&mut self.tail, &mut self.batch)? {
            // Behind the batches that are still being settled in that log.
            self.settler.take(Settlement::Frozen(Message::Frozen(frozen)), 0);
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
        let offset = self.tail.append(&mut self.batch, anchor)?;
        ledger.measure(&self.tail);
        let counters = &self.engine.counters;
        counters.batches.fetch_add(1, Ordering::Relaxed);
        counters.entries.fetch_add(places.len() as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(self.batch.len(), Ordering::Relaxed);

        let items = self.pending.drain(..).zip(places).map(|(pending, place)| {
            let location = pending.location(offset + place, anchor.at);
            (pending, location)
        });
        let mut committed = Committed {
            log: Arc::clone(&self.tail.log),
            at: anchor.at,
            items: items.collect(),
        };
        // Here and not when settling, so that a rotation finds all that is durable.
        committed.update_claims(&self.engine, self.tail.sequence);
        Ok(committed)
    }
}

/// A batch that is durable.
struct Committed {
    log: Arc<Log>,
    at: Moment,
    items: Vec<(Pending, Location)>,
}

impl Committed {
    fn update_claims(&mut self, engine: &Engine, sequence: u64) {
        let mut claims = engine.ledger.claims.lock();
        for (pending, _) in &mut self.items {
            match pending.effect.as_mut() {
                Some(Effect::Claim { held, claim, .. }) => {
                    claim.claimed_at = self.at;
                    if claim.attempt == 1 {
                        claim.first_sequence = sequence;
                    }
                    claims.insert(held.address().clone(), claim.clone());
                }
                Some(Effect::Checkpoint { address, data, .. }) => {
                    claims.checkpoint(address, data.clone());
                }
                Some(
                    Effect::Complete { held, .. }
                    | Effect::Release { held, .. }
                    | Effect::Forget { held, .. },
                ) => claims.remove(held.address()),
                None => {}
            }
        }
    }

    /// Publishes, then frees keys and wakes.
    fn settle(self, writer: &Writer) {
        let changes: Vec<Change> =
            self.items.iter().filter_map(|(pending, place)| pending.change(*place)).collect();
        self.log.publish(&changes);
        for (pending, _) in self.items {
            pending.succeed(self.at, writer);
        }
    }
}

impl Pending {
    fn location(&self, offset: u64, at: Moment) -> Location {
        let length = u32::try_from(self.encoded.bytes.len()).expect("entries are bounded");
        Location { offset, length, check: crate::log::check_of(&self.encoded.digest), at }
    }

    fn change(&self, location: Location) -> Option<Change> {
        match self.effect.as_ref()? {
            Effect::Complete { held, .. } => {
                Some(Change { hash: held.address().hash, location, hides_until: None })
            }
            Effect::Forget { held, until, .. } => {
                let hides_until = Some(*until);
                Some(Change { hash: held.address().hash, location, hides_until })
            }
            Effect::Claim { .. } | Effect::Release { .. } | Effect::Checkpoint { .. } => None,
        }
    }

    /// Records the operation without its response, and says whether it had one.
    fn leave_body_out(&mut self) -> bool {
        let Some(Effect::Complete { held, completion, .. }) = &mut self.effect else {
            return false;
        };
        if completion.response.take().is_none() {
            return false;
        }
        self.encoded = Encoded::completion(held.address(), completion);
        true
    }

    fn succeed(mut self, at: Moment, writer: &Writer) {
        match self.effect.take() {
            Some(Effect::Complete { held, completion, outcome }) => {
                let record = Record::new(completion, at);
                held.settle(&record);
                deliver(&outcome, Ok(record));
            }
            Some(Effect::Claim { held, claim, verdict_room, outcome }) => {
                let claimed = Claimed { held, claim, room: verdict_room };
                if let Some(Ok(claimed)) = deliver(&outcome, Ok(claimed)) {
                    writer.release_unused(claimed);
                }
            }
            Some(Effect::Release { held, outcome } | Effect::Forget { held, outcome, .. }) => {
                drop(held);
                deliver(&outcome, Ok(()));
            }
            Some(Effect::Checkpoint { outcome, .. }) => {
                deliver(&outcome, Ok(()));
            }
            None => {}
        }
    }

    /// The outcome is unknown: the key stays locked, and whoever waits is told.
    fn fail(mut self, error: &Error) {
        self.fail_with(error);
    }

    fn fail_with(&mut self, error: &Error) {
        match self.effect.take() {
            Some(Effect::Complete { held, outcome, .. }) => {
                held.keep();
                deliver(&outcome, Err(error.clone()));
            }
            Some(Effect::Claim { held, outcome, .. }) => {
                held.keep();
                deliver(&outcome, Err(error.clone()));
            }
            Some(Effect::Release { held, outcome } | Effect::Forget { held, outcome, .. }) => {
                held.keep();
                deliver(&outcome, Err(error.clone()));
            }
            Some(Effect::Checkpoint { outcome, .. }) => {
                deliver(&outcome, Err(error.clone()));
            }
            None => {}
        }
    }
}

/// A command that the writer never saw, because it is gone, is settled all the same.
impl Drop for Pending {
    fn drop(&mut self) {
        self.fail_with(&Error::Stopped { source: None });
    }
}

/// Fills the slot and wakes who waits for it; the value comes back if nobody will take it.
fn deliver<T>(outcome: &Slot<Result<T>>, value: Result<T>) -> Option<Result<T>> {
    match outcome.fill(value) {
        Ok(waker) => {
            if let Some(waker) = waker {
                waker.wake();
            }
            None
        }
        Err(value) => Some(value),
    }
}

enum Settlement {
    Batch(Committed),
    Frozen(Message),
    Rotated,
}

/// Settles batches in commit order: on the writer's thread while they are small and it is idle.
struct Settler {
    work: Sender<Settlement>,
    outstanding: Arc<AtomicUsize>,
    inline: Settling,
    thread: JoinHandle<()>,
}

#[derive(Clone)]
struct Settling {
    writer: Writer,
    reaper: Sender<Message>,
}

impl Settling {
    fn settle(&self, settlement: Settlement) {
        match settlement {
            Settlement::Batch(committed) => committed.settle(&self.writer),
            // If the reaper is gone, the store is closing, and the next opening takes over.
            Settlement::Frozen(message) => drop(self.reaper.send(message)),
            Settlement::Rotated => drop(self.reaper.send(Message::Rotated)),
        }
    }
}

impl Settler {
    fn start(
        engine: Arc<Engine>,
        writer: Writer,
        reaper: Sender<Message>,
    ) -> std::io::Result<Self> {
        let (work, receiver) = unbounded::<Settlement>();
        let outstanding = Arc::new(AtomicUsize::new(0));
        let inline = Settling { writer, reaper };
        let (settling, done) = (inline.clone(), Arc::clone(&outstanding));
        let thread = thread::Builder::new().name("refrain-settler".into()).spawn(move || {
            let _guard = engine.guard("settler");
            for settlement in receiver {
                settling.settle(settlement);
                done.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok(Self { work, outstanding, inline, thread })
    }

    fn take(&self, settlement: Settlement, entries: usize) {
        if entries < SETTLER_ENTRIES && self.outstanding.load(Ordering::Acquire) == 0 {
            return self.inline.settle(settlement);
        }
        self.outstanding.fetch_add(1, Ordering::Release);
        if let Err(unsent) = self.work.send(settlement) {
            // The settler is gone only if it panicked, which has stopped the store.
            drop(unsent);
        }
    }

    fn stop(self) {
        drop(self.work);
        // A panic there has stopped the store already.
        let _ = self.thread.join();
    }
}
