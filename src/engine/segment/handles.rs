//! The open redb databases of segments: a limited number, the least recently used closed first.
//!
//! Each segment also keeps a descriptor of its file for as long as it lives, so that a replaced
//! file is never read in its place.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::engine::disk::DiskFile;
use crate::error::Result;
use crate::sync::Mutex;

use super::database::RecordTable;

/// The most databases that are open at a time. Each takes up to 333 KiB of memory.
const MAX_OPEN: usize = 64;

/// The open databases of all segments of a store.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    /// File numbers and tables, the most recently used last.
    open: Mutex<VecDeque<(u64, Arc<RecordTable>)>>,
}

impl Handles {
    /// Returns the table of a segment, and opens it if it is not open.
    pub(super) fn get(
        &self,
        number: u64,
        path: &Path,
        file: &Arc<dyn DiskFile>,
    ) -> Result<Arc<RecordTable>> {
        if let Some(handle) = self.touch(number) {
            return Ok(handle);
        }
        // Outside the mutex: two readers may open the same segment, and both are cached.
        let handle = Arc::new(RecordTable::open(path, file)?);
        let mut open = self.open.lock();
        if open.len() >= MAX_OPEN {
            open.pop_front();
        }
        open.push_back((number, Arc::clone(&handle)));
        Ok(handle)
    }

    /// Closes a segment that is about to be dropped.
    pub(crate) fn forget(&self, file: u64) {
        self.open.lock().retain(|(open, _)| *open != file);
    }

    /// Returns a table if it is open, and marks it as the most recently used.
    fn touch(&self, file: u64) -> Option<Arc<RecordTable>> {
        let mut open = self.open.lock();
        let found = open.iter().rposition(|(open, _)| *open == file)?;
        if found + 1 < open.len() {
            let entry = open.remove(found)?;
            open.push_back(entry);
        }
        open.back().map(|(_, handle)| Arc::clone(handle))
    }
}
