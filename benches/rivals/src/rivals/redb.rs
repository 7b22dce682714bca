//! redb, keyed directly, as a B-tree at random.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use redb::{Database, ReadableDatabase, TableDefinition};

use super::{Rival, Session};
use crate::grouped::{Batches, Connection, Grouped, Reader};
use crate::workload::Name;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

pub struct Redb {
    database: Arc<Database>,
    writer: Grouped,
}

impl Redb {
    pub fn open(directory: &Path) -> Result<Self> {
        let database = Arc::new(Database::create(directory.join("records.redb"))?);
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.commit()?;
        let writer = Grouped::start(Writer(Arc::clone(&database)));
        Ok(Self { database, writer })
    }
}

struct Writer(Arc<Database>);

impl Batches for Writer {
    fn commit(&mut self, entries: &[(Name, Vec<u8>)]) -> Result<()> {
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for (name, value) in entries {
                table.insert(&name.bytes[..], &value[..])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Rival for Redb {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        let (reader, writer) = (Arc::clone(&self.database), self.writer.clone());
        Ok(Box::new(Connection { reader, writer }))
    }

    fn expire(&self, max: usize) -> Result<usize> {
        let transaction = self.database.begin_write()?;
        let mut count = 0;
        {
            let mut table = transaction.open_table(RECORDS)?;
            let old: (&[u8], &[u8]) = (&[Name::OLD], &[Name::OLD + 1]);
            let mut expired = table.extract_from_if(old.0..old.1, |_, _| true)?;
            while count < max && expired.next().transpose()?.is_some() {
                count += 1;
            }
        }
        transaction.commit()?;
        Ok(count)
    }
}

impl Reader for Arc<Database> {
    fn replay(&mut self, name: &Name) -> Result<bool> {
        let table = self.begin_read()?.open_table(RECORDS)?;
        Ok(table.get(&name.bytes[..])?.is_some_and(|value| !value.value().is_empty()))
    }
}
