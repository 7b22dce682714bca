//! The public face: a [`Store`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, Rules};
use crate::begin::Begin;
use crate::error::{Error, Result};
use crate::face::Face;
use crate::health::Health;
use crate::key::{Key, RequestId, Scope};
use crate::operation::Operation;
use crate::record::Record;
use crate::stats::Stats;
use crate::table::{Acquired, Limits, Table};
use crate::ticket::Ticket;

mod lists;

/// Idempotency records, with a table of keys in flight in front.
///
/// A handle: clones share the store, and the last one closes it. Permits and tickets may outlive
/// the store; they are then answered with [`Error::Stopped`].
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

/// Closes the store with the last of its handles, whatever still waits.
#[derive(Debug)]
struct Handle(Arc<Face>);

impl Store {
    /// Returns a store over a backend of the caller's, with these limits on operations in flight.
    ///
    /// [`Store::open`] and [`Store::builder`] make one over the embedded engine.
    pub fn new(backend: impl Backend, limits: Limits) -> Self {
        Self::over(Table::new(limits), backend)
    }

    /// Returns a store over a backend that shares its table.
    pub(crate) fn over(table: Arc<Table>, backend: impl Backend) -> Self {
        Self(Arc::new(Handle(Arc::new(Face::new(table, backend)))))
    }

    /// Asks for a key.
    ///
    /// If the key is free and unknown, the caller gets to execute. If it has a live record, the
    /// caller replays or refuses. If another request holds it, this waits for that request's
    /// verdict; and while the store commits faster than it seals, this waits for room. See
    /// [`Begin::wait_timeout`] and [`Begin::give_up`].
    ///
    /// The embedded engine may read from the disk on this thread.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`], [`Error::Full`] and [`Error::Ttl`] at once, before anything is claimed;
    /// [`Error::Behind`] after giving up a wait for room, with nothing claimed; [`Error::Corrupt`]
    /// if what is stored under the key cannot be read: never take that for absence;
    /// [`Error::Unavailable`]; [`Error::Stopped`].
    ///
    /// # Durability
    ///
    /// The claim of a [`durable`](Operation::durable) operation is on disk when this returns a
    /// permit.
    pub fn begin(&self, operation: &Operation) -> Begin {
        Begin::new(Arc::clone(&self.0.0), operation.clone())
    }

    /// Finds the live record of a key.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if what is stored under the key cannot be read; [`Error::Stopped`].
    pub fn get(&self, scope: Scope, key: &Key) -> Ticket<Option<Record>> {
        match self.face().check() {
            Ok(()) => self.face().backend.find(scope, key),
            Err(error) => Ticket::ready(Err(error)),
        }
    }

    /// Returns true if [`begin`](Self::begin) and [`get`](Self::get) would read from the disk for
    /// this key, on the thread that calls them: its record is in a segment. Cheap, and rarely wrong.
    ///
    /// In a task, call them on a thread that may block, such as that of
    /// `tokio::task::spawn_blocking`, and await what they return. The layer for servers does so.
    pub fn reads_disk(&self, scope: Scope, key: &Key) -> bool {
        self.face().backend.reads_disk(scope, key)
    }

    /// Forgets what is known about a key, an interrupted run included: the next request runs.
    ///
    /// The bytes stay in files of the embedded engine until those expire. While the store is open
    /// and sealing keeps up, that is at the latest two [`ttl`](crate::Builder::ttl)s, a rotation
    /// age (the larger of `ttl` / 24 and a minute) and two rounds of the background thread (`ttl` /
    /// 100 each, at least 100 ms and at most 30 s) after this: 49 hours and a minute by default.
    /// Behind the ends of recycled logs bytes may stay for longer, unless
    /// [`zero_recycled_logs`](crate::Builder::zero_recycled_logs) is set. [`purge`](Self::purge)
    /// removes all of them at once.
    ///
    /// # Errors
    ///
    /// [`Error::InFlight`] while a request holds the key; else as for [`begin`](Self::begin). While
    /// the store is behind, the ticket waits for room; dropping it then forgets nothing.
    ///
    /// # Durability
    ///
    /// The record is gone for good once the ticket is ready: it is not served again, even after a
    /// power cut.
    pub fn forget(&self, scope: Scope, key: &Key) -> Ticket<()> {
        self.try_forget(scope, key).unwrap_or_else(|error| Ticket::ready(Err(error)))
    }

