//! Group commit for stores that have a single writer and no group commit of their own: a thread
//! drains the queue into one durable transaction, as the stores' users are told to do.

use std::sync::Arc;
use std::thread::{self, Thread};

use anyhow::{Context, Result, anyhow, ensure};
use crossbeam_channel::{Sender, unbounded};
use std::sync::Mutex;

use crate::rivals::Session;
use crate::workload::{META_BYTES, Name};

const MAX_ENTRIES: usize = 256;

/// A store that makes many records durable at once.
pub trait Batches: Send + 'static {
    fn commit(&mut self, entries: &[(Name, Vec<u8>)]) -> Result<()>;
}

/// The committers' end of the writer's thread.
#[derive(Clone)]
pub struct Grouped(Sender<Work>);

struct Work {
    entry: (Name, Vec<u8>),
    done: Arc<Done>,
}

/// The outcome that a committer waits for.
pub struct Done {
    outcome: Mutex<Option<Result<(), String>>>,
    thread: Thread,
}

impl Grouped {
    pub fn start(mut store: impl Batches) -> Self {
        let (sender, receiver) = unbounded::<Work>();
        thread::spawn(move || {
            while let Ok(first) = receiver.recv() {
                let more = receiver.try_iter().take(MAX_ENTRIES - 1);
                let (entries, waiting): (Vec<_>, Vec<_>) = std::iter::once(first)
                    .chain(more)
                    .map(|Work { entry, done }| (entry, done))
                    .unzip();
                let outcome = store.commit(&entries).map_err(|error| format!("{error:#}"));
                for done in waiting {
                    *done.outcome.lock().expect("nobody panics") = Some(outcome.clone());
                    done.thread.unpark();
                }
            }
        });
        Self(sender)
    }

    /// Returns once the record is durable.
    pub fn record(&self, name: &Name, body: &[u8]) -> Result<()> {
        let done = Arc::new(Done { outcome: Mutex::new(None), thread: thread::current() });
        let entry = (name.clone(), value(body));
        self.0.send(Work { entry, done: Arc::clone(&done) }).ok().context("the writer is gone")?;
        loop {
            if let Some(outcome) = done.outcome.lock().expect("nobody panics").take() {
                return outcome.map_err(|error| anyhow!(error));
            }
            thread::park();
        }
    }
}

/// A reader of a store, for one thread.
pub trait Reader: Send {
    /// Reads the answer to a key; returns true if there is one.
    fn replay(&mut self, name: &Name) -> Result<bool>;
}

/// A reader of its own, and the writer that all share.
pub struct Connection<R> {
    pub reader: R,
    pub writer: Grouped,
}

impl<R: Reader> Session for Connection<R> {
    fn record(&mut self, name: &Name, body: &[u8]) -> Result<()> {
        ensure!(!self.reader.replay(name)?, "the key is known");
        self.writer.record(name, body)
    }

    fn replay(&mut self, name: &Name) -> Result<bool> {
        self.reader.replay(name)
    }
}

/// The value that a store of bytes keeps under a key.
pub fn value(body: &[u8]) -> Vec<u8> {
    let mut value = vec![0x77; META_BYTES];
    value.extend_from_slice(body);
    value
}
