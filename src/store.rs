//! The public face: a [`Store`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::begin::Begin;
use crate::engine::builder::Builder;
use crate::engine::commit::{Effect, Queue};
use crate::engine::core::{Engine, Message, Waiting};
use crate::engine::disk::Disk;
use crate::engine::entry::{Encoded, Entry};
use crate::engine::ledger::{self, Opened, Settings};
use crate::engine::reaper::Reaper;
use crate::engine::writer;
use crate::error::{Error, Result};
use crate::key::{Address, Key, Scope};
use crate::observe::{self, Stopwatch};
use crate::operation::Operation;
use crate::record::Record;
use crate::stats::Stats;
use crate::sync::thread::JoinHandle;
use crate::sync::{Mutex, Sender, unbounded};
use crate::table::{Acquired, Limits, Table};
use crate::ticket::Ticket;

/// Idempotency records in a directory, with a table of keys in flight in front.
///
/// A handle: clones share the store, and it is closed with the last one. Permits and tickets may
/// outlive it; what they ask for then is answered with [`Error::Stopped`].
///
/// ```
/// use bytes::Bytes;
/// use http::Response;
/// use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("idempotency");
/// let store = Store::open(path)?;
/// let scope = Scope::from_api_key("sk_live_51");
/// let operation = Operation::new(scope, "key-1".parse()?, Fingerprint::of(["POST", "/v1/calls"]));
///
/// let Outcome::Execute(permit) = store.begin(&operation).wait()? else { panic!("it is new") };
/// permit.complete(&Response::new(Bytes::from("done"))).wait()?;
///
/// let Outcome::Replay(record) = store.begin(&operation).wait()? else { panic!("it was done") };
/// assert_eq!(record.response().map(|response| &response.body()[..]), Some(&b"done"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Store(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    inner: Arc<Inner>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<()>,
    reaper: JoinHandle<()>,
}

/// What permits and tickets keep of a store.
pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    pub(crate) queue: Queue,
    pub(crate) max_response_bytes: usize,
    reaper: Sender<Message>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.engine.ledger.disk.path()).finish()
    }
}

