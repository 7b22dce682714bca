//! The errors of a store, one variant for each reaction of the caller.
//!
//! | variants | reaction |
//! | --- | --- |
//! | [`Behind`](Error::Behind), [`Limit`](Error::Limit), [`InFlight`](Error::InFlight) | retry later |
//! | [`Full`](Error::Full) | free disk space; retry later |
//! | [`Unavailable`](Error::Unavailable) | look at the source; retry later |
//! | [`Stopped`](Error::Stopped) | restart the process |
//! | [`Locked`](Error::Locked), [`Missing`](Error::Missing), [`Foreign`](Error::Foreign), [`Newer`](Error::Newer), [`Corrupt`](Error::Corrupt), [`Io`](Error::Io) | an operator looks at the directory |
//! | [`Volatile`](Error::Volatile), [`Ended`](Error::Ended), [`Ttl`](Error::Ttl), [`Setting`](Error::Setting), [`Forked`](Error::Forked) | correct the program |
//! | [`Fenced`](Error::Fenced) | use the outcome of the other node |

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::key::RequestId;

mod cause;
mod causes;

pub use cause::Cause;
pub(crate) use cause::expect_file_size;
use cause::{Circumstance, Needed};
pub(crate) use causes::WithCauses;

/// A result whose error is [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of a store.
///
/// Clones are cheap, because one failed commit is reported to every request in it. `Display`
/// describes this level only; the cause is in [`source`](std::error::Error::source).
///
/// ```
/// use refrain::{Error, Store};
///
/// let error = Store::open_existing("/nowhere/at/all").unwrap_err();
/// assert!(matches!(error, Error::Missing { .. }));
/// assert_eq!(error.to_string(), "there is no store in /nowhere/at/all");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process, or another handle in this one, has the store open. Stop it, or give the
    /// builder a [`lock_wait`](crate::Builder::lock_wait).
    #[error("store {} is open elsewhere", path.display())]
    #[non_exhaustive]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },

    /// The directory holds no store, and none was to be created. Check the path and the mount, or
    /// open the store with [`Builder::open`](crate::Builder::open) to create one.
    #[error("there is no store in {}", path.display())]
    #[non_exhaustive]
    Missing {
        /// The directory that was looked in.
        path: PathBuf,
    },

    /// The directory or the file is not this store's. Nothing was written or removed; choose
    /// another directory, or move the file away.
    #[error("{} does not belong to this store: {reason}", file.display())]
    #[non_exhaustive]
    Foreign {
        /// The file or directory.
        file: PathBuf,
        /// The property that shows it. For a directory these are some names of what it holds.
        reason: String,
    },

    /// A later version of this crate wrote the file. Nothing was written; upgrade.
    #[error("{} has format {found}, and this version reads up to {supported}", file.display())]
    #[non_exhaustive]
    Newer {
        /// The file.
        file: PathBuf,
        /// The format that it declares.
        found: u32,
        /// The newest format that this version reads.
        supported: u32,
    },

    /// A file is damaged or missing, so the store cannot know what it holds. It is never read as
    /// absence. From a key, find out what its operation did, and
    /// [`forget`](crate::Store::forget) it. From an opening, restore the file, or
    /// [`salvage`](crate::Store::salvage) the store.
    #[error("{} is damaged: {reason}", file.display())]
    #[non_exhaustive]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// The property that does not hold.
        reason: String,
    },

    /// The disk, or the quota on it, is full, so no new key is admitted. Nothing was run. Free some
    /// space; the results of requests already admitted have theirs, and replays go on.
    #[error("the disk has no room to record another result; free space on it, or raise the quota")]
    Full,

    /// The store commits faster than it seals: the caller gave up waiting for its turn, or asked for
    /// something that does not wait. Nothing was run. Retry shortly, or wait longer.
    #[error("no room yet to record another result")]
    Behind,

    /// A limit was reached. Retry later, or raise it with the [`Builder`](crate::Builder); those of
    /// a claim's checkpoints are fixed.
    #[error("{limit} limit of {max} reached")]
    #[non_exhaustive]
    Limit {
        /// The limit.
        limit: Limit,
        /// The value of the limit.
        max: u64,
    },

    /// The store takes no more work: it was closed (no source), or a write or sync failed (the
    /// source says which) and only a new process may reopen it. Whether the operation at hand was
    /// recorded is unknown until then.
    #[error("store is stopped")]
    #[non_exhaustive]
    Stopped {
        /// The failed write or sync; `None` if the store was closed.
        source: Option<Arc<Error>>,
    },

    /// The store was opened by the process that this one was forked from, and serves only that one.
    /// Nothing was run or recorded. Open the store after the fork.
    #[error("store was opened before this process was forked")]
    Forked,

    /// The key is in flight, so its record cannot be removed now.
    #[error("key is in flight for request {request_id}")]
    #[non_exhaustive]
    InFlight {
        /// The request that holds it.
        request_id: RequestId,
    },

    /// Only durable operations have checkpoints and downstream keys. Begin the operation with
    /// [`durable`](crate::Operation::durable).
    #[error("the operation is not durable")]
    Volatile,

    /// The operation has its verdict already.
    #[error("the operation has ended")]
    Ended,

    /// The operating system refused a call, or a limit of the process would have made it refuse.
    /// The message has the action, and the limit if that is the cause; the source has the system's
    /// answer. Each [`Cause`] has its own remedy.
    #[error("cannot {action} {}{}", file.display(), Circumstance(cause))]
    #[non_exhaustive]
    Io {
        /// The action: `open`, `append to`, and the like.
        action: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// The reason, where it has a remedy of its own.
        cause: Cause,
        /// The system's answer.
        source: Arc<io::Error>,
    },

    /// An operation asks for a TTL that the store cannot keep. Ask for a shorter one, or open the
    /// store with a longer [`ttl`](crate::Builder::ttl).
    #[error("operation ttl of {asked:?} is outside 1 ms to {max:?}")]
    #[non_exhaustive]
    Ttl {
        /// The operation's TTL.
        asked: Duration,
        /// The store's, which is the longest.
        max: Duration,
    },

    /// The claim was lost to another node while this one was cut off. Nothing was recorded under
    /// it; the other node's outcome stands.
    #[error("the claim was lost to another node")]
    Fenced,

    /// The backend cannot be reached, or background work on which new keys depend does not succeed:
    /// a log is damaged, or too many files are open. The source says which. Asked for a key, nothing
    /// runs: retry later. Asked for a verdict, its outcome is unknown.
    #[error("the store is unavailable")]
    #[non_exhaustive]
    Unavailable {
        /// The backend's own error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },

    /// A setting of the builder is out of bounds.
    #[error("setting {name} must be {allowed}")]
    #[non_exhaustive]
    Setting {
        /// The builder's method.
        name: &'static str,
        /// The values that it takes.
        allowed: String,
    },
}

