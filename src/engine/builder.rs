//! The options of an embedded store, and the calls that open it.
//!
//! Each option has a name, a default and a range. `Builder::check` is the only place that compares
//! the options with their ranges, and it runs before anything is created on the disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::codec::MAX_BODY_BYTES;
use crate::engine::disk::{Disk, MemoryDisk, RealDisk};
use crate::engine::ledger::{self, LOCK, MANIFEST, Settings};
use crate::engine::log::PAGE;
use crate::error::{Error, Result, expect_file_size};
use crate::salvage::Salvage;
use crate::store::Store;
use crate::table::Limits;
use crate::ticket::poll_until;

/// The pause between two attempts to lock the directory.
const LOCK_POLL: Duration = Duration::from_millis(20);
const LOG_BYTES: std::ops::RangeInclusive<u64> = 256 * 1024..=4 * 1024 * 1024 * 1024;
/// Defaults, which are smaller where the logs are small.
const DEFAULT_LOG_BYTES: u64 = 128 * 1024 * 1024;
/// The size of a log, in bytes, in a store without load; or an eighth of `log_bytes`, if that is
/// less.
const FIRST_LOG_BYTES: u64 = 1024 * 1024;
const DEFAULT_OPEN_CLAIMS: usize = 4096;
const DEFAULT_RESPONSE_BYTES: usize = 1024 * 1024;
/// The fraction of a log that one response may take.
const LOG_SHARE: u64 = 8;
const MAX_TTL: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

impl Store {
    /// Opens the store in a directory with the default settings, or creates one if the directory is
    /// empty or missing.
    ///
    /// # Errors
    ///
    /// See [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Opens the store in a directory with the default settings, and never creates one.
    ///
    /// # Errors
    ///
    /// See [`Builder::open_existing`].
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open_existing(path)
    }

    /// Writes what can be proved of the store in `from`, which need not open, into a new directory,
    /// with the default settings.
    ///
    /// See [`Builder::salvage`].
    ///
    /// # Errors
    ///
    /// See [`Builder::salvage`].
    ///
    /// # Durability
    ///
    /// The new store is durable when this returns.
    ///
    /// ```
    /// use refrain::Store;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let home = tempfile::tempdir()?;
    /// let (old, new) = (home.path().join("old"), home.path().join("new"));
    /// Store::open(&old)?;
    /// std::fs::remove_file(old.join("MANIFEST"))?;
    /// assert!(Store::open(&old).is_err());
    ///
    /// let salvage = Store::salvage(&old, &new)?;
    /// // Nobody knows whether other files are missing too.
    /// assert!(!salvage.is_absence_proven());
    /// println!("{salvage}");
    /// let store = Store::open(&new)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn salvage(from: impl AsRef<Path>, into: impl AsRef<Path>) -> Result<Salvage> {
        Self::builder().salvage(from, into)
    }

    /// Returns a builder, to open a store with other options than the defaults.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

