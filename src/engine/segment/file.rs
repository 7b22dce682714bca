//! The files under redb: a [`DiskFile`] in the form that redb takes.
//!
//! The store's own lock replaces redb's. Reads go through [`RedbFile`]. A verification, for which
//! redb opens the file for writing, goes through an [`Overlay`], so that it never changes a
//! segment.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::engine::disk::{Disk, DiskFile, Pool, RESERVE_BYTES};
use crate::sync::atomic::{AtomicU64, Ordering};

/// The bytes that a new file takes before the disk is measured again.
const GRANTED_BYTES: u64 = 64 * 1024;

/// A file that redb reads and writes.
#[derive(Debug)]
pub(super) struct RedbFile(pub(super) Arc<dyn DiskFile>);

impl StorageBackend for RedbFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset)
    }
}

/// A new file, which redb fills for as long as [`RESERVE_BYTES`] of the disk are left free.
#[derive(Debug)]
pub(super) struct NewFile {
    file: RedbFile,
    disk: Arc<Pool>,
    /// The bytes that may be written before the disk is measured again.
    granted: AtomicU64,
}

impl NewFile {
    pub(super) fn new(file: Arc<dyn DiskFile>, disk: Arc<Pool>) -> Self {
        Self { file: RedbFile(file), disk, granted: AtomicU64::new(0) }
    }

    /// Has so many bytes granted, which are about to be written.
    ///
    /// # Errors
    ///
    /// That of a full disk, if too little of it would be left.
    fn expect_room(&self, bytes: u64) -> io::Result<()> {
        let granted = self.granted.load(Ordering::Relaxed);
        if granted >= bytes {
            return Ok(());
        }
        let (free, wanted) = (self.disk.free_bytes().unwrap_or(u64::MAX), bytes + GRANTED_BYTES);
        if free.saturating_add(granted) < wanted + RESERVE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.grant(wanted - granted);
        self.granted.store(wanted, Ordering::Relaxed);
        Ok(())
    }

    /// Counts so many of the granted bytes as written.
    fn spend(&self, bytes: u64) {
        self.granted.fetch_sub(bytes, Ordering::Relaxed);
        self.disk.take_back(bytes);
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.disk.take_back(self.granted.load(Ordering::Relaxed));
    }
}

impl StorageBackend for NewFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.expect_room(data.len() as u64)?;
        let written = self.file.write(offset, data);
        self.spend(data.len() as u64);
        written
    }
}

/// A file that redb may open for writing, and repair: its writes stay in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Arc<dyn DiskFile>,
    /// The length of the file beneath.
    kept: u64,
    written: Mutex<Written>,
}

/// The bytes that redb has written, and the length that it has set.
#[derive(Debug)]
struct Written {
    len: u64,
    /// Offsets and bytes, oldest first. They are few: a header, and the records of the close.
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Overlay {
    /// Creates an overlay over a file.
    pub(super) fn new(file: &Arc<dyn DiskFile>) -> io::Result<Self> {
        let kept = file.len()?;
        let written = Mutex::new(Written { len: kept, pieces: Vec::new() });
        Ok(Self { file: Arc::clone(file), kept, written })
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        let end = offset.saturating_add(out.len() as u64);
        if end > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let in_file = out.len() - index(end.saturating_sub(self.kept.max(offset)))?;
        if in_file > 0 {
            self.file.read_at(&mut out[..in_file], offset)?;
        }
        out[in_file..].fill(0);
        for (at, piece) in &written.pieces {
            let (from, to) = (offset.max(*at), end.min(at + piece.len() as u64));
            if from < to {
                let piece = &piece[index(from - at)?..index(to - at)?];
                out[index(from - offset)?..index(to - offset)?].copy_from_slice(piece);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written.lock().pieces.push((offset, data.to_vec()));
        Ok(())
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::{Disk, MemoryDisk, read_all};

    #[test]
    fn an_overlay_reads_as_the_file_would_and_leaves_the_file_alone() {
        let file = MemoryDisk::default().create("x").unwrap();
        let original: Vec<u8> = (0..100).collect();
        file.write_at(&original, 0).unwrap();
        let overlay = Overlay::new(&file).unwrap();
        // The content that the file would have.
        let mut whole = original.clone();
        overlay.set_len(150).unwrap();
        whole.resize(150, 0);
        // Within the file, beyond it, over its end, and over earlier writes.
        for (at, length) in [(10, 20), (120, 10), (90, 25), (15, 10), (0, 1), (149, 1)] {
            let piece = vec![200 + u8::try_from(length).unwrap(); length];
            overlay.write(at as u64, &piece).unwrap();
            whole[at..at + length].copy_from_slice(&piece);
        }
        assert_eq!(overlay.len().unwrap(), 150);
        for from in 0..=150 {
            for to in from..=150 {
                let mut read = vec![99; to - from];
                overlay.read(from as u64, &mut read).unwrap();
                assert_eq!(read, whole[from..to], "{from}..{to}");
            }
            let beyond = overlay.read(from as u64, &mut vec![0; 151 - from]);
            assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{from}..151");
        }
        assert_eq!(read_all(&*file, 1000).unwrap(), original);
    }
}
