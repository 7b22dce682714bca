//! LMDB, synced at each commit.
#![allow(unsafe_code, reason = "heed asks for a promise that the file is ours alone, which it is")]

use std::path::Path;

use anyhow::Result;
use heed::types::Bytes;
use heed::{Database, Env, EnvOpenOptions};

use super::{Rival, Session};
use crate::grouped::{Batches, Connection, Grouped, Reader};
use crate::workload::Name;

/// Of address space, not of disk.
const MAP_BYTES: usize = 64 << 30;
const MAX_READERS: u32 = 1024;

pub struct Lmdb {
    store: Store,
    writer: Grouped,
}

#[derive(Clone)]
struct Store {
    env: Env,
    records: Database<Bytes, Bytes>,
}

impl Lmdb {
    pub fn open(directory: &Path) -> Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(MAX_READERS);
        // SAFETY: the directory was made for this bench, and one process at a time has it open.
        let env = unsafe { options.open(directory)? };
        let mut transaction = env.write_txn()?;
        let records = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        let store = Store { env, records };
        Ok(Self { writer: Grouped::start(store.clone()), store })
    }
}

impl Batches for Store {
    fn commit(&mut self, entries: &[(Name, Vec<u8>)]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (name, value) in entries {
            self.records.put(&mut transaction, &name.bytes, value)?;
        }
        Ok(transaction.commit()?)
    }
}

impl Rival for Lmdb {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        let (reader, writer) = (self.store.clone(), self.writer.clone());
        Ok(Box::new(Connection { reader, writer }))
    }

    fn expire(&self, max: usize) -> Result<usize> {
        let mut transaction = self.store.env.write_txn()?;
        let names: Vec<Vec<u8>> = self
            .store
            .records
            .prefix_iter(&transaction, &[Name::OLD])?
            .take(max)
            .map(|entry| entry.map(|(name, _)| name.to_vec()))
            .collect::<heed::Result<_>>()?;
        for name in &names {
            self.store.records.delete(&mut transaction, name)?;
        }
        transaction.commit()?;
        Ok(names.len())
    }
}

impl Reader for Store {
    fn replay(&mut self, name: &Name) -> Result<bool> {
        let transaction = self.env.read_txn()?;
        let answer = self.records.get(&transaction, &name.bytes)?;
        Ok(answer.is_some_and(|answer| !answer.is_empty()))
    }
}