    fn face(&self) -> &Face {
        &self.0.0
    }

    fn try_forget(&self, scope: Scope, key: &Key) -> Result<Ticket<()>> {
        let Face { backend, table, .. } = self.face();
        self.face().check()?;
        let address = table.address(scope, key.clone());
        match table.acquire(&address, &RequestId::random(), backend.now())? {
            Acquired::Held(hold) => Ok(backend.forget(hold)),
            // Whatever has arrived just now, the key was in flight when asked.
            Acquired::Waiting(waiter) => match waiter.give_up() {
                Err(request_id) => Err(Error::InFlight { request_id }),
                Ok(_) => self.try_forget(scope, key),
            },
        }
    }

    /// The limits that operations keep to.
    pub fn rules(&self) -> Rules {
        self.face().rules
    }

    /// Keeps a note, one line of at most 2 KiB: what an operator has done to the store, and why. The
    /// engine keeps up to 2 MiB of them in its directory, and drops the oldest first. They are not
    /// part of a backup.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it is not such a line or cannot be written; [`Error::Unavailable`] over a
    /// backend that has no place for notes, such as PostgreSQL; [`Error::Stopped`].
    ///
    /// # Durability
    ///
    /// The note is durable once the ticket is ready.
    pub fn note(&self, note: &str) -> Ticket<()> {
        self.face().backend.note(note)
    }

    /// Returns the notes, the oldest first. A line that a crash has cut off is among them.
    ///
    /// # Errors
    ///
    /// Those of [`note`](Self::note).
    pub fn notes(&self) -> Ticket<Vec<String>> {
        self.face().backend.notes()
    }

    /// Reads everything that the store keeps and verifies it, which takes as long as reading does.
    ///
    /// The embedded engine reads on this thread: `LOCK` and `MANIFEST`, as they were written last;
    /// each log, from its header through all its batches to its end; and each segment: its
    /// description, its filter, every row in order, and redb's pages by redb's own checksums. Each
    /// file must be the one that is open. Bytes that no read ever reaches are not looked at: the
    /// rest of a batch's last page, a log behind its end, and redb's free pages.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] names the first damage found; [`Error::Stopped`].
    pub fn verify(&self) -> Result<()> {
        self.face().check()?;
        self.face().backend.verify().wait()
    }

