//! fjall, whose journal has no group commit of its own.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Rival, Session};
use crate::grouped::{Batches, Connection, Grouped, Reader};
use crate::workload::Name;

/// As much as RocksDB has.
const CACHE_BYTES: u64 = 1 << 30;

pub struct Fjall {
    store: Store,
    writer: Grouped,
}

#[derive(Clone)]
struct Store {
    database: Database,
    records: Keyspace,
}

impl Fjall {
    pub fn open(directory: &Path) -> Result<Self> {
        let database = Database::builder(directory).cache_size(CACHE_BYTES).open()?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
        let store = Store { database, records };
        Ok(Self { writer: Grouped::start(store.clone()), store })
    }
}

impl Batches for Store {
    fn commit(&mut self, entries: &[(Name, Vec<u8>)]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (name, value) in entries {
            batch.insert(&self.records, &name.bytes[..], &value[..]);
        }
        Ok(batch.commit()?)
    }
}

impl Rival for Fjall {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        let (reader, writer) = (self.store.records.clone(), self.writer.clone());
        Ok(Box::new(Connection { reader, writer }))
    }

    fn settle(&self) -> Result<()> {
        Ok(self.store.records.rotate_memtable_and_wait()?)
    }

    fn expire(&self, max: usize) -> Result<usize> {
        let mut batch = self.store.database.batch().durability(Some(PersistMode::SyncData));
        for entry in self.store.records.prefix([Name::OLD]).take(max) {
            batch.remove(&self.store.records, entry.key()?);
        }
        let count = batch.len();
        batch.commit()?;
        Ok(count)
    }
}

impl Reader for Keyspace {
    fn replay(&mut self, name: &Name) -> Result<bool> {
        Ok(self.get(&name.bytes[..])?.is_some_and(|value| !value.is_empty()))
    }
}
