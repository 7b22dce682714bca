//! The embedded backend: a log that acknowledges, and segments that keep.
//!
//! ```text
//!  Embedded::claim ──► ledger: look the key up ──► Claim ──verdict──► queue ──► writer ──► settler
//! ```
//!
//! Three threads serve an open store: the writer commits, the settler frees keys and wakes callers,
//! and the reaper seals and drops files. A caller's thread only reads, and queues entries.
//!
//! Invariants:
//! - A store that has failed in this process is never opened by it again: the lock on the directory
//!   is held until the process ends.
//! - The directory stays locked while a permit is out, even after the store was closed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::{Answer, Asked, Backend, Cursor, Detail, Listed, Listing, Past, Rules};
use crate::error::{Error, Result};
use crate::key::{Address, Key, Scope};
use crate::observe::{self, Stopwatch};
use crate::record::Record;
use crate::stats::Stats;
use crate::store::Store;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, Sender, unbounded};
use crate::table::{Hold, Limits, Table};
use crate::ticket::Ticket;

pub(crate) mod builder;
pub(crate) mod claim;
pub(crate) mod commit;
pub(crate) mod core;
pub(crate) mod digest;
pub mod disk;
pub(crate) mod entry;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod reaper;
pub(crate) mod segment;
pub(crate) mod settings;
pub(crate) mod settler;
pub(crate) mod trouble;
pub(crate) mod writer;

use claim::Desk;
use core::{Engine, Message, Waiting};
use disk::{Disk, RealDisk};
use ledger::{OpenClaim, Opened, UNFINISHED};
use reaper::Reaper;
use settings::Settings;

/// A store's directory, open, with the threads that serve it.
struct Embedded {
    desk: Arc<Desk>,
    rules: Rules,
    reaper: Sender<Message>,
    threads: Mutex<Option<Threads>>,
}

/// A list of records under way.
#[derive(Debug)]
struct RecordsUnderWay {
    engine: Arc<Engine>,
    listing: ledger::Listing,
}

/// The threads of an open store, to be joined when it is closed.
struct Threads {
    writer: JoinHandle<()>,
    reaper: JoinHandle<()>,
}

/// The end of an open store.
struct Closing {
    desk: Arc<Desk>,
    to_reaper: Sender<Message>,
    threads: Threads,
}

/// Opens the store on a disk, and starts its threads.
///
/// # Errors
///
/// Those of [`ledger::open`], and [`Error::Io`] if a thread cannot be started.
///
/// # Durability
///
/// All records that the store serves are durable when this returns.
pub(crate) fn start(
    disk: Arc<dyn Disk>,
    settings: Settings,
    limits: Limits,
    max_response_bytes: usize,
) -> Result<Store> {
    let took = Stopwatch::start();
    let rules = Rules { ttl: settings.ttl, max_response_bytes };
    let Opened { ledger, tail, mut frozen, mut retired } = ledger::open(disk, settings)?;
    ledger.seal_small(&mut frozen, &mut retired)?;
    ledger.merge_small(&mut retired)?;
    // So that the first key finds its room reserved. A full disk still has the rest of the active
    // log, and the reaper tries again.
    match ledger.prepare(&mut retired) {
        Err(trouble) if trouble.is_fatal() => return Err(trouble.into_error()),
        _ => {}
    }
    let path = ledger.disk.path().to_owned();
    let failed = |error| Error::io("start the threads of", &path, error);
    let table = Table::seeded(limits, ledger.uuid);
    let engine = Arc::new(Engine::new(ledger, Arc::clone(&table)));
    let (reaper, messages) = unbounded();
    let (queue, writer) = writer::start(&engine, tail, reaper.clone()).map_err(failed)?;
    let reaper_thread = Reaper {
        engine: Arc::clone(&engine),
        queue: queue.clone(),
        messages,
        frozen,
        retired,
        waiting: Vec::new(),
        purges: Vec::new(),
    };
    let reaper_thread = reaper_thread.start().map_err(failed)?;
    let threads = Mutex::new(Some(Threads { writer, reaper: reaper_thread }));
    let snapshot = engine.ledger.snapshot();
    observe::opened(snapshot.logs.len(), snapshot.segments.len(), took);
    observe::damaged_files(engine.ledger.damaged_files(), &path);
    observe::doubts(&engine.ledger.timeline);
    engine.show();
    let desk = Arc::new(Desk { engine, queue });
    Ok(Store::over(table, Embedded { desk, rules, reaper, threads }))
}