    /// Writes a copy of the open store into a directory, which opens as a store of its own. Work goes
    /// on meanwhile.
    ///
    /// The directory is missing or empty; its parent exists. On the store's own file system, files
    /// that are not written any more get a second name there (a hard link), and take no space twice
    /// until one of the two stores drops them; neither store writes such a file. What is still
    /// written to, and all of it on another file system, is copied on this thread. Files that
    /// expire, or are merged, stay in the store until that is done.
    ///
    /// The copy is the same store at an earlier moment, with the same identity: whoever works with
    /// it does not know what was recorded since, and runs it again. A backup that was interrupted
    /// does not open as a store; remove the directory.
    ///
    /// ```
    /// use refrain::Store;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// let store = Store::open(directory.path().join("idempotency"))?;
    /// let backup = directory.path().join("backup");
    /// store.backup(&backup)?;
    ///
    /// // Opening a backup changes it, so a copy is looked into.
    /// let copy = directory.path().join("copy");
    /// std::fs::create_dir(&copy)?;
    /// for file in std::fs::read_dir(&backup)? {
    ///     let file = file?;
    ///     std::fs::copy(file.path(), copy.join(file.file_name()))?;
    /// }
    /// Store::open_existing(&copy)?.verify()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if the directory holds anything, [`Error::Locked`] if somebody has it
    /// locked, [`Error::Io`], and [`Error::Stopped`]; what was written is removed again, as far as
    /// that is possible. Over PostgreSQL [`Error::Unavailable`]: the database has its own backups.
    ///
    /// # Durability
    ///
    /// The copy is on disk when this returns. All that was acknowledged before the call is in it.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.face().check()?;
        self.face().backend.backup(path.as_ref()).wait()
    }

    /// Does at once what the background thread would do in time: rotates and seals what is due, and
    /// drops the files whose last record has expired.
    ///
    /// For tests that simulate the clock; expiry itself needs no reaping.
    ///
    /// # Errors
    ///
    /// The obstacle, such as a full disk, in which case nothing is lost; [`Error::Stopped`].
    pub fn reap(&self) -> Result<()> {
        self.face().check()?;
        self.face().backend.reap().wait()
    }

    /// Removes the bytes of all records that were forgotten, or had expired, before this was
    /// called: for requests of erasure.
    ///
    /// The ticket is ready once no file of the store holds such bytes, and the last reader of the
    /// old files has gone. Live records, claims and damaged keys stay. A damaged key that is kept
    /// in such a file stays damaged even if the disk could have given its record back later.
    ///
    /// The background thread seals the logs and rewrites each file that may hold anything but live
    /// records, while commits go on. All that is live is read and written once, at most, and the
    /// largest segment and its logs must fit the free space once more. So a purge is for many
    /// erasures at a time.
    ///
    /// Bytes may remain where the store does not see them: in backups and snapshots, in the journal
    /// of a file system, in blocks that it has freed, and in the cells of an SSD.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http::Response;
    /// # use refrain::{Fingerprint, Operation, Outcome, Scope, Store};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::builder().open_in_memory()?;
    /// # let scope = Scope::from_api_key("sk_live_51");
    /// # let key: refrain::Key = "key-1".parse()?;
    /// # let fingerprint = Fingerprint::of(["POST", "/v1/calls"]);
    /// # let operation = Operation::new(scope, key.clone(), fingerprint);
    /// # let Outcome::Execute(permit) = store.begin(&operation).wait()? else { panic!("new") };
    /// # permit.complete(&Response::new(Bytes::from("done"))).wait()?;
    /// store.forget(scope, &key).wait()?;
    /// store.purge().wait()?;
    /// # assert!(store.get(scope, &key).wait()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The obstacle, in which case nothing is lost, some of the bytes may be left, and another call
    /// goes on from there: [`Error::Io`], as on a full disk; [`Error::Corrupt`] for a segment that
    /// cannot be read, whose bytes go when it has expired; [`Error::Behind`];
    /// [`Error::Unavailable`] over a backend that cannot tell, such as a database;
    /// [`Error::Stopped`] if the store is closed meanwhile.
    ///
    /// # Durability
    ///
    /// A power cut does not bring the bytes back once the ticket is ready.
    pub fn purge(&self) -> Ticket<()> {
        match self.face().check() {
            Ok(()) => self.face().backend.purge(),
            Err(error) => Ticket::ready(Err(error)),
        }
    }

    /// Returns the state of the store, for readiness probes and alerts. Cheap.
    pub fn health(&self) -> Health {
        match self.face().check() {
            Err(error @ (Error::Stopped { .. } | Error::Forked)) => Health::Stopped(error),
            _ => Health::of(&self.stats()),
        }
    }

    /// Returns the store's figures. Cheap.
    pub fn stats(&self) -> Stats {
        let Face { backend, table, .. } = self.face();
        let (in_flight, retained) = (table.in_flight(), table.retained());
        Stats { in_flight, retained, ..backend.stats() }
    }

    /// Takes no more work from now on, waits up to `timeout` for operations in flight to end,
    /// commits what they left, and lets go of the directory. An operation that was let in just
    /// before the others had ended is waited for as long again.
    ///
    /// The ticket holds the number of operations that had not ended; their later calls are answered
    /// with [`Error::Stopped`], and the directory stays locked until the last of their permits, and
    /// the last handle of the store, is dropped. A thread of its own waits: a task awaits the
    /// ticket, and operations of the same runtime go on. Dropping the ticket changes nothing, and
    /// dropping the last handle of the store does the same without waiting for operations.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] with its source if the store had failed.
    pub fn close(&self, timeout: Duration) -> Ticket<usize> {
        self.0.0.close(timeout)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A program that needs the outcome calls `close`.
        self.0.abandon();
    }
}
