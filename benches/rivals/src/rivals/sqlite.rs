//! SQLite with its write-ahead log, each commit synced.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Rival, Session};
use crate::grouped::{self, Batches, Grouped, Reader};
use crate::workload::Name;

pub struct Sqlite {
    path: PathBuf,
    writer: Grouped,
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "mmap_size", 4_i64 << 30)?;
    connection.pragma_update(None, "cache_size", -64 * 1024)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

impl Sqlite {
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("records.sqlite");
        let connection = connect(&path)?;
        connection.execute_batch(
            // Rows are too large for a table without rowids, by SQLite's own advice.
            "CREATE TABLE IF NOT EXISTS records (name BLOB PRIMARY KEY, answer BLOB NOT NULL)",
        )?;
        Ok(Self { path, writer: Grouped::start(Writer(connection)) })
    }
}

struct Writer(Connection);

impl Batches for Writer {
    fn commit(&mut self, entries: &[(Name, Vec<u8>)]) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO records VALUES (?1, ?2)")?;
            for (name, value) in entries {
                insert.execute(params![&name.bytes[..], value])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Rival for Sqlite {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        let (reader, writer) = (connect(&self.path)?, self.writer.clone());
        Ok(Box::new(grouped::Connection { reader, writer }))
    }

    fn settle(&self) -> Result<()> {
        connect(&self.path)?
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(Into::into)
    }

    fn expire(&self, max: usize) -> Result<usize> {
        let delete = "DELETE FROM records WHERE name IN \
                      (SELECT name FROM records WHERE name >= ?1 AND name < ?2 LIMIT ?3)";
        let bounds = ([Name::OLD], [Name::OLD + 1]);
        Ok(connect(&self.path)?.execute(delete, params![bounds.0, bounds.1, max as i64])?)
    }
}

impl Reader for Connection {
    fn replay(&mut self, name: &Name) -> Result<bool> {
        let mut select = self.prepare_cached("SELECT answer FROM records WHERE name = ?1")?;
        let answer: Option<Vec<u8>> =
            select.query_row(params![&name.bytes[..]], |row| row.get(0)).optional()?;
        Ok(answer.is_some())
    }
}