/// Options of a [`Store`] in a directory, and the calls that open it.
///
/// Defaults suit a server with some thousand keys per second. `docs/guarantees.md` lists all
/// limits.
///
/// ```
/// use std::time::Duration;
/// use refrain::{Error, Store};
///
/// # fn main() -> refrain::Result<()> {
/// let store = Store::builder().ttl(Duration::from_secs(60)).max_in_flight(64).open_in_memory()?;
/// assert_eq!(store.rules().ttl, Duration::from_secs(60));
///
/// let refused = Store::builder().ttl(Duration::ZERO).open_in_memory().unwrap_err();
/// assert!(matches!(refused, Error::Setting { name: "ttl", .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    settings: Settings,
    limits: Limits,
    max_response_bytes: Option<usize>,
    max_open_claims: Option<usize>,
    lock_wait: Duration,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            settings: Settings {
                clock: Arc::new(SystemClock::new()),
                ttl: Duration::from_secs(24 * 60 * 60),
                log_bytes: DEFAULT_LOG_BYTES,
                first_log_bytes: first_log_bytes(DEFAULT_LOG_BYTES),
                max_open_claims: DEFAULT_OPEN_CLAIMS,
                max_open_claims_per_scope: 1024,
                trusted_downtime: Duration::from_secs(7 * 24 * 60 * 60),
                zero_recycled: false,
            },
            limits: Limits::default(),
            max_response_bytes: None,
            max_open_claims: None,
            lock_wait: Duration::ZERO,
        }
    }

    /// Sets the time for which a record is replayed, counted from the commit of its response: 24
    /// hours by default, from 1 ms to ten years.
    ///
    /// An operation can have a shorter TTL of its own, and never a longer one.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// Sets the largest size of a log, in bytes: 128 MiB by default, from 256 KiB to 4 GiB,
    /// rounded up to whole pages of 4 KiB.
    ///
    /// Logs begin with 1 MiB, or an eighth of this if that is less; larger ones follow under load,
    /// and small ones once it has ended. On a small disk a log takes no more than an eighth of
    /// the space that is free or in logs.
    ///
    /// A running store has two or three logs. Under load two more wait for sealing, and as many as
    /// the operations in flight fill; restarts in quick succession leave three more. Larger logs make
    /// fewer and larger segments.
    pub fn log_bytes(mut self, bytes: u64) -> Self {
        self.settings.log_bytes = bytes.next_multiple_of(PAGE);
        self.settings.first_log_bytes = first_log_bytes(self.settings.log_bytes);
        self
    }

    /// Limits the operations in flight in the store, and those that wait for a key to as many: 4096
    /// by default, at least 1.
    ///
    /// Each operation reserves up to 8 KiB of a log. Beyond the limit, [`Store::begin`] answers
    /// [`Error::Limit`], unless the key is done: replays go on.
    pub fn max_in_flight(mut self, max: usize) -> Self {
        self.limits.in_flight = max;
        self
    }

    /// Limits the operations in flight in one scope, and those that wait for a key to as many: 1024
    /// by default, at least 1.
    ///
    /// Below [`max_in_flight`](Self::max_in_flight), a scope also has at most as many places as are
    /// free, so that a few busy clients leave room for the next one. Beyond the limit,
    /// [`Store::begin`] answers [`Error::Limit`], unless the key is done.
    pub fn max_in_flight_per_scope(mut self, max: usize) -> Self {
        self.limits.per_scope = max;
        self
    }

    /// Limits the operations that wait for one key: 1024 by default.
    ///
    /// Beyond the limit, [`Store::begin`] answers [`Error::Limit`]. With 0 no operation waits.
    pub fn max_waiters_per_key(mut self, max: usize) -> Self {
        self.limits.waiters = max;
        self
    }

    /// Limits the durable claims without a verdict, interrupted ones included: 4096 by default, and
    /// at most one for each 8 KiB of a log.
    ///
    /// Beyond the limit no new key is admitted, durable or not: the outcome of each operation may
    /// turn out unknown, and is a claim then. Those in flight at that time have their place.
    ///
    /// Every new log begins with a copy of them, which is why their number depends on
    /// [`log_bytes`](Self::log_bytes).
    pub fn max_open_claims(mut self, max: usize) -> Self {
        self.max_open_claims = Some(max);
        self
    }

    /// Limits the durable claims of one scope without a verdict, interrupted ones included: 1024 by
    /// default, and at most as many as are free in the store. An interrupted claim counts until it
    /// is judged or has expired.
    pub fn max_open_claims_per_scope(mut self, max: usize) -> Self {
        self.settings.max_open_claims_per_scope = max;
        self
    }

    /// Sets the longest response body that is stored, in bytes: 1 MiB by default, 16 MiB at most,
    /// and never more than an eighth of a log. An operation with a longer one is recorded as done
    /// without its response.
    pub fn max_response_bytes(mut self, max: usize) -> Self {
        self.max_response_bytes = Some(max);
        self
    }

    /// Sets the time that opening waits for another process to close the store, as in a rolling
    /// deploy. By default it does not wait.
    ///
    /// Beyond the time, opening fails with [`Error::Locked`].
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Sets the longest downtime of the machine that is believed: seven days by default.
    ///
    /// Across a reboot only the wall clock tells the downtime, and it may be wrong. A longer
    /// downtime does not count: records from before are replayed for longer, and
    /// [`Stats::clock_jump`](crate::Stats::clock_jump) reports it. If the wall clock is ahead by
    /// less than this limit, the error counts, and records expire that much earlier.
    ///
    /// The downtime begins with the last write of the store. An open store writes even if it is
    /// idle, at least once in a quarter of this limit, but not more than once an hour.
    pub fn trusted_downtime(mut self, downtime: Duration) -> Self {
        self.settings.trusted_downtime = downtime;
        self
    }

    /// Sets whether the old bytes of a log are overwritten with zeros before its blocks are used
    /// again; `false` by default.
    ///
    /// With `false`, expired bodies stay on the disk until new entries overwrite them, or until
    /// [`Store::purge`] removes them. With `true`, each recycled log is written twice.
    pub fn zero_recycled_logs(mut self, zero: bool) -> Self {
        self.settings.zero_recycled = zero;
        self
    }

    /// Sets the source of time, such as a [`SimulatedClock`](crate::clock::SimulatedClock) in a
    /// test. The default is the machine's clocks.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.clock = Arc::new(clock);
        self
    }

    /// Opens the store in a directory, or creates one if the directory is empty or missing.
    ///
    /// The directory is created with mode 0700 and its files with mode 0600; its parent must exist.
    /// One process at a time can have a store open. Opening blocks for as long as it takes to read
    /// the logs, in general less than a second. A soft limit on open files (`RLIMIT_NOFILE`) below
    /// 1,024 is raised as far as the hard limit allows.
    ///
    /// # Durability
    ///
    /// All records that the store serves are durable when this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`] if another process, or another handle, has the store open.
    /// - [`Error::Foreign`] if the directory holds other files and no store. An empty `lost+found`
    ///   does not count.
    /// - [`Error::Newer`] if a later version of this crate wrote the store.
    /// - [`Error::Corrupt`] if a file is damaged or missing.
    /// - [`Error::Io`] if the operating system refuses a call, and, before anything is touched, if
    ///   the process may not have files of [`log_bytes`](Self::log_bytes).
    /// - [`Error::Setting`] if an option is out of its range; nothing is touched then.
    ///
    /// After an error no file of the store has been removed.
    pub fn open(mut self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        // Before the directory is made.
        self.check()?;
        expect_file_size(self.settings.log_bytes)
            .map_err(|error| Error::io("create logs in", path, error))?;
        let disk = poll_until(self.lock_wait, LOCK_POLL, || RealDisk::open(path).transpose());
        match disk {
            Some(Ok(disk)) => self.open_on(Arc::new(disk)),
            Some(Err(error)) => Err(Error::io("open", path, error)),
            None => Err(Error::Locked { path: path.into() }),
        }
    }

    /// Opens the store in a directory that holds one, and never creates one: a mistyped path or a
    /// volume that is not mounted is an error, and not an empty store in which every key runs
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`]; else as for [`open`](Self::open).
    pub fn open_existing(self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        // A directory with one of them alone would be set up anew.
        for file in [LOCK, MANIFEST] {
            if let Err(error) = std::fs::symlink_metadata(path.join(file)) {
                return Err(match error.kind() {
                    std::io::ErrorKind::NotFound => Error::Missing { path: path.into() },
                    _ => Error::io("look for", path.join(file), error),
                });
            }
        }
        self.open(path)
    }

    /// Opens an empty store in memory, for tests of programs that use a store.
    ///
    /// It behaves as a store on disk does, except that its records are gone once it is closed.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if an option is out of its range.
    pub fn open_in_memory(self) -> Result<Store> {
        self.open_on(Arc::new(MemoryDisk::default()))
    }

    /// Opens the store on a [`Disk`] of the caller, for tests that simulate a file system.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_on(mut self, disk: Arc<dyn Disk>) -> Result<Store> {
        let max_response_bytes = self.check()?;
        super::start(disk, self.settings, self.limits, max_response_bytes)
    }

    /// Writes what can be proved of the store in `from` into the directory `into`, as a store of its
    /// own, and reports the rest. The old directory is only read, and may be on a file system that
    /// is mounted for reading. The new one must be empty or missing.
    ///
    /// Records keep their times and their TTLs, and open claims are interrupted. A key whose latest
    /// entry is known to be damaged answers [`Error::Corrupt`] in the new store too. Where a file or
    /// a part of a log is lost, and with it the names of the keys in it, the [`Salvage`] says so:
    /// those keys are absent from the new store, and their operations would run again.
    ///
    /// The longest [`ttl`](Self::ttl) that the store has had should be set, in case `MANIFEST` is
    /// lost: what is damaged is kept for so long.
    ///
    /// It takes about 250 bytes of memory for each key, and time to read all files once.
    ///
    /// # Errors
    ///
    /// - [`Error::Missing`] if `from` has no log and no segment.
    /// - [`Error::Locked`] if the old store is open, or the new directory is in use.
    /// - [`Error::Corrupt`] if neither `MANIFEST` nor the header of a log can be read: nothing can be
    ///   proved then.
    /// - [`Error::Foreign`] if `into` is not empty.
    /// - [`Error::Newer`] if a later version of this crate wrote the store.
    /// - [`Error::Setting`], and [`Error::Io`], after which `into` is no store.
    ///
    /// # Durability
    ///
    /// The new store is durable when this returns.
    pub fn salvage(self, from: impl AsRef<Path>, into: impl AsRef<Path>) -> Result<Salvage> {
        let (from, into) = (from.as_ref(), into.as_ref());
        let locked = |path: &Path| Error::Locked { path: path.into() };
        let old = RealDisk::open_read_only(from).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Missing { path: from.into() },
            _ => Error::io("open", from, error),
        })?;
        let old = old.ok_or_else(|| locked(from))?;
        let new = RealDisk::open(into).map_err(|error| Error::io("open", into, error))?;
        let new = new.ok_or_else(|| locked(into))?;
        self.salvage_on(Arc::new(old), Arc::new(new))
    }

    /// Does what [`salvage`](Self::salvage) does, on [`Disk`]s of the caller.
    ///
    /// # Errors
    ///
    /// Those of [`salvage`](Self::salvage).
    ///
    /// # Durability
    ///
    /// The new store is durable when this returns.
    pub fn salvage_on(mut self, from: Arc<dyn Disk>, into: Arc<dyn Disk>) -> Result<Salvage> {
        self.check()?;
        ledger::salvage(from, into, &self.settings)
    }

    /// Checks the settings, and fits the ones that are not set to the others.
    fn check(&mut self) -> Result<usize> {
        let refuse = |name, allowed: String| Err(Error::Setting { name, allowed });
        let Settings { ttl, log_bytes, .. } = self.settings;
        if ttl < Duration::from_millis(1) || ttl > MAX_TTL {
            return refuse("ttl", "from a millisecond to ten years".into());
        }
        if !LOG_BYTES.contains(&log_bytes) {
            return refuse("log_bytes", "from 256 KiB to 4 GiB".into());
        }
        let share = usize::try_from(log_bytes / LOG_SHARE).unwrap_or(usize::MAX);
        let max_response = MAX_BODY_BYTES.min(share);
        let response = self.max_response_bytes.unwrap_or(DEFAULT_RESPONSE_BYTES.min(max_response));
        if response > max_response {
            let allowed = format!(
                "at most {} KiB, an eighth of log_bytes or 16 MiB if that is less",
                max_response / 1024
            );
            return refuse("max_response_bytes", allowed);
        }
        let max_claims = self.settings.max_carried_claims();
        let claims = self.max_open_claims.unwrap_or(DEFAULT_OPEN_CLAIMS.min(max_claims));
        if claims > max_claims {
            return refuse(
                "max_open_claims",
                format!("at most {max_claims} with log_bytes as set"),
            );
        }
        self.settings.max_open_claims = claims;
        for (name, value) in [
            ("max_in_flight", self.limits.in_flight),
            ("max_in_flight_per_scope", self.limits.per_scope),
            ("max_open_claims_per_scope", self.settings.max_open_claims_per_scope),
        ] {
            if value == 0 {
                return refuse(name, "at least 1".into());
            }
        }
        Ok(response)
    }
}

/// Returns the size of a log in a store without load.
const fn first_log_bytes(log_bytes: u64) -> u64 {
    let share = (log_bytes / 8).next_multiple_of(PAGE);
    if share < FIRST_LOG_BYTES { share } else { FIRST_LOG_BYTES }
}
