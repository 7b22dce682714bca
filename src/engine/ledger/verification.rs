//! The verification of a store that is open: each file is whole, and the one that was opened.

use crate::engine::disk::Disk;
use crate::error::{Error, Result};

use super::manifest::{LOCK, MANIFEST, Manifest, read_lock};
use super::{Ledger, Snapshot};

impl Ledger {
    /// Returns the number of files that were damaged in part when they were opened.
    pub(crate) fn damaged_files(&self) -> usize {
        let Snapshot { logs, segments } = &*self.snapshot();
        let values = segments.iter().flat_map(|segment| &segment.values);
        self.damaged_lists
            + logs.iter().chain(values).filter(|log| log.is_header_damaged()).count()
            + segments.iter().filter(|segment| segment.is_file_damaged()).count()
    }

    /// Reads every listed file, and checks that it is whole and the one that is open.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first file that is damaged, missing or replaced, and
    /// [`Error::Io`] if one cannot be read.
    pub(crate) fn verify(&self) -> Result<()> {
        // While these are held, the files are neither renamed nor reused.
        let (next, snapshot) = (self.next.lock().clone(), self.snapshot());
        for log in snapshot.logs.iter().chain(&next) {
            self.expect_in_place(&log.name, &*log.file)?;
            log.verify()?;
        }
        for segment in snapshot.segments.iter() {
            self.expect_in_place(&segment.name, &*segment.file)?;
            for values in &segment.values {
                self.expect_in_place(&values.name, &*values.file)?;
            }
            segment.verify(self.digests)?;
        }
        // Last, so that damage here hides none that costs a key.
        self.verify_lists()
    }

    /// Compares `LOCK` and `MANIFEST` with their content in memory.
    fn verify_lists(&self) -> Result<()> {
        if read_lock(&*self.disk).map_err(Error::or_damage)? != Some(self.uuid) {
            let reason = "it is missing, or is not the file that was opened";
            return Err(Error::corrupt(self.disk.path_of(LOCK), reason));
        }
        // Under the mutex, so that the reaper does not replace the file meanwhile.
        let manifest = self.manifest.lock();
        if Manifest::read(&*self.disk)?.as_ref() != Some(&*manifest) {
            let reason = "it is missing, or is not the one that was last written";
            return Err(Error::corrupt(self.disk.path_of(MANIFEST), reason));
        }
        if !Manifest::is_whole(&*self.disk)? {
            let reason = "one of its two copies is damaged";
            return Err(Error::corrupt(self.disk.path_of(MANIFEST), reason));
        }
        Ok(())
    }
}
