//! The remedies of the reference server, each for the error of a real store: on a disk that refuses,
//! and in directories that are not as they should be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use refrain::disk::{Disk, DiskFile, MemoryDisk};
use refrain::error::Cause;
use refrain::{Fingerprint, Operation, Scope, Store};
use rustix::io::Errno;

#[path = "../calls/advice.rs"]
#[allow(dead_code, reason = "what it says about databases has tests with servers")]
mod advice;

use advice::{on_closing, on_opening};

const STILL_THERE: &str = "start again: what was answered is still there";

/// A disk in memory that refuses the store its files once it is told to.
#[derive(Debug, Default)]
struct Refusing {
    disk: MemoryDisk,
    with: Mutex<Option<Errno>>,
    is_replaced: Mutex<bool>,
}

impl Refusing {
    fn check(&self) -> io::Result<()> {
        self.with.lock().map_or(Ok(()), |errno| Err(errno.into()))
    }
}

impl Disk for Refusing {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.check().and_then(|()| self.disk.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.check().and_then(|()| self.disk.open(name))
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
        self.check()?;
        Ok(!*self.is_replaced.lock() && self.disk.still_owns(name, file)?)
    }
}

/// The advice of a server whose disk refuses the store with this at its start.
fn at_the_start(errno: Errno) -> String {
    let disk = Refusing { with: Mutex::new(Some(errno)), ..Refusing::default() };
    let error = Store::builder().open_on(Arc::new(disk)).unwrap_err();
    on_opening(&error).unwrap_or_default().to_owned()
}

/// The advice of a server whose store stops while it runs, once its disk has changed.
fn at_the_end(change: impl FnOnce(&Refusing)) -> String {
    let disk = Arc::new(Refusing::default());
    let store = Store::builder().open_on(Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    let scope = Scope::from_api_key("sk_live_51");
    let operation = Operation::new(scope, "key".parse().unwrap(), Fingerprint::of(["a call"]));
    change(&disk);
    store.begin(&operation.durable()).wait().unwrap_err();
    let error = store.close(Duration::ZERO).wait().unwrap_err();
    on_closing(&error).unwrap_or_default().to_owned()
}

/// Limits and read-only disks were answered with advice about permissions.
#[test]
fn each_refusal_of_the_system_has_its_own_remedy() {
    let of_the_process =
        matches!(Cause::of(&Errno::FBIG.into()), Cause::FileSize { max: Some(_), .. });
    let file_size = if of_the_process { "ulimit -f, or LimitFSIZE=" } else { "larger files" };
    for (errno, start, end) in [
        (Errno::NOSPC, "free some disk space, or enlarge the volume", "free some disk space"),
        (Errno::DQUOT, "this user's disk quota", "this user's disk quota"),
        (Errno::FBIG, file_size, file_size),
        (Errno::ROFS, "mount the file system for writing", STILL_THERE),
        (Errno::MFILE, "ulimit -n, or LimitNOFILE=", "ulimit -n, or LimitNOFILE="),
        (Errno::NFILE, "fs.file-max", "fs.file-max"),
        (Errno::ACCESS, "that this user may write to", STILL_THERE),
        (Errno::PERM, "that this user may write to", STILL_THERE),
        (Errno::IO, "check the disk, and the system's log", STILL_THERE),
        (Errno::NOTDIR, "whose parent exists", STILL_THERE),
        (Errno::NODEV, "", STILL_THERE),
    ] {
        let said = at_the_start(errno);
        assert!(said.contains(start) && said.is_empty() == start.is_empty(), "{errno}: {said}");
        let said = at_the_end(|disk| *disk.with.lock() = Some(errno));
        assert!(said.contains(end), "{errno}: {said}");
    }
}

#[test]
fn a_store_whose_files_are_gone_is_not_said_to_be_there() {
    let said = at_the_end(|disk| *disk.is_replaced.lock() = true);
    assert!(said.contains("in an empty one every key runs again"), "{said}");
}

#[test]
fn a_store_that_does_not_open_has_a_remedy_by_its_state() {
    let store = tempfile::tempdir().unwrap();
    let open = || Store::builder().open(store.path());
    let first = open().unwrap();
    let locked = open().unwrap_err();
    assert!(on_opening(&locked).unwrap().contains("stop the process"), "{locked}");
    first.close(Duration::ZERO).wait().unwrap();
    drop(first);

    let manifest = store.path().join("MANIFEST");
    let kept = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, b"").unwrap();
    let damaged = open().unwrap_err();
    assert!(on_opening(&damaged).unwrap().contains("`Store::salvage`"), "{damaged}");

    // The byte behind each copy's magic is the format; the checksum would be the later version's.
    let mut later = kept;
    let copies = (0..later.len() - 8).filter(|at| later[*at..].starts_with(b"rfrn "));
    for at in copies.collect::<Vec<_>>() {
        later[at + 8] = u8::MAX;
    }
    let checksum = later.len() - 32;
    later[checksum..].iter_mut().for_each(|byte| *byte ^= 0xff);
    std::fs::write(&manifest, later).unwrap();
    let newer = open().unwrap_err();
    assert!(on_opening(&newer).unwrap().contains("or a later one"), "{newer}");

    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("notes.txt"), b"").unwrap();
    let foreign = Store::builder().open(other.path()).unwrap_err();
    assert!(on_opening(&foreign).unwrap().contains("name an empty directory"), "{foreign}");
    let missing = Store::builder().open(other.path().join("no/store")).unwrap_err();
    assert!(on_opening(&missing).unwrap().contains("whose parent exists"), "{missing}");
}
