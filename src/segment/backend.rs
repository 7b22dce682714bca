//! A file of the directory seam, as redb wants it. The store's own lock makes redb's unnecessary.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::disk::DiskFile;

#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<dyn DiskFile>);

impl StorageBackend for Backend {
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

/// A file that redb may open as its own and repair: what it writes stays in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Arc<dyn DiskFile>,
    /// How much of the file there is.
    kept: u64,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// Oldest first. They are few: a header, and what closing records.
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Overlay {
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
