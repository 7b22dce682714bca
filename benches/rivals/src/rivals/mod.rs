//! The stores under measurement, behind one face.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::workload::Name;

mod append;
mod fjall;
mod lmdb;
mod postgres;
mod redb;
mod redis;
mod refrain;
#[cfg(rocksdb)]
mod rocks;
mod sqlite;

/// A store that is open in a directory.
pub trait Rival: Send + Sync {
    /// A connection for one committer or reader, which will record bodies of this size.
    fn session(&self, body_bytes: usize) -> Result<Box<dyn Session>>;

    /// Finishes what is owed for the records so far: sealing, flushing, compaction.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Deletes records of the old scope, up to `max` where each has to be deleted by itself.
    /// Returns 0 once none are left.
    fn expire(&self, max: usize) -> Result<usize>;

    /// The processes that do the store's work.
    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }

    /// More figures, by name.
    fn facts(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// One connection to a store.
pub trait Session: Send {
    /// Asks for a new key, which is unknown, and records an answer under it: durable on return.
    fn record(&mut self, name: &Name, body: &[u8]) -> Result<()>;

    /// Reads the answer to a key; returns true if there is one.
    fn replay(&mut self, name: &Name) -> Result<bool>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
pub enum Kind {
    /// Volatile claims: one commit per request.
    Refrain,
    /// Durable claims: two commits per request.
    RefrainDurable,
    /// Small logs, so that a million records lie in some fifty segments.
    RefrainSegments,
    /// Small logs and hours that fly: sealing, rotating and dropping files all the while.
    RefrainBusy,
    /// Logs so large that nothing is sealed.
    RefrainCalm,
    /// Keyed directly, one writer's thread.
    Redb,
    /// A group commit and a write-ahead log of its own, recycled.
    Rocksdb,
    /// One writer's thread.
    Fjall,
    /// WAL, `synchronous=FULL`, one writer's thread.
    Sqlite,
    /// One writer's thread.
    Lmdb,
    /// `appendfsync always`, a connection for each committer.
    Redis,
    /// `synchronous_commit=on`, a connection for each committer.
    Postgres,
    /// The limit: a file that is appended to, one write and one fdatasync for many.
    Append,
    /// One page written again and again, with an fdatasync for each.
    Fdatasync,
}

impl Kind {
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }

    /// Opens the store in a directory, which may hold what an earlier process left.
    pub fn open(self, directory: &Path) -> Result<Arc<dyn Rival>> {
        std::fs::create_dir_all(directory)?;
        Ok(match self {
            Self::Refrain
            | Self::RefrainDurable
            | Self::RefrainSegments
            | Self::RefrainBusy
            | Self::RefrainCalm => Arc::new(refrain::Refrain::open(self, directory)?),
            Self::Redb => Arc::new(redb::Redb::open(directory)?),
            #[cfg(rocksdb)]
            Self::Rocksdb => Arc::new(rocks::Rocks::open(directory)?),
            #[cfg(not(rocksdb))]
            Self::Rocksdb => anyhow::bail!("built without it: install librocksdb-dev"),
            Self::Fjall => Arc::new(fjall::Fjall::open(directory)?),
            Self::Sqlite => Arc::new(sqlite::Sqlite::open(directory)?),
            Self::Lmdb => Arc::new(lmdb::Lmdb::open(directory)?),
            Self::Redis => Arc::new(redis::Redis::open(directory)?),
            Self::Postgres => Arc::new(postgres::Postgres::open(directory)?),
            Self::Append => Arc::new(append::Append::open(directory)?),
            Self::Fdatasync => Arc::new(append::Overwrite::open(directory)?),
        })
    }
}