impl Backend for Embedded {
    /// Looks the key up while its hold is held, so that no other request can change its state.
    fn claim(&self, asked: Asked, hold: Hold) -> Ticket<Answer> {
        let ledger = &self.desk.engine.ledger;
        if let Some(claim) = ledger.open_claim(hold.address()) {
            let claim = self.desk.interrupted(claim, hold);
            return Ticket::ready(Ok(Answer::Interrupted(Box::new(claim))));
        }
        match ledger.find(hold.address()) {
            Ok(Some(record)) => Ticket::ready(Ok(Answer::recorded(record, hold))),
            Ok(None) => self.desk.claim(asked, hold),
            Err(error) => Ticket::ready(Err(error)),
        }
    }

    fn find(&self, scope: Scope, key: &Key) -> Ticket<Option<Record>> {
        let engine = &self.desk.engine;
        let found = engine
            .check()
            .and_then(|()| engine.ledger.find(&engine.table.address(scope, key.clone())));
        Ticket::ready(found)
    }

    fn reads_disk(&self, scope: Scope, key: &Key) -> bool {
        let Engine { ledger, table, .. } = &*self.desk.engine;
        ledger.asks_segments(|| table.address(scope, key.clone()))
    }

    fn forget(&self, hold: Hold) -> Ticket<()> {
        self.try_forget(hold).unwrap_or_else(|error| Ticket::ready(Err(error)))
    }

    fn interrupted(&self, after: Option<Cursor>, max: usize) -> Ticket<Vec<Past>> {
        let engine = &self.desk.engine;
        let listed = engine.check().map(|()| {
            let uuid = &engine.ledger.uuid;
            let now = engine.ledger.timeline.now();
            let after = after.as_ref().map(|Cursor { scope, key }| (scope, key));
            let claims = engine.ledger.claims.lock();
            let is_listed = |(address, claim): &(&Address, &OpenClaim)| {
                claim.expiry() > now
                    && after.is_none_or(|after| after < (&address.scope, &address.key))
            };
            let mut page: Vec<_> = claims.iter().filter(is_listed).collect();
            page.sort_unstable_by(|(a, _), (b, _)| (&a.scope, &a.key).cmp(&(&b.scope, &b.key)));
            page.truncate(max);
            page.into_iter()
                .map(|(address, claim)| claim.clone().into_past(address, uuid))
                .collect()
        });
        Ticket::ready(listed)
    }

    fn records(
        &self,
        scope: Option<Scope>,
        after: Option<Cursor>,
        detail: Detail,
    ) -> Box<dyn Listing> {
        let engine = Arc::clone(&self.desk.engine);
        let listing = engine.ledger.list(scope, after, detail);
        Box::new(RecordsUnderWay { engine, listing })
    }

    fn now(&self) -> SystemTime {
        self.desk.engine.ledger.timeline.now().to_system_time()
    }

    fn rules(&self) -> Rules {
        self.rules
    }

    fn check(&self) -> Result<()> {
        self.desk.engine.check()
    }

    fn stats(&self) -> Stats {
        self.desk.engine.stats()
    }

    fn verify(&self) -> Ticket<()> {
        let engine = &self.desk.engine;
        Ticket::ready(engine.check().and_then(|()| engine.ledger.verify()))
    }

    fn backup(&self, path: &Path) -> Ticket<()> {
        Ticket::ready(self.back_up(path))
    }

    fn note(&self, note: &str) -> Ticket<()> {
        let engine = &self.desk.engine;
        Ticket::ready(engine.check().and_then(|()| engine.ledger.note(note)))
    }

    fn notes(&self) -> Ticket<Vec<String>> {
        let engine = &self.desk.engine;
        Ticket::ready(engine.check().and_then(|()| engine.ledger.notes()))
    }

    fn reap(&self) -> Ticket<()> {
        let (ticket, promise) = Ticket::new();
        // If the reaper is gone, dropping the message answers it.
        let _ = self.reaper.send(Message::Reap(Waiting::new(&self.desk.engine, promise)));
        ticket
    }

    fn purge(&self) -> Ticket<()> {
        let (ticket, promise) = Ticket::new();
        // If the reaper is gone, dropping the message answers it.
        let _ = self.reaper.send(Message::Purge(Waiting::new(&self.desk.engine, promise)));
        ticket
    }

