//! Lookups that read from the disk keep no task waiting.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use parking_lot::Mutex;
use refrain::Store;
use refrain::clock::SimulatedClock;
use refrain::disk::{Disk, DiskFile, MemoryDisk};
use refrain::server::IdempotencyLayer;
use tower::ServiceExt;

use crate::kit::*;

/// A disk in memory that notes which threads read segments.
#[derive(Debug, Default)]
struct Watched {
    disk: MemoryDisk,
    readers: Arc<Mutex<Vec<ThreadId>>>,
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn DiskFile>,
    readers: Arc<Mutex<Vec<ThreadId>>>,
}

impl Watched {
    fn watch(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        if !name.contains(".redb") {
            return file;
        }
        Arc::new(WatchedFile { file, readers: Arc::clone(&self.readers) })
    }
}

impl Disk for Watched {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watch(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watch(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn lock(&self, name: &str) -> io::Result<bool> {
        self.disk.lock(name)
    }

    fn unlock(&self) -> io::Result<()> {
        self.disk.unlock()
    }

    fn still_owns(&self, name: &str, file: &dyn DiskFile) -> io::Result<bool> {
        self.disk.still_owns(name, file)
    }
}

impl DiskFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.readers.lock().push(thread::current().id());
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn identity(&self) -> (u64, u64) {
        self.file.identity()
    }
}

/// A slow disk held up the worker that read, and with it all of the worker's connections.
#[tokio::test]
async fn a_segment_is_read_on_a_thread_that_may_block() {
    let (disk, clock) = (Watched::default(), SimulatedClock::new());
    let readers = Arc::clone(&disk.readers);
    let store = Store::builder().clock(clock.clone()).open_on(Arc::new(disk)).unwrap();
    let layer = IdempotencyLayer::new(store.clone()).authorize_replay(async |_, _| true);
    let app: Router = Router::new().route("/", post(|| async { "placed" })).layer(layer);
    let ask = async |body| {
        Answer::read(app.clone().oneshot(request("a", body)).await.unwrap()).await.unwrap()
    };
    assert_eq!(ask("{}").await.status, 200);
    clock.advance(Duration::from_secs(2 * 60 * 60));
    store.reap().unwrap();
    assert_eq!(store.stats().segment_records, 1);
    readers.lock().clear();
    assert!(ask("{}").await.is_replay());
    assert_eq!(ask("[]").await.refusal(), (409, "idempotency_conflict".into()));
    let readers = readers.lock();
    assert!(!readers.is_empty() && !readers.contains(&thread::current().id()), "{readers:?}");
}