/// The limit that was reached, in [`Error::Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Operations in flight in the store, waiting ones included.
    InFlight,
    /// Operations in flight in one scope, waiting ones included.
    InFlightPerScope,
    /// Operations waiting for one key.
    WaitersPerKey,
    /// Durable claims that are open or interrupted.
    OpenClaims,
    /// Durable claims of one scope that are open or interrupted.
    OpenClaimsPerScope,
    /// Bytes of a log that are reserved for the results of operations in flight. A larger
    /// [`log_bytes`](crate::Builder::log_bytes) has more of them.
    ReservedBytes,
    /// Checkpoints of one claim.
    Checkpoints,
    /// Bytes of one checkpoint.
    CheckpointBytes,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InFlight => "in-flight",
            Self::InFlightPerScope => "in-flight-per-scope",
            Self::WaitersPerKey => "waiters-per-key",
            Self::OpenClaims => "open-claims",
            Self::OpenClaimsPerScope => "open-claims-per-scope",
            Self::ReservedBytes => "reserved-bytes",
            Self::Checkpoints => "checkpoints",
            Self::CheckpointBytes => "checkpoint-bytes",
        })
    }
}

impl Error {
    pub(crate) fn io(action: &'static str, file: impl Into<PathBuf>, source: io::Error) -> Self {
        let cause = Cause::of(&source);
        Self::Io { action, file: file.into(), cause, source: Arc::new(source) }
    }

    /// Names the bytes that a file needs in the source of an error of the system.
    pub(crate) fn with_needed(self, bytes: u64) -> Self {
        let Self::Io { action, file, cause, source } = self else { return self };
        let source = Arc::new(io::Error::new(source.kind(), Needed(bytes)));
        Self::Io { action, file, cause, source }
    }

    /// The error of a store that was closed, for backends.
    pub fn stopped() -> Self {
        Self::Stopped { source: None }
    }

    /// The error of a backend that cannot take work now, for backends.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable { source: source.into().into() }
    }

    /// The error of a key that another request holds, for backends.
    pub fn in_flight(request_id: RequestId) -> Self {
        Self::InFlight { request_id }
    }

    pub(crate) fn corrupt(file: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), reason: reason.into() }
    }

    /// Says what a salvage of the store would lose, if this is damage and nothing said so before.
    pub(crate) fn or_salvage(self, loses: &str) -> Self {
        const SALVAGE: &str = "Store::salvage";
        match self {
            Self::Corrupt { file, reason } if !reason.contains(SALVAGE) => {
                Self::Corrupt { file, reason: format!("{reason}; {SALVAGE} loses {loses}") }
            }
            other => other,
        }
    }

    /// Calls a file damaged that does not look like the store's, where other files show that a store
    /// is there.
    pub(crate) fn or_damage(self) -> Self {
        match self {
            Self::Foreign { file, reason } => Self::Corrupt { file, reason },
            other => other,
        }
    }

    pub(crate) fn foreign(file: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Foreign { file: file.into(), reason: reason.into() }
    }

    /// The error of an operation over a limit, for backends.
    pub fn limit(limit: Limit, max: usize) -> Self {
        Self::Limit { limit, max: max as u64 }
    }

    /// Returns true for a shortage that may end: of disk space, memory, file descriptors, or bytes
    /// that a file may have. A system's limits can be raised while the process runs.
    pub(crate) fn is_transient(&self) -> bool {
        let Self::Io { cause, source, .. } = self else { return self.is_full() };
        let code = source.raw_os_error().map(Errno::from_raw_os_error);
        let is_of_memory = matches!(code, Some(Errno::NOMEM | Errno::INTR));
        let is_of_limits = matches!(cause, Cause::OpenFiles { .. } | Cause::FileSize { .. });
        self.is_full() || is_of_limits || is_of_memory
    }

    /// Returns true if a new key was refused because there was no room for its result.
    pub(crate) fn is_without_room(&self) -> bool {
        match self {
            Self::Full | Self::Behind | Self::Unavailable { .. } => true,
            Self::Limit { limit, .. } => *limit == Limit::ReservedBytes,
            _ => false,
        }
    }

    /// Returns true if the disk or a quota was full.
    pub(crate) fn is_full(&self) -> bool {
        let is_full_disk = |cause| matches!(cause, Cause::DiskFull | Cause::Quota);
        matches!(self, Self::Full) || matches!(self, Self::Io { cause, .. } if is_full_disk(*cause))
    }
}
