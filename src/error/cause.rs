//! The reasons for which the operating system refuses a call, as far as they have different
//! remedies.

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// The reason for a refusal of the operating system, where it has a remedy of its own.
///
/// [`Error::Io`](super::Error::Io) has one. A program may ask for the cause of its own errors too,
/// to give the same advice.
///
/// ```
/// use refrain::error::Cause;
///
/// let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
/// assert_eq!(Cause::of(&full), Cause::DiskFull);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The disk is full. Free some space, or choose another disk.
    DiskFull,
    /// The quota of the user on that disk is used up. Free some of it, or raise it.
    Quota,
    /// A file would be larger than the process, or the file system, allows. Raise the limit of the
    /// process (`ulimit -f`, or `LimitFSIZE=` in a systemd unit), or set a smaller
    /// [`log_bytes`](crate::Builder::log_bytes). A restart alone changes nothing. The source of the
    /// error says how many bytes the file needs.
    #[non_exhaustive]
    FileSize {
        /// The limit of the process in bytes, or `None` if it has no limit and the file system
        /// refused.
        max: Option<u64>,
    },
    /// Too many files are open. Raise the limit of the process (`ulimit -n`, or `LimitNOFILE=` in a
    /// systemd unit), or close files.
    #[non_exhaustive]
    OpenFiles {
        /// The limit of the process, or `None` if the limit of the whole system was reached
        /// (`fs.file-max` on Linux).
        max: Option<u64>,
    },
    /// The file system is read-only: it was mounted so, or the system made it so after an error of
    /// the disk. Check the disk, and mount the file system for writing.
    ReadOnly,
    /// This user may not do it. Correct the owner or the mode of the directory.
    Permission,
    /// Any other reason; the source of the error tells it.
    Other,
}

impl Cause {
    /// Returns the cause of an error. A limit of the process is the one in force at the time of the
    /// call.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE) => return Self::OpenFiles { max: max_open_files() },
            Some(Errno::NFILE) => return Self::OpenFiles { max: None },
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::StorageFull => Self::DiskFull,
            io::ErrorKind::QuotaExceeded => Self::Quota,
            io::ErrorKind::FileTooLarge => Self::FileSize { max: max_file_bytes() },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::PermissionDenied => Self::Permission,
            _ => Self::Other,
        }
    }
}

/// Shows the circumstance that follows the failed action in a message, or nothing for causes that
/// only the source can tell.
pub(super) struct Circumstance<'a>(pub(super) &'a Cause);

impl fmt::Display for Circumstance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cause::DiskFull => f.write_str(" on a full disk"),
            Cause::Quota => f.write_str(" within the disk quota"),
            Cause::FileSize { max: Some(max) } => {
                write!(f, " within the limit of {max} bytes for a file (RLIMIT_FSIZE)")
            }
            Cause::OpenFiles { max: Some(max) } => {
                write!(f, " within the limit of {max} open files (RLIMIT_NOFILE)")
            }
            Cause::ReadOnly => f.write_str(" on a read-only file system"),
            Cause::FileSize { max: None }
            | Cause::OpenFiles { max: None }
            | Cause::Permission
            | Cause::Other => Ok(()),
        }
    }
}

/// The bytes that a file was to have, beyond the limit of the process or the space on the disk.
#[derive(Debug)]
pub(super) struct Needed(pub(super) u64);

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes are needed", self.0)
    }
}

impl std::error::Error for Needed {}

/// Checks that the process may have a file of `len` bytes.
///
/// The system answers such a file with the signal `SIGXFSZ`, which ends a process that does not
/// expect it. Only the host may decide about its signals, so the limit is compared before the call.
///
/// # Errors
///
/// [`io::ErrorKind::FileTooLarge`].
pub(crate) fn expect_file_size(len: u64) -> io::Result<()> {
    match max_file_bytes() {
        Some(max) if len > max => Err(io::Error::new(io::ErrorKind::FileTooLarge, Needed(len))),
        _ => Ok(()),
    }
}

fn max_file_bytes() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

fn max_open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn each_answer_of_the_system_that_has_a_remedy_has_a_cause() {
        let open_files = Cause::OpenFiles { max: max_open_files() };
        let file_size = Cause::FileSize { max: max_file_bytes() };
        for (code, cause) in [
            (Errno::NOSPC, Cause::DiskFull),
            (Errno::DQUOT, Cause::Quota),
            (Errno::FBIG, file_size),
            (Errno::MFILE, open_files),
            (Errno::NFILE, Cause::OpenFiles { max: None }),
            (Errno::ROFS, Cause::ReadOnly),
            (Errno::ACCESS, Cause::Permission),
            (Errno::PERM, Cause::Permission),
            (Errno::IO, Cause::Other),
            (Errno::NOENT, Cause::Other),
        ] {
            assert_eq!(Cause::of(&code.into()), cause, "{code}");
        }
    }

    #[test]
    fn a_file_beyond_the_limit_says_how_large_it_was_to_be() {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, Needed(4096));
        assert!(matches!(Cause::of(&error), Cause::FileSize { .. }));
        assert_eq!(error.to_string(), "4096 bytes are needed");
    }

    #[test]
    fn the_message_of_an_error_has_the_limit_that_was_reached() {
        let said = |cause| {
            let source = io::Error::from(Errno::IO).into();
            Error::Io { action: "create", file: "/s/f".into(), cause, source }.to_string()
        };
        for (cause, expected) in [
            (Cause::DiskFull, "cannot create /s/f on a full disk"),
            (Cause::Quota, "cannot create /s/f within the disk quota"),
            (
                Cause::FileSize { max: Some(8) },
                "cannot create /s/f within the limit of 8 bytes for a file (RLIMIT_FSIZE)",
            ),
            (Cause::FileSize { max: None }, "cannot create /s/f"),
            (
                Cause::OpenFiles { max: Some(12) },
                "cannot create /s/f within the limit of 12 open files (RLIMIT_NOFILE)",
            ),
            (Cause::OpenFiles { max: None }, "cannot create /s/f"),
            (Cause::ReadOnly, "cannot create /s/f on a read-only file system"),
            (Cause::Permission, "cannot create /s/f"),
            (Cause::Other, "cannot create /s/f"),
        ] {
            assert_eq!(said(cause), expected);
        }
    }
}
