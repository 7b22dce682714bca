//! Verifying a segment: every page, row and record, whether somebody asks for it or not.

use std::sync::Arc;

use crate::engine::digest::DigestKey;
use crate::error::Result;

use super::database::{RecordTable, TableKey, failed, guarded, verify_pages};
use super::row::{Row, RowKey};
use super::{Content, Damaged, Segment};

/// The rows that are verified between two pauses.
const ROWS_AT_A_TIME: u64 = 4096;

impl Segment {
    /// Reads the whole file, and checks that it verifies and is the one that was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first thing that does not verify, and [`Error::Io`].
    pub(crate) fn verify(&self, key: DigestKey) -> Result<()> {
        let (path, file) = (&self.path, &self.file);
        let load =
            || Self::load(self.name.clone(), path.clone(), Arc::clone(file), self.meta.uuid, key);
        if guarded(path, load)?.meta != self.meta {
            return Err(self.broken("it is not the segment that was opened"));
        }
        guarded(path, || verify_pages(path, file))?;
        self.expect_undamaged()?;
        for log in &self.values {
            log.verify()?;
        }
        self.verify_rows(true, || Ok(()))
    }

    /// Checks that every entry can be read that could not be read when it was sealed.
    fn expect_undamaged(&self) -> Result<()> {
        let is_lost = |damaged: &&Damaged| self.damaged_entry(damaged).is_err();
        match self.damaged().iter().filter(is_lost).count() {
            0 => Ok(()),
            1 => Err(self.broken("it holds 1 key whose record is damaged")),
            count => Err(self.broken(&format!("it holds {count} keys whose records are damaged"))),
        }
    }

    /// Reads every row in order, and checks that no row is missing. The records in the segment's
    /// log are read too if `with_log` says so. `pace` runs in between, and may stop the work.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first row that does not verify or does not follow, and
    /// [`Error::Io`].
    pub(super) fn verify_rows(
        &self,
        with_log: bool,
        mut pace: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        guarded(&self.path, || {
            let handle = RecordTable::open(&self.path, &self.file)?;
            let storage = |error| failed(&self.path, error);
            let mut expected = Some(RowKey::SENTINEL.joined());
            let mut records = 0;
            for row in handle.table.range::<TableKey>(..).map_err(storage)? {
                let (key, value) = row.map_err(storage)?;
                let row = self.row(key.value(), value.value())?;
                if expected != Some(row.key.joined()) {
                    return Err(self.broken("a row is missing"));
                }
                records += u64::from(row.key.part == 0 && row.key != RowKey::SENTINEL);
                if with_log && self.meta.format > 1 && row.key != RowKey::SENTINEL {
                    self.verify_value(&row)?;
                }
                if records % ROWS_AT_A_TIME == 0 {
                    pace()?;
                }
                expected = row.successor.key();
            }
            if expected.is_none() && records == self.meta.records {
                Ok(())
            } else {
                Err(self.broken("its last rows are missing"))
            }
        })
    }

    /// Checks that a row has a value, and that the record in the segment's log is whole.
    fn verify_value(&self, row: &Row<'_>) -> Result<()> {
        match self.value(row.value)?.content {
            Content::Inline(_) => Ok(()),
            Content::InLog { log, location, .. } => {
                self.payload_in_log(log, location, |parts| row.key.is_of(parts)).map(drop)
            }
        }
    }
}