impl Store {
    /// Opens the store in a directory with the default settings, or creates one if the directory is
    /// empty or missing.
    ///
    /// # Errors
    ///
    /// See [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Chooses other settings.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        settings: Settings,
        limits: Limits,
        max_response_bytes: usize,
    ) -> Result<Self> {
        let took = Stopwatch::start();
        let Opened { ledger, tail, mut frozen, mut retired } = ledger::open(disk, settings)?;
        ledger.seal_small(&mut frozen, &mut retired)?;
        // So that the first key finds its room reserved. On a full disk there is still the rest of
        // the active log, and the reaper tries again.
        match ledger.prepare(&mut retired) {
            Err(trouble) if trouble.is_fatal() => return Err(trouble.into_error()),
            _ => {}
        }
        let path = ledger.disk.path().to_owned();
        let failed = |error| Error::io("start the threads of", &path, error);
        let engine = Arc::new(Engine::new(ledger, Table::new(limits)));
        let (reaper, messages) = unbounded();
        let (queue, writer) = writer::start(&engine, tail, reaper.clone()).map_err(failed)?;
        let reaper_thread = Reaper {
            engine: Arc::clone(&engine),
            queue: queue.clone(),
            messages,
            frozen,
            retired,
            waiting: Vec::new(),
        };
        let reaper_thread = reaper_thread.start().map_err(failed)?;
        let threads = Mutex::new(Some(Threads { writer, reaper: reaper_thread }));
        let snapshot = engine.ledger.snapshot();
        observe::opened(snapshot.logs.len(), snapshot.segments.len(), took);
        let inner = Arc::new(Inner { engine, queue, max_response_bytes, reaper });
        Ok(Self(Arc::new(Handle { inner, threads })))
    }

    /// Asks for a key.
    ///
    /// If it is free and unknown, the caller gets to execute. If it has a live record, the caller
    /// replays or refuses. If another request holds it, this waits for that one's verdict; see
    /// [`Begin::wait_timeout`] and [`Begin::give_up`].
    ///
    /// Looking up may read from the disk, on this thread.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] and [`Error::Full`] at once, before anything is claimed;
    /// [`Error::Corrupt`] if what is stored under the key cannot be read: never take that for
    /// absence; [`Error::Stopped`].
    ///
    /// # Durability
    ///
    /// The claim of a [`durable`](Operation::durable) operation is on disk when this returns a
    /// permit.
    pub fn begin(&self, operation: &Operation) -> Begin {
        Begin::new(Arc::clone(&self.0.inner), operation.clone())
    }

    /// The live record of a key, if it has one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if what is stored under the key cannot be read; [`Error::Stopped`].
    pub fn get(&self, scope: Scope, key: &Key) -> Result<Option<Record>> {
        let Inner { engine, .. } = &*self.0.inner;
        engine.check()?;
        engine.ledger.find(&Address::new(&engine.ledger.uuid, scope, key.clone()))
    }

    /// Forgets what is known about a key, an interrupted run included: the next request runs.
    ///
    /// # Errors
    ///
    /// [`Error::InFlight`] while a request holds the key; else as for [`begin`](Self::begin).
    ///
    /// # Durability
    ///
    /// The record is gone for good once the ticket is settled.
    pub fn forget(&self, scope: Scope, key: &Key) -> Ticket<()> {
        self.try_forget(scope, key).unwrap_or_else(|error| Ticket::ready(Err(error)))
    }

    fn try_forget(&self, scope: Scope, key: &Key) -> Result<Ticket<()>> {
        let Inner { engine, queue, .. } = &*self.0.inner;
        engine.check()?;
        let ledger = &engine.ledger;
        let address = Address::new(&ledger.uuid, scope, key.clone());
        let held = match engine.table.acquire(&address, &crate::RequestId::random())? {
            Acquired::Held(held) => held,
            Acquired::Waiting(waiter) => {
                // Whatever the outcome was just now, the key was in flight when asked.
                return match waiter.give_up() {
                    Err(request_id) => Err(Error::InFlight { request_id }),
                    Ok(_) => self.try_forget(scope, key),
                };
            }
        };
        let record = ledger.find(&address)?.map(|record| record.expiry());
        let claim = ledger.open_claim(&address).map(|claim| claim.expiry());
        let Some(until) = record.max(claim) else { return Ok(Ticket::ready(Ok(()))) };
        let room = ledger.space.reserve(0)?;
        let encoded = Encoded::new(Some(&address), &Entry::Forget(until.0));
        let (ticket, outcome) = Ticket::new();
        queue.commit(encoded, room, Effect::Forget { held, until, outcome });
        Ok(ticket)
    }

    /// Reads every file that the store consists of and verifies it, which takes as long as reading
    /// them does.
    ///
    /// That is `LOCK` and `MANIFEST`, as they were written last; each log, from its header through
    /// all its batches to where it ends; and each segment: its description, its filter, every row
    /// in order, and redb's pages by redb's own checksums. Each file must be the one that is open.
    /// What nothing ever reads is not looked at: the rest of a batch's last page, what a log holds
    /// behind its end, and what redb has free.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] names the first damage found; [`Error::Stopped`].
    pub fn verify(&self) -> Result<()> {
        self.0.inner.engine.check()?;
        self.0.inner.engine.ledger.verify()
    }

    /// Does at once what the background thread would do in time: rotates and seals what is due, and
    /// drops the files whose last record has expired.
    ///
    /// Tests that simulate the clock call it; expiry itself needs no reaping.
    ///
    /// # Errors
    ///
    /// What is in the way, such as a full disk, in which case nothing is lost; [`Error::Stopped`].
    pub fn reap(&self) -> Result<()> {
        let (ticket, done) = Ticket::new();
        let Inner { engine, reaper, .. } = &*self.0.inner;
        // If the reaper is gone, dropping the message answers it.
        let _ = reaper.send(Message::Reap(Waiting::new(engine, done)));
        ticket.wait()
    }

    /// How the store is doing. Cheap.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.0.inner.engine)
    }

    /// Takes no more work, waits up to `timeout` for operations in flight to end, commits what they
    /// left, and lets go of the directory. An operation that was let in just before the others had ended
    /// is waited for as long again.
    ///
    /// Says how many operations had not ended; what they ask for later is answered with
    /// [`Error::Stopped`], and the directory stays locked until the last of their permits is dropped.
    /// Dropping the last handle does the same without waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] with its source if the store had failed.
    pub fn close(&self, timeout: Duration) -> Result<usize> {
        self.0.close(timeout)
    }
}

impl Handle {
    fn close(&self, timeout: Duration) -> Result<usize> {
        let Inner { engine, queue, reaper, .. } = &*self.inner;
        engine.start_closing();
        let idle = engine.table.wait_idle(timeout);
        engine.table.stop(&engine.stopped());
        if idle {
            // One that was let in just before may have come after it.
            engine.table.wait_idle(timeout);
        }
        let stragglers = engine.table.in_flight();
        if let Some(threads) = self.threads.lock().take() {
            queue.stop();
            // If the reaper is gone, it has nothing to be told.
            let _ = reaper.send(Message::Stop);
            // A panic in a thread has stopped the store, which is reported below.
            let _ = threads.writer.join();
            let _ = threads.reaper.join();
            // A permit that is still out may act: the directory stays locked until it is gone. Nobody
            // gets one any more, so this is the last word.
            if !engine.has_failed() && engine.table.in_flight() == 0 {
                let disk = &engine.ledger.disk;
                disk.unlock().map_err(|error| Error::io("unlock", disk.path(), error))?;
            }
        }
        if engine.has_failed() { Err(engine.stopped()) } else { Ok(stragglers) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        let _ = self.close(Duration::ZERO);
        if self.inner.engine.has_failed() {
            // The page cache may hold what the disk does not, so this process must never reopen the
            // store: the lock goes with the process.
            std::mem::forget(Arc::clone(&self.inner.engine.ledger.disk));
        }
    }
}