    fn close(&self) -> Ticket<()> {
        let engine = &self.desk.engine;
        engine.start_closing();
        let threads = self.threads.lock().take();
        if engine.is_forked() {
            // They stayed in the process that opened the store, and so did its locks.
            std::mem::forget(threads);
            return Ticket::ready(Err(Error::Forked));
        }
        let Some(threads) = threads else {
            return Ticket::ready(if engine.has_failed() { Err(engine.stopped()) } else { Ok(()) });
        };
        let (desk, to_reaper) = (Arc::clone(&self.desk), self.reaper.clone());
        let closing = Closing { desk, to_reaper, threads };
        if !core::is_own_thread() {
            return Ticket::ready(closing.end());
        }
        // A waker that one of the threads runs has dropped the last handle.
        let (ticket, promise) = Ticket::new();
        let end = move || promise.fulfil(closing.end());
        match thread::Builder::new().name("refrain-close".into()).spawn(end) {
            Ok(_) => ticket,
            Err(error) => Ticket::ready(Err(Error::unavailable(error))),
        }
    }
}

impl Listing for RecordsUnderWay {
    fn next(&mut self, max: usize) -> Ticket<Vec<Listed>> {
        let Self { engine, listing } = self;
        Ticket::ready(engine.check().and_then(|()| listing.next(&engine.ledger, max)))
    }
}

impl Embedded {
    /// Writes a copy of the store into a directory that is empty or missing.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it holds anything, [`Error::Locked`] if somebody has it, and those of
    /// [`back_up`](ledger::Ledger::back_up).
    fn back_up(&self, path: &Path) -> Result<()> {
        let engine = &self.desk.engine;
        engine.check()?;
        let is_there = path.exists();
        let target = match RealDisk::open_for_backup(path, UNFINISHED) {
            Ok(Some(target)) => target,
            Ok(None) => return Err(Error::Locked { path: path.into() }),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let reason = "there are files in it, or in a directory of its name and .tmp";
                return Err(Error::foreign(path, reason));
            }
            Err(error) => return Err(Error::io("back up to", path, error)),
        };
        engine.ledger.back_up(&target, || engine.check()).inspect_err(|_| {
            if !is_there {
                // It stays if it is not empty.
                let _ = std::fs::remove_dir(path);
            }
        })
    }

    /// Commits a forget that hides the record and the claim of a key until both have expired.
    ///
    /// # Errors
    ///
    /// Those of a lookup.
    fn try_forget(&self, hold: Hold) -> Result<Ticket<()>> {
        let ledger = &self.desk.engine.ledger;
        let address = hold.address();
        let record = match ledger.find(address) {
            // Nobody knows when it expires.
            Err(Error::Corrupt { .. }) => Some(ledger.longest_expiry()),
            found => found?.map(|record| record.expiry()),
        };
        let claim = ledger.open_claim(address).map(|claim| claim.expiry());
        let Some(until) = record.max(claim) else { return Ok(Ticket::ready(Ok(()))) };
        Ok(self.desk.forget(hold, until))
    }
}

impl Closing {
    /// Ends the threads after the commits that are queued, and unlocks the directory if no permit
    /// is out.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] with its source if the store has failed, and [`Error::Io`] if the
    /// directory cannot be unlocked.
    fn end(self) -> Result<()> {
        let engine = &self.desk.engine;
        self.desk.queue.stop();
        // If the reaper is gone, it needs no message.
        let _ = self.to_reaper.send(Message::Stop);
        // A panic in a thread has stopped the store.
        let _ = self.threads.writer.join();
        let _ = self.threads.reaper.join();
        if engine.has_failed() {
            return Err(engine.stopped());
        }
        // A permit that is still out may act: the directory stays locked until that permit is gone.
        // No request gets a new one, so the count is final.
        if engine.table.in_flight() == 0 {
            let disk = &engine.ledger.disk;
            disk.unlock().map_err(|error| Error::io("unlock", disk.path(), error))?;
        }
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let engine = &self.desk.engine;
        if engine.has_failed() {
            // The page cache may hold what the disk does not, so this process must never reopen the
            // store: the lock goes with the process.
            std::mem::forget(Arc::clone(&engine.ledger.disk));
        }
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("path", &self.desk.engine.ledger.disk.path()).finish()
    }
}
