//! The limits: what the disk gives to a log that only appends, and to bare fdatasync.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::{Rival, Session};
use crate::grouped::{Batches, Grouped};
use crate::workload::Name;

const PAGE: [u8; 4096] = [0x5a; 4096];

/// A log that only appends, one write and one fdatasync for all that are queued.
pub struct Append(Grouped);

struct Log {
    file: File,
    end: u64,
    buffer: Vec<u8>,
}

impl Append {
    pub fn open(directory: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("log"))?;
        let end = file.metadata()?.len();
        Ok(Self(Grouped::start(Log { file, end, buffer: Vec::new() })))
    }
}

impl Batches for Log {
    fn commit(&mut self, entries: &[(Name, Vec<u8>)]) -> Result<()> {
        self.buffer.clear();
        for (name, value) in entries {
            self.buffer.extend_from_slice(&u32::try_from(value.len())?.to_le_bytes());
            self.buffer.extend_from_slice(&name.bytes);
            self.buffer.extend_from_slice(value);
        }
        self.file.write_all_at(&self.buffer, self.end)?;
        self.file.sync_data()?;
        self.end += self.buffer.len() as u64;
        Ok(())
    }
}

impl Rival for Append {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        Ok(Box::new(Appending(self.0.clone())))
    }

    fn expire(&self, _: usize) -> Result<usize> {
        Ok(0)
    }
}

struct Appending(Grouped);

impl Session for Appending {
    fn record(&mut self, name: &Name, body: &[u8]) -> Result<()> {
        self.0.record(name, body)
    }

    fn replay(&mut self, _: &Name) -> Result<bool> {
        Ok(false)
    }
}

/// One page, which each committer writes and syncs, whatever its record.
pub struct Overwrite(Arc<File>);

impl Overwrite {
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("pages");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.write_all_at(&PAGE, 0)?;
        file.sync_all()?;
        Ok(Self(Arc::new(file)))
    }
}

impl Rival for Overwrite {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        Ok(Box::new(Overwriting(Arc::clone(&self.0))))
    }

    fn expire(&self, _: usize) -> Result<usize> {
        Ok(0)
    }
}

struct Overwriting(Arc<File>);

impl Session for Overwriting {
    fn record(&mut self, _: &Name, _: &[u8]) -> Result<()> {
        self.0.write_all_at(&PAGE, 0)?;
        Ok(self.0.sync_data()?)
    }

    fn replay(&mut self, _: &Name) -> Result<bool> {
        Ok(false)
    }
}
